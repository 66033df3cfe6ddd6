"""What a person reads: keywords in the frames, reports, the release's tables."""

from tasks.report.publish import publish_frame
from tasks.report.release import gather_release
from tasks.report.release_files import compressed_rows
from tasks.report.release_tables import write_release
from tasks.report.reports import (
    FRAMES_FILE,
    groups_on_record,
    read_report,
    read_years,
    stack_rows,
    write_frames,
    write_report,
    write_schemas,
    year_rows,
)
from tasks.report.versions import software_versions

__all__ = [
    "FRAMES_FILE",
    "compressed_rows",
    "gather_release",
    "groups_on_record",
    "publish_frame",
    "read_report",
    "read_years",
    "software_versions",
    "stack_rows",
    "write_frames",
    "write_release",
    "write_report",
    "write_schemas",
    "year_rows",
]
