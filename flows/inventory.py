"""``python -m flows.inventory``: what lies under the raw root, file by file, and why."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows import STATUS_OK
from flows._cli import Command, say, year
from models.settings import Settings
from models.telescope import Telescope

if TYPE_CHECKING:
    from models.inventory import Inventory

_DESCRIPTION = """\
Classifies every raw file (bias, dark, flat, science, junk) from header, path and object together,
and says why. Reads headers and, the first time, contents (their digests are kept in ROOT/.cache).

  python -m flows.inventory                       all years, a summary
  python -m flows.inventory 2025 --json inv.json  one year, every file with its reason"""
_SHOWN = 12
_KINDS = ("science", "flat", "bias", "dark", "junk")


def command() -> Command:
    """The command's options."""
    made = Command("flows.inventory", _DESCRIPTION, writes=False)
    made.parser.add_argument("years", nargs="*", type=year, metavar="YEAR", help="only nights of these years")
    made.parser.add_argument("--json", type=Path, metavar="FILE", help="write a row for every file, as a report")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command().run(_inventory, arguments)


def _inventory(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from tasks.core.errors import UserError
    from tasks.inventory import take_inventory

    roots = settings.roots
    if args.json is not None and args.json.absolute().resolve().is_relative_to(roots.raw.resolve()):
        raise UserError(f"--json {args.json} lies among the raw frames, where nothing is ever written")
    say(f"Raw frames of {telescope.name} under {roots.raw}")
    inventory = take_inventory(roots, telescope, set(args.years) or None, _progress if sys.stderr.isatty() else None)
    if not inventory.rows:
        of_years = f" of {', '.join(map(str, args.years))}" if args.years else ""
        raise UserError(
            f"no raw frames{of_years} under {roots.raw} (suffixes {' '.join(telescope.suffixes)}); "
            "copy them there, or give --raw-root or OHP_RAW_ROOT"
        )
    _show(inventory, telescope)
    if args.json is not None:
        try:
            _write(args.json, inventory)
        except OSError as error:
            raise UserError(f"--json {args.json} cannot be written: {error.strerror or error}") from error
        say(f"Every file with its reason: {args.json}")
    elif sum(row.kind == "junk" for row in inventory.rows):
        say("Every file with its reason: add --json FILE")
    return STATUS_OK


def _progress(done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        print(f"\r  read {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _show(inventory: Inventory, telescope: Telescope) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("night", *_KINDS, "science filters", "binning", box=None, pad_edge=False)
    nights: dict[str, Counter[str]] = defaultdict(Counter)
    filters: dict[str, Counter[str]] = defaultdict(Counter)
    binnings: dict[str, set[int]] = defaultdict(set)
    for row in inventory.rows:
        night = row.night or "unknown"
        nights[night][row.kind] += 1
        if row.kind == "science":
            filters[night][row.filter or "?"] += 1
        if row.kind != "junk" and row.binning is not None:
            binnings[night].add(row.binning)
    order = {band.name: position for position, band in enumerate(telescope.bands)}
    for night in sorted(nights):
        bands = sorted(filters[night].items(), key=lambda item: order.get(item[0], 99))
        table.add_row(
            night,
            *(str(nights[night][kind] or "·") for kind in _KINDS),
            " ".join(f"{name} {count}" for name, count in bands),
            " ".join(map(str, sorted(binnings[night]))),
        )
    total = sum(nights.values(), Counter())
    table.add_row("all", *(str(total[kind]) for kind in _KINDS), "", "", style="bold")
    console.print(table)
    broken = {failure.file: failure for failure in inventory.unusable}
    left_out = _by_reason(
        (row.path, row.why) for row in inventory.rows if row.kind == "junk" and row.path not in broken
    )
    unknown = _by_reason((row.path, row.why) for row in inventory.rows if row.kind == "science" and row.filter is None)
    for title, lines in (
        (
            f"Cannot be used ({len(broken)})",
            [f"{file}: {failure.reason} → {failure.remedy}" for file, failure in broken.items()],
        ),
        ("Left out", left_out),
        ("Science frames without a known filter", unknown),
    ):
        if lines:
            say(f"{title}:")
            for line in lines[:_SHOWN]:
                console.print(Text("  " + _one_line(line)))
            if len(lines) > _SHOWN:
                say(f"  and {len(lines) - _SHOWN} more, all of them with --json FILE")


def _by_reason(files: Iterable[tuple[str, str]]) -> list[str]:
    """One line a reason: how many files, and one of them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, why in files:
        groups["copy of another file (same content)" if why.startswith("copy of") else why].append(path)
    return [
        f"{len(paths)} × {why}: {paths[0]}" + (" …" if len(paths) > 1 else "")
        for why, paths in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text)


def _write(path: Path, inventory: Inventory) -> None:
    from models.report import InventoryRow, Report
    from tasks.core.files import write_json
    from tasks.report import software_versions

    report = Report[InventoryRow](
        schema_version=1,
        made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        software=software_versions(),
        rows=inventory.rows,
    )
    write_json(path, report.model_dump(mode="json", by_alias=True))


if __name__ == "__main__":
    sys.exit(main())
