"""Two people reduce on one data root at the same time, without a server: as one account, and as two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from models.base import Roots
from tasks.core.files import digest_file
from tests.load.figures import GROUPS, Figures
from tests.server.installation import REPO, free_port

pytestmark = [pytest.mark.slow, pytest.mark.load, pytest.mark.tools]

_ACCOUNTS = (20001, 20002)
_TOGETHER = 20000
"""Two accounts and the group both are in; the kernel does not ask whether they have names."""


def as_account(uid: int | None) -> list[str]:
    """What a command is put behind to run as that account.

    It may read everything, since the checkout and Python may lie in a home folder, and write what the account may.
    """
    if uid is None:
        return []
    cap = "+dac_read_search"
    return [
        "setpriv", "--reuid", str(uid), "--regid", str(_TOGETHER), "--clear-groups", "--inh-caps", cap,
        "--ambient-caps", cap, "--bounding-set", f"-all,{cap}", "--",
    ]  # fmt: skip


def begin(roots: Roots, group: str, uid: int | None, home: Path, *options: str) -> subprocess.Popen[str]:
    """A person's stack, from the shell."""
    home.mkdir(parents=True)
    if uid is not None:
        os.chown(home, uid, _TOGETHER)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    clean |= {"HOME": str(home), "OHP_CATALOG_MODE": "offline", "OHP_SIMBAD_URLS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    clean |= {"PREFECT_SERVER_API_PORT": str(free_port())}  # nobody listens there
    return subprocess.Popen(
        [*as_account(uid), sys.executable, "-m", "flows.stack_target", group, "--root", str(roots.data), *options],
        cwd=REPO, env=clean, umask=0o002, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def share(folder: Path) -> None:
    """As docs/deployment.md says: chgrp, chmod g+rwXs."""
    subprocess.run(["chgrp", "-R", str(_TOGETHER), folder], check=True)
    subprocess.run(["chmod", "-R", "g+rwX", folder], check=True)
    subprocess.run(["find", folder, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"], check=True)
    for parent in folder.parents:
        if (
            parent.owner() == "root"
            and parent != Path("/")
            and parent.is_relative_to("/tmp")
            and parent != Path("/tmp")
        ):
            parent.chmod(parent.stat().st_mode | 0o011)


def products(roots: Roots) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted((roots.data / "stacks").rglob("M*.fits"))}


@pytest.mark.parametrize("accounts", [(None, None), _ACCOUNTS], ids=["one account", "two accounts"])
def test_two_people_stack_different_groups(finished, tmp_path, figures: Figures, accounts):
    if None not in accounts and (os.geteuid() != 0 or shutil.which("setpriv") is None):
        pytest.skip("two accounts need root and setpriv (util-linux)")
    root = tmp_path / "shared"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(".prefect*", "logs"))
    if None not in accounts:
        share(root)
    roots = Roots(data=root, raw=root / "raw")
    before = products(roots)
    assert len(before) >= 12
    people = [
        begin(roots, group, uid, tmp_path / f"home{number}", "--refresh", "combine", "--refresh", "align-group")
        for number, (group, uid) in enumerate(zip(GROUPS, accounts, strict=True))
    ]
    said = [person.communicate(timeout=7200)[0] for person in people]

    made = [json.loads(line) for line in (root / "logs" / "made.jsonl").read_text().splitlines()]
    stages = Counter(entry["stage"] for entry in made)
    locked = sum(text.count("database is locked") for text in said)
    title = f"two people, {'one account' if None in accounts else 'two accounts'}"
    figures.add(title, "runs that failed", sum(person.returncode != 0 for person in people), "", goal=0)
    figures.add(title, "products that changed", len(set(products(roots).items()) ^ set(before.items())), "", goal=0)
    figures.add(title, "'database is locked'", locked, "", goal=0)
    assert [person.returncode for person in people] == [0, 0], said
    assert products(roots) == before
    assert stages["combine"] == 4, stages
    assert stages["align-group"] == 2, stages
    assert locked == 0
    assert not list((root / "logs").glob("crash*"))
    assert not list(root.rglob("*.tmp"))
