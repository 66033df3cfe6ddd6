"""Target groups: places on the sky, with the names people give them."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from models.base import Record

__all__ = ["Target", "TargetError", "find_target", "load_targets", "target_by_object"]


class TargetError(ValueError):
    """An unknown group or a target table that cannot be read."""


class Target(Record):
    """A target group."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")
    ra: float = Field(ge=0, lt=360, description="deg, ICRS")
    dec: float = Field(ge=-90, le=90)
    members: tuple[str, ...] = Field(
        (), description="fields merged into this group; more than one: the wider radius applies"
    )
    aliases: tuple[str, ...] = Field((), description="what students type as OBJECT")
    type: str = ""

    @property
    def merged(self) -> bool:
        """Whether the group joins several fields."""
        return len(self.members) > 1


def load_targets(data_root: Path | None = None) -> dict[str, Target]:
    """The shipped groups and those of ``data_root/targets.toml``, which go first.

    Raises
    ------
    TargetError
        If a table cannot be read; names the file and the entry.
    """
    targets: dict[str, Target] = {}
    paths = [Path(__file__).parent / "profiles" / "targets.toml"]
    if data_root is not None and (data_root / "targets.toml").is_file():
        paths.append(data_root / "targets.toml")
    for path in paths:
        try:
            for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
                targets[name] = Target.model_validate({"name": name, **entry})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TargetError(f"{path}: not valid TOML: {error}") from error
        except (ValidationError, TypeError) as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise TargetError(f"{path}: {name}: {detail}") from error
    return targets


def _fold(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def find_target(name: str, targets: dict[str, Target]) -> Target:
    """A group by its name, whatever its case.

    Raises
    ------
    TargetError
        If there is none; a near miss is suggested.
    """
    folded = {_fold(key): target for key, target in targets.items()}
    if _fold(name) in folded:
        return folded[_fold(name)]
    words = {_fold(word): target.name for target in targets.values() for word in (*target.aliases, *target.members)}
    words |= {key: target.name for key, target in folded.items()}
    near = [words[key] for key in difflib.get_close_matches(_fold(name), list(words), n=3, cutoff=0.6)]
    suggestions = " or ".join(dict.fromkeys(near))
    hint = f"; did you mean {suggestions}?" if near else f"; groups: {', '.join(sorted(targets))}"
    raise TargetError(f"no target group {name!r}{hint}")


def target_by_object(word: str, targets: dict[str, Target]) -> Target | None:
    """The group that an OBJECT names, if any: a hint for where to look, never proof of what was observed."""
    wanted = _fold(word)
    for target in targets.values():
        if wanted and wanted in {_fold(w) for w in (target.name, *target.members, *target.aliases)}:
            return target
    return None
