"""What all commands share: options, settings, exit statuses, errors in one line.

A command declares which sections of `models.settings.Settings` it uses; each setting of a section becomes an
option of its own, with the setting's description as help. So a number lives in one place and can be changed in
four: command line, environment, pipeline.toml, default.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import time
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows import STATUS_FAILED, STATUS_PENDING, STATUS_USAGE
from models.run import STAGES
from models.settings import Settings
from models.target import TargetError, find_target, load_targets
from models.telescope import Telescope, TelescopeError, load_telescope
from tasks.core.errors import UserError, machine_trouble
from tasks.core.shown import at_terminal

__all__ = ["ALL_SECTIONS", "REDUCE_SECTIONS", "STACK_SECTIONS", "YEARS", "Command", "say", "year"]

REDUCE_SECTIONS = ("bias", "flat", "reduction", "quality", "astrometry", "photometry", "psf", "catalogs")
"""Sections of the settings that `reduce_year` uses."""
STACK_SECTIONS = (
    "astrometry", "scamp", "selection", "stack", "validation", "sources", "photometry", "psf", "catalogs",
)  # fmt: skip
"""Sections of the settings that `stack_target` uses."""
ALL_SECTIONS = (*dict.fromkeys(REDUCE_SECTIONS + STACK_SECTIONS), "release")
"""Sections of the settings that `build_release` uses."""

YEARS = (1990, 2100)
"""First and last year that a night may be of."""

_EPILOG = """\
exit status: 0 all asked for was made; 1 failed; 2 wrong usage or input; 75 made what could be made,
catalogue queries pending or the machine refused, such as a full disk (run the same command again later).
settings: command line, then OHP_... variables, then DATA_ROOT/pipeline.toml, then the defaults shown."""


_OWN = "own"
"""Stands for the section of options that belong to one command, not to the settings."""

M = TypeVar("M", bound=BaseModel)


def say(text: str = "") -> None:
    """Print a line for the person at the terminal, at once."""
    print(at_terminal(text), flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(STATUS_USAGE, f"{self.prog}: {message} (--help tells more)\n")


def _plain_type(annotation: Any) -> Any:
    """The scalar behind `X | None` and `Literal[...]`; None where an option cannot say it."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [item for item in typing.get_args(annotation) if item is not type(None)]
        return _plain_type(inner[0]) if len(inner) == 1 else None
    if typing.get_origin(annotation) is typing.Literal or annotation in (int, float, str, bool):
        return annotation
    return None


def _add_setting(group: argparse._ArgumentGroup, section: str, name: str, field: FieldInfo) -> None:
    kind = _plain_type(field.annotation)
    is_words = typing.get_origin(field.annotation) is tuple
    if kind is None and not is_words:
        return
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if extra.get("option") == "common":  # said by one of the options that all commands have
        return
    flags = [f"--{name if section == _OWN else f'{section}-{name}'}".replace("_", "-")]
    if flag := extra.get("flag"):
        flags.insert(0, str(flag))
    default = "" if field.default in (None, (), PydanticUndefined) else f" (default: {field.default})"
    options: dict[str, Any] = {
        "dest": f"{section}:{name}" if section == _OWN else f"{section}.{name}",
        "default": None,
        "help": f"{field.description or name}{default}".replace("%", "%%"),
    }
    if is_words:
        options |= {"type": lambda text: tuple(text.split(",")), "metavar": "A,B"}
    elif kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif typing.get_origin(kind) is typing.Literal:
        options["choices"] = typing.get_args(kind)
    else:
        options |= {"type": kind, "metavar": "N" if kind is not str else "TEXT"}
    group.add_argument(*flags, **options)


