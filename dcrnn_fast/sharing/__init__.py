"""Which parameters and computations tasks share: the sharing plan, and what it costs."""

from .cost import PlanCost
from .plan import GATES, Cell, Sharing, SharingPlan, identity_index, round_units

__all__ = ["GATES", "Cell", "PlanCost", "Sharing", "SharingPlan", "identity_index", "round_units"]
