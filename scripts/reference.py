"""Reference pages written from the code: settings, profiles, reports, models, `make` targets.

The documentation site makes them at each build (scripts/docs_hooks.py); no copy is committed, so none goes stale.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path, PosixPath
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import models
from flows._cli import ALL_SECTIONS, REDUCE_SECTIONS, STACK_SECTIONS
from models.release import SCHEMAS
from models.settings import Settings
from models.target import Target
from models.telescope import Telescope

__all__ = ["PAGES", "described_fields"]

REPO = Path(__file__).resolve().parents[1]

_LIMITS = (("gt", "> {}"), ("ge", "≥ {}"), ("lt", "< {}"), ("le", "≤ {}"), ("min_length", "at least {} of them"))


def _cell(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").strip()


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def type_name(annotation: Any) -> str:
    """A type as a person writes it: ``float | None``, ``'g' | 'r'``, ``tuple[str, ...]``.

    Parameters
    ----------
    annotation
        Of a field of a pydantic model.
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is typing.Annotated:
        return type_name(inner[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(each) for each in inner)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(type_name(each) for each in inner)}]"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if field.default_factory is not None:
        return "worked out"
    value = field.default
    if isinstance(value, BaseModel):
        return "those below"
    if isinstance(value, PosixPath):
        return _code(str(value))
    if value is None or value == () or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(_code(str(each)) for each in value)
    return _code(str(value))


def _limits(field: FieldInfo) -> str:
    said = [
        words.format(value)
        for name, words in _LIMITS
        for value in (getattr(item, name, None) for item in field.metadata)
        if value is not None
    ]
    said += [f"matches `{item.pattern}`" for item in field.metadata if getattr(item, "pattern", None)]
    return ", ".join(said)


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring's ``Attributes`` say of the fields."""
    text = inspect.getdoc(model) or ""
    match = re.search(r"^Attributes\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", text, re.MULTILINE | re.DOTALL)
    said: dict[str, str] = {}
    names: list[str] = []
    for line in match[1].splitlines() if match else ():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(":")[0].split(",")]
        else:
            for name in names:
                said[name] = f"{said.get(name, '')} {line.strip()}".strip()
    return said


def _intro(model: type[BaseModel]) -> str:
    """The docstring without its sections."""
    text = inspect.getdoc(model) or "" if "__doc__" in vars(model) else ""
    return re.split(r"^\w+\n-{3,}$", text, flags=re.MULTILINE)[0].strip().replace("``", "`")


