"""Stand-ins for the astronomy tools, first on PATH: the real ones, but for the frames that they are told to fail on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["BEHAVIOURS", "LIES", "stand_ins"]

BEHAVIOURS = {
    "hang": "ran longer than",
    "segv": "died of SIGSEGV",
    "nothing": "exited normally(, but neither wrote| but did not write)",
    "half": "wrote only a part of",
    "flood": "exited with status 1",
    "litter": "",
}
"""What a stand-in does, and what the record says of it (a pattern); none: the work itself is done."""

LIES = {
    "mirrored": "mirrored|stars matched|chance",
    "twice": "times as large|stars matched|chance",
    "elsewhere": "stars matched",
}
"""What SCAMP's stand-in makes of the true heads, and what our own check against Gaia then says."""

_SCRIPT = r"""#!/bin/bash
real={real}; here={here}; mark={mark}
changed() {{ # NAMES FACTOR SUMMAND: cards of every head
  for head in *.head; do
    awk -v names=" $1 " -v by="$2" -v plus="$3" '
      index(names, " " $1 " ") {{ printf "%-8s= %20.12E\n", $1, by * substr($0, 11, 20) + plus; next }} {{ print }}
    ' "$head" > .changed && mv .changed "$head"
  done
}}
case "$1" in --version|--help|-h) exec "$real" "$@";; esac
# What came in first gets the first behaviour, however often it comes in again.
key=$(cat {inputs} | md5sum)
exec 9>>"$here/lock"; flock 9
grep -qxF "$key" "$here/seen" 2>/dev/null || echo "$key" >> "$here/seen"
number=$(grep -nxF "$key" "$here/seen" | cut -d: -f1)
exec 9>&-
what=$(sed -n "${{number}}p" "$here/plan")
echo "$number $what" >> "$here/calls"
case "$what" in
  hang) setsid sleep $mark >/dev/null 2>&1 & exec sleep $mark ;;
  segv) kill -SEGV $$ ;;
  nothing) exit 0 ;;
  half)
    touch .started; "$real" "$@" || exit
    find . -type f -size +0 -newer .started ! -name '*.axy*' | while read file; do
      truncate -s $(( $(stat -c %s "$file") / 2 )) "$file"
    done
    exit 0 ;;
  mirrored) "$real" "$@" || exit; changed "CD1_1 CD2_1" -1 0 ;;
  twice) "$real" "$@" || exit; changed "CD1_1 CD1_2 CD2_1 CD2_2" 2 0 ;;
  elsewhere) "$real" "$@" || exit; changed CRVAL2 1 5 ;;
  flood) head -c {flood} /dev/zero | tr '\0' 'x' >&2; exit 1 ;;
  litter)
    sleep $mark & disown
    setsid sleep $mark &
    (setsid bash -c "trap '' TERM HUP; sleep $mark; true" >/dev/null 2>&1 &)
    exec "$real" "$@" ;;
  fill)
    # Only ever on a small mount of the test's own.
    [ $(( $(stat -f -c '%b * %S' .) / 1048576 )) -lt 2000 ] || exit 99
    for number in $(seq 9999); do head -c 4M /dev/zero > junk$number || exit 1; done ;;
  *) exec "$real" "$@" ;;
esac
"""

_INPUTS = {
    "solve-field": "frame.xyls",
    "source-extractor": "image.fits",
    "psfex": "stars.cat",
    "scamp": "frames.list",
    "SWarp": "0000.fits",
}
"""What tells the frame or group that a call is for."""


def stand_ins(folder: Path, plans: Mapping[str, Sequence[str]], mark: str, flood_bytes: int = 1 << 30) -> str:
    """Write stand-ins; each frame or group that comes in gets its tool's next behaviour, those after the last the tool.

    Parameters
    ----------
    mark
        Seconds that hanging children sleep: tells them from all other processes.

    Returns
    -------
    str
        PATH with the stand-ins first.
    """
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for tool, plan in plans.items():
        here = folder / tool
        here.mkdir()
        (here / "plan").write_text("".join(f"{what}\n" for what in plan))
        script = _SCRIPT.format(
            real=shutil.which(tool), here=here, mark=mark, inputs=_INPUTS[tool], flood=flood_bytes
        )  # fmt: skip
        (programs / tool).write_text(script)
        (programs / tool).chmod(0o755)
        for path in (folder, here):
            path.chmod(0o777)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"
