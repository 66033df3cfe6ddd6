"""Every command that README and docs/ tell a person to type, and how the tests run it.

`found` collects them: lines of shell blocks, what looks like a command in other blocks, and commands in the running
text. `WAYS` says of each, word for word, how it is run; tests/test_commands.py sees to it that none is missing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["REPO", "WAYS", "Way", "found", "pages"]

REPO = Path(__file__).resolve().parents[1]

_BEGIN = r"(?:[A-Z][A-Z_0-9]*=\S+ +)*"
_TYPED = re.compile(
    _BEGIN + r"(?:python -m \S|make(?: |$)|git |cd |source |export |pytest |prefect |apt-get |scripts/|\.venv/bin/)"
)
_INLINE = re.compile(
    _BEGIN + r"(?:python -m \S|make [a-z]|git |source |pytest |prefect |apt-get |scripts/setup|\.venv/bin/[\w-]+ )"
)


class Way(NamedTuple):
    """How a command is run.

    ``ci``: in full, in every run of the tests; ``slow``: in full by a test of `make test-long`; ``dry``: by `make
    --dry-run`, since it takes hours, changes the machine or starts servers; ``test``: in full by the test file `where`,
    which names it by `says`; ``script``: in full by `.ci/run`; ``page``: a line that is none by itself. Whatever the
    way, a command of ours is given to its own parser in every run.
    """

    how: str
    where: str = ""
    says: str = ""


CI, SLOW, DRY, PAGE, SCRIPT = Way("ci"), Way("slow"), Way("dry"), Way("page"), Way("script")
DEMO = Way("test", "tests/demo.py")
REAL = Way("test", "tests/flows/test_real.py")
SERVER = Way("test", "tests/server/installation.py", 'self.deployments("')
QUICKSTART = Way("test", "tests/test_quickstart.py", 'blocks("bash")')
VERIFY = Way("test", "tests/archive/test_archive.py")
SITE = Way("test", "tests/test_site.py", "scripts.site")


def pages() -> list[Path]:
    """README and the pages of docs/."""
    return [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]


def _lines(body: str) -> list[str]:
    """Commands of a block, one a line, without remarks; cron's times and continued lines taken away."""
    joined = re.sub(r"\\\n\s*", " ", body)
    bare = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined.splitlines())
    return [re.sub(r"\s+", " ", re.sub(r"^(?:@\w+|(?:[\d*/]+ +){5}) *", "", line)) for line in bare if line]


def found(page: Path) -> tuple[list[str], list[str]]:
    """Commands of a page's blocks, in order, and those of its text."""
    text = page.read_text(encoding="utf-8")
    typed = []
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language in ("sh", "bash", ""):
            typed += [line for line in _lines(body) if language or _TYPED.match(line)]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [code for code in re.findall(r"`([^`\n]+)`", prose) if _INLINE.match(code)]
    return typed, inline


_MAKE = {
    "make bench": DRY,
    "make bench SUBJECTS=holding": DRY,
    "make bench SUBJECTS=where": DRY,
    "make clean-demo": DRY,
    "make demo": SLOW,
    "make deploy": DRY,
    "make deploy ROOT=/data/ohp": SERVER,
    "make docs": SITE,
    "make lint": SCRIPT,
    "make measured": DRY,
    "make rehearsal": DRY,
    "make server": DRY,
    "make server ROOT=/data/ohp": SERVER,
    "make server worker deploy": SERVER,
    "make setup": SCRIPT,
    "make test": SCRIPT,
    "make test-load": DRY,
    "make truth": DRY,
    "make worker": DRY,
    "make worker ROOT=/data/ohp": SERVER,
    "cd /opt/ohp-pipeline && make server worker ROOT=/data/ohp": SERVER,
    "cd /opt/ohp-pipeline && make server worker ROOT=/data/ohp >/dev/null": SERVER,
    "PREFECT_API_URL=http://HOST:4200/api make worker ROOT=/data/ohp": DRY,
}