def year(text: str) -> int:
    """A year of nights, of the command line."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not YEARS[0] <= value <= YEARS[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is no year between {YEARS[0]} and {YEARS[1]}")
    return value


class Command:
    """A command line of ours.

    Parameters
    ----------
    module
        Such as ``'flows.reduce_year'``; shown as ``python -m flows.reduce_year``.
    description
        What it does, with an example; the start of ``--help``.
    sections
        Sections of `Settings` whose values become options.
    writes
        Whether it makes files: adds ``--dry-run``.
    options
        A model of what this command alone can be asked; each of its fields becomes an option.
        `options_of` gives the model back, filled.
    """

    def __init__(
        self,
        module: str,
        description: str,
        sections: Sequence[str] = (),
        writes: bool = True,
        options: type[BaseModel] | None = None,
    ) -> None:
        self.module = module
        self.args: Any = None
        self.settings: Settings
        self.telescope: Telescope
        self.parser = _Parser(
            prog=f"python -m {module}",
            description=description,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        common = self.parser.add_argument_group("common options")
        common.add_argument(
            "--root", type=Path, metavar="DIR", help="where products go (OHP_DATA_ROOT, default ./data)"
        )
        common.add_argument(
            "--raw-root", type=Path, metavar="DIR", help="raw frames (default ROOT/raw); never written to"
        )
        common.add_argument("--telescope", default="T120", metavar="NAME", help="telescope profile (default: T120)")
        common.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
        if writes:
            common.add_argument("--dry-run", action="store_true", help="say what would be done, write nothing")
        for section in sections:
            model = Settings.model_fields[section].annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            group = self.parser.add_argument_group(f"settings: {section}", (model.__doc__ or "").strip())
            for name, field in model.model_fields.items():
                _add_setting(group, section, name, field)
        if options is not None:
            group = self.parser.add_argument_group("options of this command", (options.__doc__ or "").strip())
            for name, field in options.model_fields.items():
                _add_setting(group, _OWN, name, field)

    def add_refresh(self) -> None:
        """Add ``--refresh STAGE``."""
        self.parser.add_argument(
            "--refresh",
            action="append",
            default=[],
            choices=STAGES,
            metavar="STAGE",
            help="run a stage again whatever is on record, and what follows if its result differs; may be given "
            f"several times; stages: {', '.join(STAGES)}",
        )

    def options_of(self, args: argparse.Namespace, model: type[M]) -> M:
        """The command's own options, checked.

        Raises
        ------
        UserError
            If a value cannot be; names the option.
        """
        given = {
            dest.removeprefix(f"{_OWN}:"): value
            for dest, value in vars(args).items()
            if dest.startswith(f"{_OWN}:") and value is not None
        }
        try:
            return model.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            option = str(first["loc"][0])
            value = given.get(option)
            said = ",".join(str(item) for item in value) if isinstance(value, tuple) else value
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(f"--{option.replace('_', '-')} {said}: {message}; see --help") from error

    def begin(self, arguments: Sequence[str] | None = None) -> None:
        """Parse and load settings and profile; `--help` and mistakes end the program here.

        A command whose body needs seconds of imports calls this before them.
        """
        self.args = self.parser.parse_args(arguments)
        status = self._guarded(self._load)
        if status:
            raise SystemExit(status)

    def _load(self) -> int:
        self.settings = _settings(self.args)
        self.telescope = load_telescope(self.args.telescope, self.settings.roots.data)
        load_targets(self.settings.roots.data)
        return 0

    def run(
        self, body: Callable[[argparse.Namespace, Settings, Telescope], int], arguments: Sequence[str] | None = None
    ) -> int:
        """Run `body`, after `begin` unless that was called before; return the exit status."""
        if self.args is None or arguments is not None:
            self.begin(arguments)
        return self._guarded(lambda: body(self.args, self.settings, self.telescope))

    def _guarded(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except (UserError, TelescopeError, TargetError) as error:
            return self._fail(STATUS_USAGE, str(error))
        except KeyboardInterrupt:
            return self._fail(130, "stopped; what was finished is kept, the same command carries on from there")
        except PermissionError as error:
            return self._fail(
                STATUS_USAGE, f"not permitted: {error.filename or error}; check who owns it, or give another --root"
            )
        except Exception as error:  # the last resort: the person gets a line, the log gets the traceback
            if trouble := machine_trouble(error):
                return self._fail(STATUS_FAILED, f"{trouble[0]}; {trouble[1]}")
            if _NO_SERVER in str(error):
                return self._fail(
                    STATUS_PENDING,
                    "Prefect's embedded server did not answer in time: the machine is too busy; run the same command "
                    "again later, or start a server that stays (make server)",
                )
            settings = getattr(self, "settings", None)
            log = _keep(settings.roots.logs if settings else None)
            return self._fail(STATUS_FAILED, f"{type(error).__name__}: {error}".splitlines()[0], log)

    def group(self, name: str) -> str:
        """The proper name of a target group; an unknown one ends the program, with a suggestion."""
        try:
            return find_target(name, load_targets(self.settings.roots.data)).name
        except TargetError as error:
            from tasks.report import groups_on_record

            shown = groups_on_record(self.settings.roots, self.telescope)
            word = name.strip().casefold()
            found = next((row.group for row in shown if row.group.casefold() == word), None)
            if found is None:
                called = [row.group for row in shown if word in {each.casefold() for each in row.words}]
                place = " and ".join(called)
                self.stop(f"no target group {name!r}; OBJECT says so of {place}" if called else str(error))
            return found

    def stop(self, line: str) -> NoReturn:
        """End the program with status 2 and one clear line."""
        raise SystemExit(self._fail(STATUS_USAGE, line))

    def _fail(self, status: int, line: str, log: Path | None = None) -> int:
        print(f"{self.parser.prog}: {line}" + (f" (details: {log})" if log else ""), file=sys.stderr, flush=True)
        return status


_NO_SERVER = "ephemeral Prefect API server"
"""In the words of the plain RuntimeError that Prefect raises when its embedded server has not begun to answer."""


def _keep(folder: Path | None) -> Path | None:
    """Write the current traceback to a log; None where that cannot be done (then it is printed)."""
    try:
        if folder is None:
            raise OSError("no log folder")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"crash-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}.log"
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        traceback.print_exc()
        return None
    return path


def _settings(args: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {}
    for name, key in (("root", "data_root"), ("raw_root", "raw_root"), ("workers", "workers")):
        if getattr(args, name, None) is not None:
            given[key] = getattr(args, name)
    for dest, value in vars(args).items():
        if "." in dest and value is not None:
            section, name = dest.split(".", 1)
            given.setdefault(section, {})[name] = value
    _refuse_unknown_variables()
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"setting {where}: {first['msg']}"
        if first["type"] == "extra_forbidden":
            text = f"unknown setting {where!r} (pipeline.toml){_suggest(where.split('.')[-1], _known_names())}"
        raise UserError(f"{text}; see the settings in --help") from error
    except (ValueError, OSError) as error:  # TOML that cannot be read or parsed
        raise UserError(f"pipeline.toml or an OHP_ variable cannot be read: {error}") from error


def _known_names() -> list[str]:
    names = list(Settings.model_fields)
    for field in Settings.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += list(field.annotation.model_fields)
    return names


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _refuse_unknown_variables() -> None:
    known = [f"OHP_{name.upper()}" for name in Settings.model_fields]
    for name in os.environ:
        if name.startswith("OHP_") and name.split("__")[0] not in known:
            raise UserError(f"unknown environment variable {name}{_suggest(name, known)}")
