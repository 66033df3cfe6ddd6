"""Pages that people open: of the release, of a group, of a year; and the pictures on them."""

from tasks.pages.frames import group_frames, page_frame
from tasks.pages.group import write_group_page
from tasks.pages.index import write_index_page
from tasks.pages.pictures import group_pictures, night_picture, pictures_of_stack
from tasks.pages.stackplots import plots_of_stack
from tasks.pages.year import write_year_page

__all__ = [
    "group_frames",
    "group_pictures",
    "night_picture",
    "page_frame",
    "pictures_of_stack",
    "plots_of_stack",
    "write_group_page",
    "write_index_page",
    "write_year_page",
]
