"""Reports: what a person or a script reads after a run."""

from tasks.report.versions import software_versions

__all__ = ["software_versions"]
