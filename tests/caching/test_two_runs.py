"""Two runs on one data root at once: both finish, nothing is made twice, nothing is torn."""

from __future__ import annotations

from collections import Counter

import pytest

from models.report import REPORTS
from tasks.core.ledger import read_made
from tests.caching.site import GROUPS, NOTHING_RAN, YEAR, Site, as_subprocess
from tests.caching.test_killed import fresh, half_written, undated

pytestmark = [pytest.mark.tools]


def at_once(site: Site, api: str, *commands: list[str]) -> None:
    """Start the commands together; all must end well."""
    processes = [as_subprocess(*command, site=site, api=api) for command in commands]
    for command, process in zip(commands, processes, strict=True):
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, f"{command}: {output}{errors}"


def nothing_twice(site: Site) -> None:
    counts = Counter(entry.key for entry in read_made(site.roots))
    assert [key for key, count in counts.items() if count > 1] == []


def groups_reported(site: Site) -> dict[str, list[tuple[str, str]]]:
    kinds = ("stack_all_report", "phot_check_report", "stack_psf_report")
    found = {}
    for kind in kinds:
        report = REPORTS[kind].model_validate_json((site.roots.data / "stacks" / f"{kind}.json").read_bytes())
        found[kind] = sorted((row.group, row.filter) for row in report.rows)
    return found


def test_two_runs_at_once(finished, api, tmp_path):
    """The same year twice, then two groups beside each other."""
    site = fresh(finished, tmp_path / "data")
    at_once(site, api, ["flows.reduce_year", str(YEAR)], ["flows.reduce_year", str(YEAR)])
    nothing_twice(site)
    at_once(site, api, *(["flows.stack_target", group] for group in GROUPS))
    nothing_twice(site)
    rows = sorted((group, filter) for group in GROUPS for filter in "gr")
    assert set(map(tuple, groups_reported(site).values())) == {tuple(rows)}
    assert half_written(site) == []
    assert site.run().counts == NOTHING_RAN
    ours, undisturbed = undated(site), undated(finished)
    assert [name for name in undisturbed if ours.get(name) != undisturbed[name]] == []


@pytest.mark.slow
def test_a_year_and_a_group_at_once(site, api):
    """Reduced again (its masters are gone) while a group is stacked again (its stacks are gone)."""
    for pattern in ("2023/T120/master_*/*.fits", "2023/T120/psf/*/*.psf", "stacks/M67/T120/*_[gr].fits"):
        for path in site.roots.data.glob(pattern):
            path.unlink()
    at_once(site, api, ["flows.reduce_year", str(YEAR)], ["flows.stack_target", "M67"])
    assert half_written(site) == []
    site.run()
    assert site.run().counts == NOTHING_RAN


def test_groups_reported_at_once_lose_no_row(tmp_path, monkeypatch):
    """Each group gathers all groups' rows: one at a time, or the slower writes the faster one's rows away."""
    import threading

    from flows import _group

    inside, most = 0, 0
    guard = threading.Lock()

    def stack_rows(*_: object) -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.05)
        with guard:
            inside -= 1

    monkeypatch.setattr(_group, "stack_rows", stack_rows)
    from models.base import Roots

    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    threads = [threading.Thread(target=_group.gather_rows, args=(roots, None, group, {})) for group in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
