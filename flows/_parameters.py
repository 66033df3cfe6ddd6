"""Types of the flows' parameters: what the forms of Prefect's interface offer and say.

The lists are those of the data root named by ``OHP_DATA_ROOT`` when a flow is imported. They are only offered:
a name is looked up by `models.target` and `models.telescope` in the run, which also suggest near misses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema
from pydantic.fields import FieldInfo

from flows._cli import ALL_SECTIONS, REDUCE_SECTIONS, STACK_SECTIONS, YEARS
from models.run import Stage
from models.settings import Settings
from models.target import TargetError, load_targets
from models.telescope import telescope_names

__all__ = [
    "AllSettings",
    "GroupName",
    "ReduceSettings",
    "Refresh",
    "StackTargetSettings",
    "TelescopeName",
    "Year",
]


def _data_root() -> Path:
    return Path(os.environ.get("OHP_DATA_ROOT", "data")).expanduser()


def _groups() -> list[str]:
    try:
        return sorted(load_targets(_data_root()))
    except TargetError:  # every command and every run reads the table again, and says what is wrong with it
        return sorted(load_targets())


def _form(description: str, offered: Sequence[str] = (), **limits: Any) -> FieldInfo:
    """What the form says of a parameter.

    Prefect 3.8 writes its own description over that of a `Field`; what stands in `json_schema_extra` stays.
    """
    extra: dict[str, Any] = {"description": description}
    if offered:
        extra["enum"] = list(offered)
    info: FieldInfo = Field(json_schema_extra=extra, **limits)
    return info


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema without references and defaults; each default stands in the help text instead."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    plain = {key: value for key, value in schema.items() if key not in ("default", "title", "flag", "$defs")}
    if "properties" in schema:
        plain["properties"] = {
            name: _inlined(each, definitions) | {"title": name} for name, each in schema["properties"].items()
        }
        return plain
    options = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(options) == 1:  # `X | None` is offered as X: left empty, it is not set
        plain = {key: value for key, value in plain.items() if key != "anyOf"} | _inlined(options[0], definitions)
    default = schema.get("default")
    if default not in (None, [], ()):
        said = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
        plain["description"] = f"{plain.get('description', '')} (default: {said})".strip()
    return plain


def _settings_form(sections: Sequence[str] = ALL_SECTIONS) -> dict[str, Any]:
    """The form of some sections of the settings.

    Its boxes are empty and what is left empty is not sent: a form filled with the defaults would override
    the pipeline.toml of the data root with every value that nobody touched. Folders are the installation's.
    """
    schema = Settings.model_json_schema()
    form = _inlined(schema, schema.get("$defs", {}))
    here = {"catalog_mode", "workers", *sections}
    form["properties"] = {name: each for name, each in form["properties"].items() if name in here}
    form["title"] = "Change some"
    form["description"] = "What is left empty stays as DATA_ROOT/pipeline.toml or the environment has it."
    return {
        "anyOf": [{"type": "null", "title": "As installed"}, form],
        "description": "Settings of this run alone. What is left empty stays as pipeline.toml has it.",
    }


GroupName = Annotated[
    str, _form("Target group to stack: of the shipped table or of DATA_ROOT/targets.toml.", _groups())
]
TelescopeName = Annotated[
    str,
    _form("Telescope profile: shipped, or DATA_ROOT/telescopes/NAME.toml.", telescope_names(_data_root())),
]
Year = Annotated[
    int | None,
    _form(
        "Year of the nights (local noon to noon). None: that of the night that ended last.", ge=YEARS[0], le=YEARS[1]
    ),
]
ReduceSettings = Annotated[Settings | None, WithJsonSchema(_settings_form(REDUCE_SECTIONS))]
StackTargetSettings = Annotated[Settings | None, WithJsonSchema(_settings_form(STACK_SECTIONS))]
AllSettings = Annotated[Settings | None, WithJsonSchema(_settings_form())]
Refresh = Annotated[
    tuple[Stage, ...],
    _form("Stages to run again whatever is on record; what depends on them follows if their products differ."),
]
