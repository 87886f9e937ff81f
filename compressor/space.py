"""The space of a method: the ordered list of tensors that it may mask, and why the others stay dense.

In: the model's prunable tensors, a structure, the names that the user excludes. Out: a :class:`Space`. Sparsity always
means the removed share of the space: what stands outside it is neither pruned nor counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..errors import UnsupportedError, UsageError, near_miss

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor
    from .structure import Structure


NOTHING_PRUNABLE = (
    "The model has none: no convolution, linear layer or attention of it holds a weight of its own. A weight that a "
    "parametrisation (weight_norm and the like) computes is not pruned; take the parametrisation off first."
)


@dataclass(frozen=True)
class Space:
    """What may be pruned.

    Attributes:
        tensors: the tensors that a method may mask, in the model's order; ties are broken in this order.
        excluded: those that the user's patterns keep out.
        unfit: those that the structure cannot prune, with the reason.
    """

    tensors: tuple[PrunableTensor, ...]
    excluded: tuple[str, ...] = ()
    unfit: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in order."""
        return tuple(tensor.name for tensor in self.tensors)

    @property
    def total(self) -> int:
        """The number of weights in the space."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def warnings(self) -> list[str]:
        """One sentence for each tensor that stays dense although the user did not ask for it."""
        return [f"'{name}' stays dense: {reason}." for name, reason in self.unfit.items()]


def make_space(
    prunable: Sequence[PrunableTensor],
    structure: Structure,
    exclude: Iterable[str] = (),
    outputs: Collection[str] | None = None,
) -> Space:
    """Choose the tensors that may be masked.

    Args:
        prunable: every prunable tensor of the model, in the model's order.
        structure: what is pruned together; tensors that it does not fit stay dense and are named.
        exclude: names or globs (``layer1.*``) of tensors that are never pruned.
        outputs: the tensors whose output units are the network's outputs. A channel structure leaves them dense,
            because removing one would remove a class. None: the last prunable tensor in the model's order.

    Raises:
        UsageError: a pattern matches no prunable tensor.
        UnsupportedError: nothing is left to prune.
    """
    names = [tensor.name for tensor in prunable]
    excluded = excluded_names(exclude, names)
    last = set(names[-1:] if outputs is None else outputs)
    unfit, tensors = {}, []
    for tensor in prunable:
        reason = structure.eligible(tensor)
        if structure.kind == "channel" and tensor.name in last:
            reason = "its output units are the network's outputs"
        if tensor.name in excluded:
            continue
        if reason is not None:
            unfit[tensor.name] = reason
        else:
            tensors.append(tensor)
    space = Space(tuple(tensors), excluded, unfit)
    if not tensors:
        why = " ".join(space.warnings) or "Every prunable tensor is excluded." if names else NOTHING_PRUNABLE
        raise UnsupportedError(f"no tensor can be pruned with structure {structure.text}. {why}")
    return space


def excluded_names(patterns: Iterable[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that a user's patterns keep out, in their order.

    Args:
        patterns: names or globs.
        names: of every prunable tensor.

    Raises:
        UsageError: a pattern matches none of them.
    """
    globs = list(patterns)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(
                f"exclude: '{glob}' matches no prunable tensor.{near_miss(glob, names)} "
                f"Prunable are: {', '.join(names)}."
            )
    return tuple(name for name in names if any(fnmatchcase(name, glob) for glob in globs))
