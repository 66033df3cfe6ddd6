"""One cache policy for every task that makes files: contents in, contents out.

The key of a task run is a digest of

- the task's name and the source of the code that does its work,
- the versions of the external tools it calls,
- its parameters, in which every file is replaced by the digest of what is in it.

Places (`Roots`) are no part of it: a raw tree copied elsewhere is the same raw tree. A hit counts only
while every product of the recorded result is still there with its content (`tasks.core.records`); otherwise
the task runs again. Modification times never matter.

A look at the record costs 0.3 ms, a Prefect task run 5 to 20: so flows look first (`known`) and submit only what
is not on record.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.transactions import IsolationLevel
from prefect.utilities.annotations import quote
from pydantic import BaseModel

from models.base import FileRef, Roots
from models.telescope import Telescope
from tasks.core.records import NOTHING, current
from tasks.core.tools import tool_version

__all__ = ["ByContent", "NotOnRecordError", "code_digest", "known", "recall", "recorded"]


_INFRASTRUCTURE = {
    f"tasks.core.{name}" for name in ("cache", "errors", "files", "ledger", "pool", "records", "running", "tools")
}
"""Modules that move files and processes but decide no pixel: a change in them makes nothing stale."""


_VALUES_ONLY = {"models.base", "models.run", "models.settings"}
"""Models whose functions find places and read settings: what comes of them is in the key."""

_parsing = threading.Lock()
"""Python 3.11 parses in one thread at a time (gh-106905: "AST constructor recursion depth mismatch")."""

_PARSE_TRIES = 20


class _WithoutDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        match body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]  # type: ignore[attr-defined]
        return node


class _WithoutFields(ast.NodeTransformer):
    """Of a module of models only what it does: its functions and constants. The values of fields are in the key."""

    # The names are ast's.
    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        return None

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        return None if names & {"__all__", "model_config"} else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef | None:
        validates = any("validator" in ast.dump(decorator) for decorator in node.decorator_list)
        return None if validates else node


def _imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a module names; a name that a package only hands on stands for the module it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            handed_on = _handed_on(node.module)
            for alias in node.names:
                if alias.name in handed_on:
                    yield handed_on[alias.name]
                else:
                    yield node.module
                    yield f"{node.module}.{alias.name}"


def _parsed(source: str) -> ast.Module:
    """The syntax tree; tried again where Prefect, which knows nothing of our lock, parsed at the same time."""
    for _ in range(_PARSE_TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            time.sleep(0.01)
    return ast.parse(source)


@functools.cache
def _handed_on(package: str) -> dict[str, str]:
    """Where the names that a package's ``__init__`` imports come from; nothing for a plain module.

    Without this, whoever reads a catalogue would depend on how catalogues are fetched.
    """
    if not package.startswith("tasks."):
        return {}
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not spec.origin.endswith("__init__.py"):
        return {}
    tree = _parsed(Path(spec.origin).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
    }


def code_digest(module: str) -> str:
    """SHA-256 of what a module and those of `tasks` and `models` it imports, directly or not, do.

    Comments, docstrings and layout do not count; fields of models do not either, since their values are in the key.
    """
    with _parsing:
        return _code_digest(module)


@functools.cache
def _digest_of(function: Callable[..., Any]) -> str:
    """Of the function's module; of a function that stands beside its task, of the function alone."""
    if not function.__module__.endswith(".tasks"):
        return code_digest(function.__module__)
    with _parsing:
        tree = _WithoutDocstrings().visit(_parsed(inspect.getsource(function)))
        return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


@functools.cache
def _code_digest(module: str) -> str:
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name in _INFRASTRUCTURE or name in _VALUES_ONLY or name.endswith(".tasks"):
            continue
        if not name.startswith(("tasks.", "models.")):
            continue
        source = _source_of(name)
        if source is not None:
            seen[name], imported = source
            waiting += imported
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


@functools.cache
def _source_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Digest of what a module does, and what it imports; None where the name is none of a module."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # `from module import function` names no module
        return None
    if spec is None or spec.origin is None:
        return None
    tree = _parsed(Path(spec.origin).read_text(encoding="utf-8"))
    imported = tuple(_imports(tree))
    if name.startswith("models."):
        tree = _WithoutFields().visit(tree)
    return hashlib.sha256(ast.unparse(_WithoutDocstrings().visit(tree)).encode()).hexdigest(), imported


def _canonical(value: Any) -> Any:
    if isinstance(value, FileRef):
        return {"file": value.digest}
    if isinstance(value, Telescope):
        return _canonical_telescope(value)
    if isinstance(value, BaseModel):
        return _canonical_model(value)
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot make a cache key of a {type(value).__name__}; pass a model, a FileRef or a plain value")


