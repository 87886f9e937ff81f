"""Which structure, allocation, schedule and sparsity go together, and with which method.

In: what a recipe says. Out: the choices with the method's defaults filled in, or an error that names the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedError, UsageError, unknown_name
from ...models.seeding.record import REBUILDABLE
from ..allocation import ALLOCATIONS, Allocation
from ..schedule import SCHEDULES
from ..structure import NofM, Structure, parse_structure
from .declaration import Method

EXPLICIT = "explicit"

# Where a declaration gives no reason of its own.
_GENERAL_REASONS = {
    "element": "its groups stand or fall as a whole",
    "N:M": "its rule decides over whole layers or groups, not block by block",
    "block": "its rule weighs weights one by one or unit by unit, not in blocks",
    "channel": "its rule weighs single weights, which a whole channel does not have in common",
    "input-channel": "it is for the rounds of the local tickets, which prune each layer for itself",
    "hybrid": "it is for the rounds of the local tickets, which prune each layer for itself",
    "fully-connected": "exclude the convolutions instead",
    "global": "its rule compares weights within a layer only",
    "uniform": "the density of each layer follows from its rule",
    "erdos-renyi": "the density of each layer follows from its rule",
    "erdos-renyi-kernel": "the density of each layer follows from its rule",
    "smart-ratio": "the paper's formula of layer densities is for random tickets",
    "smart-ratio-vgg": "the paper's formula of layer densities is for random tickets",
    "explicit": "the density of each layer follows from its rule",
    "one-shot": "its mask comes about in several steps",
    "iterative": "its mask is found in one step",
    "gradual": "its mask is not chosen while the weights are trained",
}
# Parametrisations that can store all that they are made of.
_WITHOUT_SEED = ("identity", "signs", "basis", "offset")


@dataclass(frozen=True)
class Choice:
    """A method's choices, complete and possible.

    Attributes:
        structure: what is pruned together.
        allocation: how the sparsity is divided.
        schedule: when it is reached.
        sparsity: the removed share of the space; None when densities given by layer imply it.
    """

    structure: Structure
    allocation: Allocation
    schedule: str
    sparsity: float | None


def choose(
    method: Method,
    *,
    structure: str | None = None,
    allocation: Allocation | None = None,
    schedule: str | None = None,
    sparsity: float | None = None,
) -> Choice:
    """Fill in the method's defaults for what is None, and check the whole.

    Raises:
        UsageError: an unknown name, or a sparsity that is missing, out of range or out of the structure's reach.
        UnsupportedError: a combination that the method or the structure does not allow, with the reason.
    """
    default = method.structures[0]
    # Where blocks are all that a method knows, the pattern that hardware knows is the default.
    form = parse_structure(structure or ("2:4" if default == "N:M" else default))
    if allocation is None:
        # N:M fixes the density of every layer; no method's default may contradict that.
        allocation = "uniform" if isinstance(form, NofM) else method.allocations[0]
    if schedule is None:
        schedule = "one-shot" if isinstance(form, NofM) else method.schedules[0]
    if sparsity is None:
        sparsity = _default_sparsity(method, form)
    check(method, form, allocation, schedule, sparsity)
    return Choice(form, allocation, schedule, sparsity)


def check(method: Method, structure: Structure, allocation: Allocation, schedule: str, sparsity: float | None) -> None:
    """Refuse choices that do not fit the method or each other.

    Args:
        method: the declaration.
        structure: parsed.
        allocation: a name, or densities by layer.
        schedule: a name.
        sparsity: in [0, 1); None when densities by layer imply it.

    Raises:
        UsageError: an unknown name, or a sparsity out of range or out of the structure's reach.
        UnsupportedError: a combination that is not allowed, with the reason.
    """
    if isinstance(allocation, str) and allocation not in ALLOCATIONS:
        raise unknown_name("allocation", allocation, ALLOCATIONS)
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    _check_sparsity(method, structure, allocation, sparsity)
    named = allocation if isinstance(allocation, str) else EXPLICIT
    for kind, choice, allowed in (
        ("structure", structure.kind, method.structures),
        ("allocation", named, method.allocations),
        ("schedule", schedule, method.schedules),
    ):
        if choice not in allowed:
            raise UnsupportedError(
                f"method '{method.name}' does not go with {kind} '{choice}': {reason_against(method, choice)}. "
                f"Choose from: {', '.join(allowed)}."
            )
    if isinstance(structure, NofM):
        if named != "uniform":
            raise UnsupportedError(
                f"structure {structure.text} does not go with allocation '{named}': every block keeps {structure.n} of "
                f"{structure.m}, so every layer has the same density. Leave allocation out or write uniform."
            )
        if schedule != "one-shot":
            raise UnsupportedError(
                f"structure {structure.text} does not go with schedule '{schedule}': it has one sparsity only, so "
                f"there is nothing between dense and {structure.text}. Leave schedule out or write one-shot."
            )


def reason_against(method: Method, choice: str) -> str:
    """Return why the method does not allow a structure, allocation or schedule: its own reason, or the general one."""
    return method.reasons.get(choice) or _GENERAL_REASONS[choice]


def check_initialiser(method: Method, initialiser: str) -> None:
    """Refuse an initialiser that cannot be rebuilt bit for bit where the method stores a seed instead of values.

    Raises:
        UnsupportedError: naming those that can.
    """
    if method.parametrisation not in _WITHOUT_SEED and initialiser not in REBUILDABLE:
        raise UnsupportedError(
            f"method '{method.name}' stores its initial weights as a seed; '{initialiser}' passes through logarithms "
            f"or a factorisation and does not rebuild bit for bit everywhere. Choose from: {', '.join(REBUILDABLE)}."
        )


def _default_sparsity(method: Method, structure: Structure) -> float | None:
    if method.mask_from is None:
        return 0.0
    if method.sparsity is not None:
        return method.sparsity
    if isinstance(structure, NofM):
        return structure.sparsity
    return None


def _check_sparsity(method: Method, structure: Structure, allocation: Allocation, sparsity: float | None) -> None:
    if sparsity is None:
        if isinstance(allocation, str):
            raise UsageError(
                f"method '{method.name}' needs a sparsity: the share of weights to remove, for example 0.9."
            )
        return
    if method.sparsity is not None:
        if sparsity != method.sparsity:
            raise UsageError(
                f"method '{method.name}' has a sparsity of its own, {method.sparsity:g}; leave out {sparsity:g}."
            )
        return
    if not 0 <= sparsity < 1:
        raise UsageError(f"the sparsity is {sparsity}; it is the share of weights to remove and must lie in [0, 1).")
    if method.mask_from is None and sparsity != 0:
        raise UsageError(f"method '{method.name}' prunes nothing; its sparsity is 0, not {sparsity}.")
    if reason := structure.reachable(sparsity):
        raise UsageError(f"{reason}.")
