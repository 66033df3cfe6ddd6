"""Where to look: the fields a campaign's headers and names speak of; and what was found there: groups on the sky."""

from tasks.fields.groups import SkyMap, group_frames, in_plain_words
from tasks.fields.names import coordinate_name
from tasks.fields.plan import field_at, field_of_target, hinted_fields, plan_fields

__all__ = [
    "SkyMap",
    "coordinate_name",
    "field_at",
    "field_of_target",
    "group_frames",
    "hinted_fields",
    "in_plain_words",
    "plan_fields",
]
