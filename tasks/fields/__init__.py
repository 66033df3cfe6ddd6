"""Where to look: the fields a campaign's headers and names speak of."""

from tasks.fields.plan import field_of_target, order_fields, plan_fields

__all__ = ["field_of_target", "order_fields", "plan_fields"]
