"""Target groups: places on the sky, with the names people give them."""

from __future__ import annotations

import difflib
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from models.base import Record

__all__ = [
    "NamedPlace",
    "SkyGroup",
    "Target",
    "TargetError",
    "designations",
    "find_target",
    "load_targets",
    "target_by_object",
]


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


class NamedPlace(Record):
    """What a name resolver knows of a word; without a position: it knows nothing of it."""

    word: str = Field(description="as it was asked for")
    name: str = Field("", description="the resolver's own name of the object")
    ra: float | None = Field(None, ge=0, lt=360, description="deg, ICRS")
    dec: float | None = Field(None, ge=-90, le=90)


class SkyGroup(Record):
    """Frames whose footprints hang together on the sky, under the name of the place."""

    target: Target
    named_by: Literal["table", "resolver", "position"] = Field(
        description="whether the table of targets, a name resolver, or nothing but its position gave the name"
    )
    n_frames: int = Field(ge=1)
    nights: tuple[str, ...]
    filters: tuple[str, ...]
    words: tuple[str, ...] = Field(description="what OBJECT says of its frames, the commonest first")
    patches: int = Field(ge=1, description="heaps of frames that overlap within and not among each other")
    moving: str = Field("", description="why it is taken for the fields of a moving target; empty: it is not")
    notes: tuple[str, ...] = Field((), description="where the sky and the table of targets differ")


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
                if not isinstance(entry, dict):
                    raise TargetError(
                        f"{path}: {name}: not a group; a group is a line [NAME], then ra = ... and dec = ..."
                    )
                targets[name] = Target.model_validate({"name": name, **entry})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TargetError(f"{path}: not valid TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise TargetError(f"{path}: {where}: {first['msg']}") from error
    return targets


def _fold(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


_CATALOGUE = re.compile(r"(?:the)?(messier|m|ngc|n|ic|i|abell|aco|a)0*(\d+)([a-z]?)(?:v\d)?")
_CATALOGUES = {"messier": "m", "n": "ngc", "i": "ic", "aco": "abell", "a": "abell"}
# What people write behind a target's name: exposure time, filter, number of the series, 'again', 'centre'.
_BESIDE = re.compile(
    r"\d{1,3}(?:s|sec|secs|m|min|mn)?|0\d*[a-z]{0,6}\d{0,4}s?|\d+s|[a-z]'{0,2}|ha|halpha|alpha|oiii|sii|o3|s2|gunn|cousins"
    r"|bis|ter|v\d|new|nouveau|suite|test|n\d|nuit\d*|night\d*|bin\d(?:x\d)?|centre|center|cote|bord|border|field|champ"
)


def _canonical(folded: str) -> str:
    """``messier51``, ``m051`` and ``m51``, ``n628`` and ``ngc628`` are one designation."""
    match = _CATALOGUE.fullmatch(folded)
    return f"{_CATALOGUES.get(match[1], match[1])}{match[2]}{match[3]}" if match else folded


def designations(word: str) -> Iterator[str]:
    """What a word may mean, the whole of it first, then without what people write behind a target's name."""
    plain = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().casefold()
    parts = re.findall(r"[a-z0-9']+", plain)
    while parts:
        folded = _fold("".join(parts))
        if folded:
            yield _canonical(folded)
        if len(parts) == 1 or not _BESIDE.fullmatch(parts[-1]):
            return
        parts.pop()


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
    """The group that an OBJECT names, if any: a hint for where to look, never proof of what was observed.

    Catalogue designations are known in their usual spellings (``ACO 1656``, ``Messier 51``, ``N628``), and what is
    written behind a name (``NGC_2682_30sec``, ``M67_2``) does not count.
    """
    for wanted in designations(word):
        for target in targets.values():
            if wanted in {_canonical(_fold(w)) for w in (target.name, *target.members, *target.aliases)}:
                return target
    return None
