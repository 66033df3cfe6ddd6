"""Check a downloaded copy of a release against its own ``release.json``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.settings import Settings
from models.telescope import Telescope

__all__ = ["main"]

_DESCRIPTION = """\
Check a downloaded copy of a release: every file that its release.json lists is there with its size and SHA-256,
FITS files keep the standard and fit their checksums, the images of a group lie on one grid and are what their names
say, and the tables (release.json, source lists, ObsCore) agree with the files.

  python -m flows.verify_release ~/downloads/ohp
  python -m flows.verify_release ~/downloads/ohp/stacks
  python -m flows.verify_release copy/stacks/release_T080.json --telescope T080

PATH holds the folder stacks/, or is it, or is its release.json. Years that were not downloaded at all are listed and
are no fault. Nothing is written. Of each file that is wrong one line says which, why, and what to do.
Here the exit status is 0: all is well; 1: something is wrong; 2: there is no release at PATH."""


def _command() -> Command:
    command = Command("flows.verify_release", _DESCRIPTION, writes=False)
    command.parser.add_argument("path", type=Path, metavar="PATH", help="folder of the copy")
    return command


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == total):
        print(f"\r  {done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _body(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    # Astropy and pyarrow take a second to import, which --help should not cost.
    from tasks.archive import verify_copy

    checked = verify_copy(args.path, telescope.name, _progress)
    say(
        f"{checked.release}: {checked.n_files} files, {checked.n_bytes / 1e6:.1f} MB; "
        f"{checked.n_fits} FITS files keep the standard"
    )
    for top in checked.not_here:
        say(f"  not in this copy: {top}/")
    for note in checked.notes:
        say(f"  note: {note}")
    for finding in checked.findings:
        say(f"WRONG {finding.file}: {finding.cause}\n  -> {finding.remedy}")
    if checked.findings:
        wrong = len({finding.file for finding in checked.findings})
        say(f"{wrong} of {checked.n_files} files are not as they should be")
        return STATUS_FAILED
    say("all as it should be")
    return STATUS_OK


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return _command().run(_body, arguments)


if __name__ == "__main__":
    sys.exit(main())
