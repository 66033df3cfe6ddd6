"""Put a catalogue file into the local store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import STATUS_OK
from flows._cli import Command, say
from models.catalog import Cone
from models.settings import Settings
from models.telescope import Telescope
from tasks.core.errors import UserError

__all__ = ["main"]

_DESCRIPTION = """\
Put a Gaia (EDR3, DR3) or Pan-STARRS1 catalogue file, or one of PS1's stand-ins (ATLAS-REFCAT2 with VizieR's names,
Gaia's synthetic photometry GSPC), into the local store, where all commands look first.
CSV, ECSV, FITS, VOTable and what else astropy reads, with the archive's own column names:

  python -m flows.import_catalog gaia m67.csv
  python -m flows.import_catalog ps1 field.fits --ra 132.85 --dec 11.81 --radius 0.5

Without --ra --dec --radius the rows themselves have to show what the file covers: the largest circle that they
fill in every direction, a little smaller than the truth rather than larger."""


def _command() -> Command:
    command = Command("flows.import_catalog", _DESCRIPTION)
    command.parser.add_argument(
        "catalogue", choices=("gaia", "ps1", "refcat2", "gspc"), help="whose columns the file has"
    )
    command.parser.add_argument("file", type=Path, help="the catalogue file")
    where = command.parser.add_argument_group("what the file covers (all three or none)")
    where.add_argument("--ra", type=float, metavar="DEG", help="right ascension of the circle's centre")
    where.add_argument("--dec", type=float, metavar="DEG", help="declination of the circle's centre")
    where.add_argument("--radius", type=float, metavar="DEG", help="radius of the circle")
    return command


def _stated_cone(args: argparse.Namespace) -> Cone | None:
    given = {name: getattr(args, name) for name in ("ra", "dec", "radius")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return None
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: --ra, --dec and --radius belong together")
    try:
        return Cone(**given)
    except ValueError as error:
        raise UserError(
            f"--ra {args.ra} --dec {args.dec} --radius {args.radius} is no circle on the sky: "
            "0 <= ra < 360, -90 <= dec <= 90, 0 < radius <= 180 (degrees)"
        ) from error


def _body(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    cone = _stated_cone(args)
    # Astropy takes most of a second to import, which --help and a wrong option should not cost.
    from tasks.catalogs import farthest_row, read_catalog_file, store_cone

    found = read_catalog_file(args.catalogue, args.file, cone)
    say(f"{args.file}: {len(found.table)} {found.release} rows")
    if found.dropped:
        say(f"  left out: {found.dropped} rows (no position, repeated, or outside the circle)")
    if found.filled:
        say(f"  not in the file, missing in every row: {', '.join(found.filled)}")
    origin = "as stated" if found.stated else "as the rows show"
    say(f"  covers {found.cone.radius:.3f} deg about RA {found.cone.ra:.4f} Dec {found.cone.dec:+.4f}, {origin}")
    if found.stated and (reach := farthest_row(found)) < 0.9 * found.cone.radius:
        say(f"  note: its farthest row is only {reach:.3f} deg from there; beyond, the sky counts as empty")
    if args.dry_run:
        say("  dry run: nothing was written")
        return STATUS_OK
    stored = store_cone(args.catalogue, found.cone, found.table, settings.roots, "import", found.release, found.origin)
    say(f"  stored as {settings.roots.of(stored.file)}")
    return STATUS_OK


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return _command().run(_body, arguments)


if __name__ == "__main__":
    sys.exit(main())