def _canonical_model(value: BaseModel) -> dict[str, Any]:
    left_out: frozenset[str] = getattr(type(value), "outside_keys", frozenset())
    return {name: _canonical(getattr(value, name)) for name in type(value).model_fields if name not in left_out}


_canonical_telescope = functools.lru_cache(maxsize=32)(_canonical_model)
"""A profile has hundreds of values and is part of nearly every key."""


@dataclass(frozen=True)
class _Asked:
    """A call whose key is known: while it runs, Prefect and the ledger ask for the same key again."""

    policy: ByContent
    task: str
    arguments: Mapping[str, Any]
    key: str

    def by(self, policy: ByContent, task: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this is the call: the very same objects, for models are too long to compare."""
        return (
            policy is self.policy
            and task == self.task
            and arguments.keys() == self.arguments.keys()
            and all(arguments[name] is value for name, value in self.arguments.items())
        )


_asked: ContextVar[_Asked | None] = ContextVar("asked", default=None)


@dataclass
class ByContent(CachePolicy):
    """Cache a task by contents.

    Parameters
    ----------
    code
        The functions that do the task's work: the source of their modules and of all modules of `tasks` and
        `models` these import is part of the key; of one that stands in a ``tasks.py``, its own source.
    tools
        External tools whose versions are part of the key (labels of `tasks.core.tools.TOOLS`).
    ignore
        Parameters that do not change the result (worker counts, flags for the log).
    """

    code: Sequence[Callable[..., Any]] = ()
    tools: Sequence[str] = ()
    ignore: Sequence[str] = field(default_factory=tuple)

    isolation_level: Any = IsolationLevel.SERIALIZABLE

    def key(self, task: str, arguments: Mapping[str, Any]) -> str:
        """Key of a task for its arguments by name."""
        asked = _asked.get()
        return asked.key if asked is not None and asked.by(self, task, arguments) else self._key(task, arguments)

    def _key(self, task: str, arguments: Mapping[str, Any]) -> str:
        spec = [
            task,
            [_digest_of(function) for function in self.code],
            [tool_version(tool) for tool in self.tools],
            {
                name: _canonical(value)
                for name, value in sorted(arguments.items())
                if name not in self.ignore and not isinstance(value, Roots)
            },
        ]
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:40]
        return f"{task.replace(' ', '-')}-{digest}"

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Key of this run."""
        return self.key(task_ctx.task.name, inputs)


_looking: ContextVar[bool] = ContextVar("looking", default=False)


class NotOnRecordError(Exception):
    """Only a look was wanted, and a step of the way is not on record."""


def _call_of(stage: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Asked | None:
    """A call with its key; None where nothing is recorded."""
    policy = stage.cache_policy
    if current() is None or not isinstance(policy, ByContent):
        return None
    bound = _signature(stage.fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return _Asked(policy, stage.name, bound.arguments, policy.key(stage.name, bound.arguments))


_signature = functools.lru_cache(maxsize=256)(inspect.signature)


def _on_record(call: _Asked | None) -> Any:
    here = current()
    return NOTHING if here is None or call is None else here.get(call.key)


def recorded(stage: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The recorded result of a cached task for these arguments, or `NOTHING`; runs nothing."""
    return _on_record(_call_of(stage, args, kwargs))


def recall(stage: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of a stage: as recorded, else by running it.

    Raises
    ------
    NotOnRecordError
        If it is not on record and only a look is wanted (see `known`).
    """
    if not isinstance(stage, Task):
        return stage(*args, **kwargs)
    call = _call_of(stage, args, kwargs)
    result = _on_record(call)
    if result is not NOTHING:
        return result
    if _looking.get():
        raise NotOnRecordError(stage.name)
    token = _asked.set(call)
    try:
        # Quoted: Prefect would look for futures in every value of every model, which costs more than all the rest.
        return stage(*map(quote, args), **{name: quote(value) for name, value in kwargs.items()})
    finally:
        _asked.reset(token)


def known(work: Task[..., Any], *args: Any) -> Any:
    """What a task would return if all that it needs is on record, else `NOTHING`.

    Parameters
    ----------
    work
        A cached task, or one that calls its stages through `recall` only: then all of them are looked up.
    """
    if isinstance(work.cache_policy, ByContent):
        return recorded(work, *args)
    token = _looking.set(True)
    try:
        return work.fn(*args)
    except NotOnRecordError:
        return NOTHING
    finally:
        _looking.reset(token)