_OURS = {
    "python -m deployments --help": CI,
    "python -m deployments server --root /data/ohp --host 0.0.0.0 --background": SERVER,
    "python -m deployments stop": SERVER,
    "python -m flows.build_release": SLOW,
    "python -m flows.build_release --compressed": SLOW,
    "python -m flows.build_release --dry-run": SLOW,
    "python -m flows.build_release --refresh combine": SLOW,
    "python -m flows.build_release --root demo": SLOW,
    "python -m flows.build_release --root mydata --telescope MICRO": SLOW,
    "python -m flows.build_release --root try": SLOW,
    "python -m flows.demo": DEMO,
    "python -m flows.demo --dry-run": SLOW,
    "python -m flows.demo --root /tmp/try": DEMO,
    "python -m flows.doctor": CI,
    "python -m flows.doctor --root /data/ohp --raw-root /archive/raw --telescope T080": SLOW,
    "python -m flows.doctor --root mydata --telescope MICRO": SLOW,
    "python -m flows.import_catalog": SLOW,
    "python -m flows.import_catalog gaia FILE": SLOW,
    "python -m flows.import_catalog gaia gaia_m67.csv --ra 132.85 --dec 11.81 --radius 0.5": SLOW,
    "python -m flows.import_catalog gaia m67.csv": SLOW,
    "python -m flows.import_catalog gaia m67.csv --dry-run": CI,
    "python -m flows.import_catalog ps1 field.fits --ra 132.85 --dec 11.81 --radius 0.5": SLOW,
    "python -m flows.import_catalog ps1 ps1_m67.csv --ra 132.85 --dec 11.81 --radius 0.5": SLOW,
    "python -m flows.inventory": CI,
    "python -m flows.inventory --root demo": SLOW,
    "python -m flows.inventory --root mydata --telescope MICRO --json inventory.json": SLOW,
    "python -m flows.inventory 2019 --root demo --json inventory.json": SLOW,
    "python -m flows.inventory 2024 --root try": SLOW,
    "python -m flows.inventory 2024 --root try --json inventory.json": SLOW,
    "python -m flows.inventory 2025": SLOW,
    "python -m flows.inventory 2025 --raw-root /archive/raw --json inventory.json": SLOW,
    "python -m flows.reduce_year": SLOW,
    "python -m flows.reduce_year 2017 --root mydata --telescope MICRO": SLOW,
    "python -m flows.reduce_year 2019 2023 2025 --workers 4": SLOW,
    "python -m flows.reduce_year 2024 --root try": SLOW,
    "python -m flows.reduce_year 2024 --root try --dry-run": SLOW,
    "python -m flows.reduce_year 2025 --dry-run": SLOW,
    "python -m flows.reduce_year 2025 --photometry-bright-mag 15": SLOW,
    "python -m flows.reduce_year 2025 --raw-root /archive/raw": SLOW,
    "python -m flows.reduce_year 2025 --refresh solve": SLOW,
    "python -m flows.reduce_year 2025 --root demo": SLOW,
    "python -m flows.reduce_year 2025 --root demo --photometry-min-snr 20": SLOW,
    "python -m flows.reduce_year YEAR": SLOW,
    "OHP_CATALOG_MODE=offline python -m flows.reduce_year 2025": SLOW,
    "OHP_CATALOG_MODE=offline OHP_ASTROMETRY_INDEX_DIR=/usr/share/astrometry python -m flows.reduce_year 2017"
    " --root mydata --telescope MICRO --astrometry-reference index": REAL,
    "python -m flows.retry_queries": SLOW,
    "python -m flows.retry_queries --dry-run": CI,
    "OHP_GAIA_URLS=https://gaia.ari.uni-heidelberg.de/tap python -m flows.retry_queries": SLOW,
    "python -m flows.simulate_campaign": DEMO,
    "python -m flows.simulate_campaign --root demo": DEMO,
    "python -m flows.simulate_campaign --root small --dry-run": CI,
    "python -m flows.simulate_campaign --root small --years 2023 --filters g,r,Ha --seed 7": SLOW,
    "python -m flows.simulate_campaign --root m13 --years 2023 --fields M13 --filters g,r --seed 43": SLOW,
    "python -m flows.simulate_campaign --root t080 --telescope T080 --years 2024 --fields M67": SLOW,
    "python -m flows.simulate_campaign --root try": SLOW,
    "python -m flows.simulate_campaign --root try --years 2024 --fields M67 --filters g,r": SLOW,
    "python -m flows.stack_target": SLOW,
    "python -m flows.stack_target --help": SLOW,
    "python -m flows.stack_target GROUP": SLOW,
    "python -m flows.stack_target HAT-P-32 --root mydata --telescope MICRO": SLOW,
    "python -m flows.stack_target M51": SLOW,
    "python -m flows.stack_target M51 --combine weighted": SLOW,
    "python -m flows.stack_target M51 --dry-run": SLOW,
    "python -m flows.stack_target M51 --extended always": SLOW,
    "python -m flows.stack_target M51 --refresh combine": SLOW,
    "python -m flows.stack_target M51 --selection-exclude-flags BAD_SEEING,ELONGATED": SLOW,
    "python -m flows.stack_target M51 --selection-max-seeing-arcsec 3 --maps": SLOW,
    "python -m flows.stack_target M67 --root demo --combine weighted": SLOW,
    "python -m flows.stack_target M67 --root demo --dry-run": SLOW,
    "python -m flows.stack_target M67 --root try": SLOW,
    "python -m flows.stack_target M67 m51 --combine weighted": SLOW,
    "python -m flows.stack_target NGC7331": SLOW,
    "python -m flows.stack_target NGC7331 --dry-run": SLOW,
    "python -m flows.verify_release": VERIFY,
    "python -m flows.verify_release ~/downloads/ohp": VERIFY,
    "python -m flows.verify_release ~/downloads/ohp/stacks": VERIFY,
    "python -m scripts.catalogue": SLOW,
    "python -m scripts.measure --root demo": SLOW,
    "python -m scripts.rehearsal --help": SLOW,
}

