"""Python and its packages against the lock file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from tasks.doctor.check import Check

__all__ = ["check_packages"]

_MEND = "make setup"
_DIRECT = "-r requirements.in"
_TESTS_BEGIN = "# tests"


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def _locked(lock: str) -> tuple[dict[str, Requirement], dict[str, set[str]]]:
    """The locked requirements by name, and what each was locked for."""
    requirements: dict[str, Requirement] = {}
    parents: dict[str, set[str]] = {}
    current = ""
    in_via = False
    for line in lock.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            requirement = Requirement(line.rstrip(" \\"))
            current, in_via = _name(requirement.name), False
            requirements[current] = requirement
            parents[current] = set()
        elif match := re.match(r"\s+# via\s*(.*)$", line):
            in_via = True
            if match[1]:
                parents[current].add(match[1].strip())
        elif in_via and (match := re.match(r"\s+#\s+(\S.*)$", line)):
            parents[current].add(match[1].strip())
    return requirements, parents


def _direct(wanted: str) -> tuple[dict[str, Requirement], set[str]]:
    """The requirements of requirements.in by name, and the names of those that only tests and checks need."""
    requirements: dict[str, Requirement] = {}
    for_tests: set[str] = set()
    below = False
    for line in wanted.splitlines():
        below = below or line.startswith(_TESTS_BEGIN)
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.split(" #")[0].strip())
            requirements[_name(requirement.name)] = requirement
            if below:
                for_tests.add(_name(requirement.name))
    return requirements, for_tests


def _needed(name: str, parents: dict[str, set[str]], for_tests: set[str], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a run needs the package: some chain of requirements leads to one that is not for tests only."""
    if name in seen:
        return False
    for parent in parents.get(name, set()):
        if parent.startswith("-r "):
            if name not in for_tests:
                return True
        elif _needed(_name(parent.split("[")[0]), parents, for_tests, seen | {name}):
            return True
    return False


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages(folder: Path) -> list[Check]:
    """Compare what is installed with ``requirements.lock`` and the pins of ``requirements.in`` in a folder."""
    python = ".".join(map(str, sys.version_info[:3]))
    checks = [Check(subject="Python", name="Python", state="ok", found=f"{python} ({sys.executable})")]
    try:
        locked, parents = _locked((folder / "requirements.lock").read_text(encoding="utf-8"))
        direct, for_tests = _direct((folder / "requirements.in").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InvalidRequirement, KeyError) as error:
        found, mend = f"the lock file cannot be read: {error}", "git checkout requirements.lock requirements.in"
        return [*checks, Check(subject="Python", name="packages", state="note", found=found, mend=mend)]
    wanted = {name: r for name, r in locked.items() if r.marker is None or r.marker.evaluate()}
    versions = {name: _installed(name) for name in wanted}
    checks += _missing(wanted, versions, parents, for_tests)
    checks += _broken_pins(direct, for_tests)
    differing = [
        f"{name} {version} (locked: {str(wanted[name].specifier).lstrip('=')})"
        for name, version in versions.items()
        if version is not None and not wanted[name].specifier.contains(version, prereleases=True)
    ]
    same = sum(version is not None for version in versions.values()) - len(differing)
    if differing:
        checks.append(
            Check(
                subject="Python", name="packages", state="note",
                found=f"{same} as locked; {len(differing)} differ: {', '.join(differing[:8])}", mend=_MEND,
            )
        )  # fmt: skip
    else:
        checks.append(Check(subject="Python", name="packages", state="ok", found=f"{same} of {len(wanted)} as locked"))
    if _shadows_astrometry():
        checks.append(
            Check(
                subject="Python", name="astrometry", state="note",
                found="PyPI's module of this name hides the one that Debian's solve-field uses; we keep them apart, "
                "solve-field started by hand in this environment fails",
                mend="pip uninstall astrometry",
            )
        )  # fmt: skip
    return checks


def _missing(
    wanted: dict[str, Requirement], versions: dict[str, str | None], parents: dict[str, set[str]], for_tests: set[str]
) -> list[Check]:
    absent = [name for name in wanted if versions[name] is None]
    for_runs = [name for name in absent if _needed(name, parents, for_tests)]
    only_tests = [name for name in absent if name not in for_runs]
    checks = []
    if for_runs:
        found = f"not installed: {', '.join(for_runs)}"
        checks.append(Check(subject="Python", name="needed packages", state="missing", found=found, mend=_MEND))
    if only_tests:
        found = f"not installed, tests and checks need them: {', '.join(only_tests)}"
        checks.append(Check(subject="Python", name="test packages", state="note", found=found, mend="make test"))
    return checks


def _broken_pins(direct: dict[str, Requirement], for_tests: set[str]) -> list[Check]:
    """Versions that requirements.in excludes for a reason: with them something is known not to work."""
    checks = []
    for name, requirement in direct.items():
        version = _installed(name)
        if version is None or name in for_tests or requirement.specifier.contains(version, prereleases=True):
            continue
        checks.append(
            Check(
                subject="Python", name=name, state="missing",
                found=f"{version}, but {requirement.specifier} is required (reason in requirements.in)", mend=_MEND,
            )
        )  # fmt: skip
    return checks


def _shadows_astrometry() -> bool:
    return importlib.util.find_spec("astrometry_extension") is not None or _installed("astrometry") is not None
