"""``python -m flows.doctor``: is everything here that a run needs, and how to mend what is not."""

from __future__ import annotations

import sys

from flows import STATUS_FAILED, STATUS_OK

if sys.version_info < (3, 11):  # noqa: UP036 (the doctor is started with whatever Python there is)
    print("python -m flows.doctor: Python 3.11 or newer is needed: apt-get install python3-venv, make setup")
    sys.exit(STATUS_FAILED)
try:
    import argparse

    from flows._cli import Command, say
    from models.settings import Settings
    from models.telescope import Telescope
except ModuleNotFoundError as missing:  # without its packages the doctor still says what to do
    print(
        f"python -m flows.doctor: the Python package {missing.name} is not installed in {sys.executable}; "
        "make setup installs all of them, then .venv/bin/python -m flows.doctor",
        file=sys.stderr,
    )
    sys.exit(STATUS_FAILED)

_DESCRIPTION = """\
Checks tools and versions, Python packages, folders and disk, catalogues, index files and Prefect, and says
how to mend each. Opens no connection but a look for a Prefect server on this machine.
Exit status 0: a run is possible; 1: something is missing."""
_SIGNS = {"ok": ("OK", "green"), "note": ("note", "yellow"), "missing": ("MISSING", "bold red")}


def command() -> Command:
    """The command's options."""
    return Command("flows.doctor", _DESCRIPTION, writes=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command().run(_doctor, arguments)


def _doctor(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tasks.doctor import can_run, examine

    checks = examine(settings, telescope)
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    subject = ""
    for check in checks:
        sign, style = _SIGNS[check.state]
        found = Text(check.found)
        if check.mend:
            found.append(f"\n→ {check.mend}", style="bold" if check.state == "missing" else "")
        heading = check.subject if check.subject != subject else ""
        table.add_row(Text(heading), Text(sign, style=style), Text(check.name), found)
        subject = check.subject
    console.print(table)
    missing = [check for check in checks if check.state == "missing"]
    if not can_run(checks):
        say(f"No run is possible yet: {', '.join(check.name for check in missing)}.")
        return STATUS_FAILED
    say(f"A run is possible (telescope {telescope.name}, {settings.workers} workers).")
    return STATUS_OK


if __name__ == "__main__":
    sys.exit(main())
