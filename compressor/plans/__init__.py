"""A method's declaration as a list of stages: where the mask comes from, where the weights, what is trained when.

In: a complete recipe and its method. Out: the stages that the engine carries out. Most methods share the plan
``standard``; what needs its own order of stages names another entry of :data:`PLANS`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..methods import Method
from ..settings import PruneRecipe
from .found_tickets import critical_rounds, elastic_ticket, extrusion, projected_ticket
from .layerwise import layerwise
from .pruned_by_training import pruned_by_training, pruned_while_tuning
from .selected import selected_from_trained, several_tasks
from .solved import solved
from .stages import Change, Record, Rewind, Select, Stage, Train
from .standard import standard
from .tickets import learning_rate_rewinding, local_rounds, ticket_check, ticket_transfer

__all__ = ["PLANS", "Change", "Record", "Rewind", "Select", "Stage", "Train", "make_plan"]

PLANS: dict[str, Callable[[PruneRecipe, Method, float], list[Stage]]] = {
    "standard": standard,
    "learning-rate-rewinding": learning_rate_rewinding,
    "ticket-check": ticket_check,
    "ticket-transfer": ticket_transfer,
    "local-rounds": local_rounds,
    "projected-ticket": projected_ticket,
    "critical-examples": critical_rounds,
    "extrusion": extrusion,
    "elastic-ticket": elastic_ticket,
    "layerwise": layerwise,
    "solved": solved,
    "pruned-by-training": pruned_by_training,
    "pruned-while-tuning": pruned_while_tuning,
    "several-tasks": several_tasks,
    "selected-from-trained": selected_from_trained,
}


def make_plan(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of a run.

    Args:
        recipe: complete.
        method: its declaration.
        sparsity: the final one.

    Raises:
        UsageError: the recipe asks for what its training cannot give (a step to rewind to, and no training).
    """
    return PLANS[method.plan](recipe, method, sparsity)
