"""One cache policy for every task that makes files: contents in, contents out.

The key of a task run is a digest of

- the task's name and the source of the code that does its work,
- the versions of the external tools it calls,
- its parameters, in which every file is replaced by the digest of what is in it.

Places (`Roots`) are no part of it: a raw tree copied elsewhere is the same raw tree. A hit counts only
while every product of the recorded result is still there with its content; otherwise the record is
forgotten and the task runs again. Modification times never matter.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.results import get_result_store
from pydantic import BaseModel

from models.base import FileRef, Roots
from tasks.core.files import is_current
from tasks.core.tools import tool_version

__all__ = ["ByContent", "code_digest", "products_in"]


_INFRASTRUCTURE = {f"tasks.core.{name}" for name in ("cache", "errors", "files", "pool", "running", "tools")}
"""Modules that move files and processes but decide no pixel: a change in them makes nothing stale."""


_parsing = threading.Lock()
"""Python 3.11 parses in one thread at a time (gh-106905: "AST constructor recursion depth mismatch")."""


class _WithoutDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        match body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]  # type: ignore[attr-defined]
        return node


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def code_digest(module: str) -> str:
    """SHA-256 of what a module and the modules of `tasks` it imports, directly or not, do.

    Comments, docstrings and layout do not count; models do not either, since their values are in the key.
    """
    with _parsing:
        return _code_digest(module)


@functools.cache
def _code_digest(module: str) -> str:
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name in _INFRASTRUCTURE or not name.startswith("tasks.") or name.endswith(".tasks"):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # `from module import function` names no module
            continue
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        waiting += _imports(tree)
        seen[name] = hashlib.sha256(ast.unparse(_WithoutDocstrings().visit(tree)).encode()).hexdigest()
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


def products_in(value: Any) -> Iterator[FileRef]:
    """Every file that a result refers to."""
    if isinstance(value, FileRef):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from products_in(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from products_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from products_in(item)


def _canonical(value: Any) -> Any:
    if isinstance(value, FileRef):
        return {"file": value.digest}
    if isinstance(value, BaseModel):
        return {name: _canonical(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot make a cache key of a {type(value).__name__}; pass a model, a FileRef or a plain value")


@dataclass
class ByContent(CachePolicy):
    """Cache a task by contents.

    Parameters
    ----------
    code
        The pure functions that do the task's work: the source of their modules and of all modules of
        `tasks` these import is part of the key.
    tools
        External tools whose versions are part of the key (labels of `tasks.core.tools.TOOLS`).
    ignore
        Parameters that do not change the result (worker counts, flags for the log).
    """

    code: Sequence[Callable[..., Any]] = ()
    tools: Sequence[str] = ()
    ignore: Sequence[str] = field(default_factory=tuple)

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Key of this run; forgets a recorded result whose products are gone or changed."""
        roots = next((value for value in inputs.values() if isinstance(value, Roots)), None)
        arguments = {
            name: _canonical(value)
            for name, value in sorted(inputs.items())
            if name not in self.ignore and not isinstance(value, Roots)
        }
        spec = [
            task_ctx.task.name,
            [code_digest(function.__module__) for function in self.code],
            [tool_version(tool) for tool in self.tools],
            arguments,
        ]
        name = task_ctx.task.name.replace(" ", "-")
        key = f"{name}-{hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:40]}"
        if roots is not None:
            self._forget_if_stale(key, roots)
        return key

    @staticmethod
    def _forget_if_stale(key: str, roots: Roots) -> None:
        store = get_result_store()
        if not store.exists(key):
            return
        try:
            current = all(is_current(product, roots) for product in products_in(store.read(key).result))
        except ValueError:  # a torn or foreign record is no record
            current = False
        if not current:
            path = store._resolved_key_path(key)
            Path(path).unlink(missing_ok=True)
            store.cache.pop(path, None)
