"""What lies under the raw root: every file classified from header, path and object together, and why."""

from tasks.inventory.classify import classify
from tasks.inventory.filters import canonical_filter, filter_in_name
from tasks.inventory.headers import read_header
from tasks.inventory.inventory import of_years, take_inventory
from tasks.inventory.observing import night_of, sun_altitude
from tasks.inventory.scan import count_raw_files
from tasks.inventory.words import says_a_name

__all__ = [
    "canonical_filter",
    "classify",
    "count_raw_files",
    "filter_in_name",
    "night_of",
    "of_years",
    "read_header",
    "says_a_name",
    "sun_altitude",
    "take_inventory",
]
