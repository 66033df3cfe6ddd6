"""Source lists: one table of all sources of a group in all bands."""

from tasks.sourcelists.make import make_source_list

__all__ = ["make_source_list"]