_OTHERS = {
    ".venv/bin/dask scheduler --host HOST": Way("test", "tests/server/cluster.py", "dask_scheduler"),
    ".venv/bin/dask worker tcp://HOST:8786 --nthreads 1 --nworkers 8 --preload deployments.dask_worker": Way(
        "test", "tests/server/cluster.py", '"--preload", "deployments.dask_worker"'
    ),
    ".venv/bin/fitsheader FRAME": SLOW,
    ".venv/bin/pre-commit install": SLOW,
    "apt-get install astrometry-data-tycho2": SLOW,
    "apt-get install git make": SLOW,
    "cd M67/T120": QUICKSTART,
    "cd ohp-pipeline": PAGE,
    "done": QUICKSTART,
    "export OHP_DASK_SCHEDULER=tcp://HOST:8786": Way("test", "tests/server/test_cluster.py", "OHP_DASK_SCHEDULER"),
    "export PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://USER:PASSWORD@HOST:5432/prefect": Way(
        "test", "tests/server/test_cluster.py", "PREFECT_API_DATABASE_CONNECTION_URL"
    ),
    "for band in r g; do": QUICKSTART,
    "git clone URL ohp-pipeline": SLOW,
    r"printf '%s\n' NUMBER X_IMAGE Y_IMAGE MAG_APER MAG_AUTO FLAGS > default.param": QUICKSTART,
    "pytest tests/load/test_two_users.py": SLOW,
    "pytest tests/load/test_year.py": SLOW,
    "scripts/setup --cluster": DRY,
    "source .venv/bin/activate": PAGE,
    "source-extractor -d > default.sex": QUICKSTART,
    "source-extractor M67_r.fits,M67_$band.fits -c default.sex -FILTER N -WEIGHT_IMAGE"
    " M67_r.weight.fits,M67_$band.weight.fits -WEIGHT_TYPE MAP_WEIGHT,MAP_WEIGHT -PHOT_APERTURES 22"
    " -MAG_ZEROPOINT 30.0 -GAIN 0 -GAIN_KEY NONE -SATUR_KEY NONE -CATALOG_NAME M67_${band}_dual.cat"
    " -VERBOSE_TYPE QUIET": QUICKSTART,
}

WAYS: dict[str, Way] = {**_MAKE, **_OURS, **_OTHERS}
"""Every command, word for word, and how it is run."""