def described_fields(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field: its description, or its entry among the docstring's attributes, and its limits."""
    attributes = _attributes(model)
    said = {}
    for name, field in model.model_fields.items():
        meaning = _cell(field.description or attributes.get(name, "").rstrip(".")).replace("``", "`")
        said[name] = "; ".join(part for part in (meaning, _limits(field)) if part)
    return said


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _fields(model: type[BaseModel]) -> str:
    said = described_fields(model)
    return _table(
        ("field", "type", "default", "meaning"),
        (
            (_code(name), _code(type_name(field.annotation)), _default(field), said[name])
            for name, field in model.model_fields.items()
        ),
    )


def _sections() -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def settings_page() -> str:
    """Every setting with its option, its variable, its default, its limits."""
    sections = _sections()
    general = {name: field for name, field in Settings.model_fields.items() if name not in sections}
    said = described_fields(Settings)
    parts = [
        "# Settings",
        "Written from `models/settings.py`. A value is looked for on the command line, then among the environment's "
        "variables, then in `DATA_ROOT/pipeline.toml`, then here. An unknown name is an error.",
        "## Of all commands",
        "Variables; in `pipeline.toml` the same names in small letters and without `OHP_`.",
        _table(
            ("variable", "type", "default", "meaning"),
            (
                (_code(f"OHP_{name.upper()}"), _code(type_name(field.annotation)), _default(field), said[name])
                for name, field in general.items()
            ),
        ),
    ]  # fmt: skip
    for name, model in sections.items():
        users = [
            command
            for command, used in (
                ("reduce_year", REDUCE_SECTIONS), ("stack_target", STACK_SECTIONS), ("build_release", ALL_SECTIONS),
            )
            if name in used
        ]  # fmt: skip
        meant = described_fields(model)
        rows = []
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            short = f"; `{extra['flag']}` for short" if "flag" in extra else ""
            rows.append((_code(key), _code(type_name(field.annotation)), _default(field), meant[key] + short))
        first = next(iter(model.model_fields))
        option = f"--{name}-{first}".replace("_", "-")
        parts += [
            f"## `[{name}]`",
            f"{_intro(model)} Of {', '.join(f'[{user}](../commands/{user}.md)' for user in users)}: each key is an "
            f"option (`{option}`), a variable (`OHP_{name.upper()}__{first.upper()}`) and a line of `pipeline.toml`.",
            _table(("key", "type", "default", "meaning"), rows),
        ]
    return "\n\n".join(parts) + "\n"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Models that a type mentions, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def _with_parts(*first: type[BaseModel]) -> list[type[BaseModel]]:
    """Models and those that their fields are made of, each once, in order of mention."""
    found: list[type[BaseModel]] = []
    waiting = list(first)
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        found.append(model)
        waiting += [each for field in model.model_fields.values() for each in _models_in(field.annotation)]
    return found


def profiles_page() -> str:
    """What a telescope's and a target's TOML may say."""
    parts = [
        "# Telescope and target files",
        "Written from `models/telescope.py` and `models/target.py`. How to write one: "
        "[a new telescope](../new_telescope.md), [a new target](../new_target.md).",
    ]
    for title, model in (("telescopes/NAME.toml", Telescope), ("targets.toml, one table a target", Target)):
        parts.append(f"## `{title.split(',')[0]}`{''.join(',' + rest for rest in title.split(',')[1:])}")
        for each in _with_parts(model):
            parts += [f"### {each.__name__}", _intro(each), _fields(each)]
    return "\n\n".join(part for part in parts if part) + "\n"


def reports_page() -> str:
    """The rows of each JSON report."""
    parts = [
        "# Reports",
        "Written from `models/report.py` and `models/release.py`. A report is a JSON object of `schema` (1), `made` "
        "(time, UTC), `software` (versions) and `rows`; its JSON Schema lies in `DATA_ROOT/schemas`. What is not known "
        "is null.",
    ]  # fmt: skip
    for name, model in SCHEMAS.items():
        own = [field for key, field in model.model_fields.items() if key not in ("schema_version", "made", "software")]
        rows = [each for field in own for each in _models_in(field.annotation)]
        parts.append(f"## `{name}`")
        if model.model_fields.keys() - {"schema_version", "made", "software", "rows"}:
            parts += [_intro(model), _fields(model)]
        for each in rows:
            parts += [f"**{each.__name__}**: {_intro(each)}", _fields(each)]
    return "\n\n".join(part for part in parts if part) + "\n"


def models_page() -> str:
    """Every model that passes between the stages."""
    parts = [
        "# Models",
        "Written from `models/`: what passes between the stages and is kept on record. All are frozen pydantic models "
        "in which an unknown key is an error; paths are relative to the data root, or of raw frames to the raw root.",
    ]
    for info in pkgutil.iter_modules(models.__path__):
        if info.name in ("settings", "telescope", "release", "report"):
            continue
        module = importlib.import_module(f"models.{info.name}")
        own = [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ == module.__name__
        ]
        if own:
            parts += [f"## `models.{info.name}`", (module.__doc__ or "").strip().replace("``", "`")]
        for each in own:
            parts += [f"### {each.__name__}", _intro(each)]
            if each.model_fields:
                parts.append(_fields(each))
    return "\n\n".join(part for part in parts if part) + "\n"


def make_page() -> str:
    """The targets of the Makefile."""
    lines = (REPO / "Makefile").read_text(encoding="utf-8").splitlines()
    found = [match for line in lines if (match := re.match(r"([a-z-]+):.*?## (.*)", line))]
    return "\n\n".join([
        "# make",
        "Written from the `Makefile`; `make` alone prints the same. Each first installs what it needs.",
        _table(("command", "does"), ((_code(f"make {match[1]}"), _cell(match[2])) for match in found)),
    ]) + "\n"  # fmt: skip


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/profiles.md": profiles_page,
    "reference/reports.md": reports_page,
    "reference/models.md": models_page,
    "reference/make.md": make_page,
}
"""Pages of the site that are made from the code, by their path in it."""
