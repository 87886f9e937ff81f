"""Transforms: what happens to masks and weights once a mask is chosen, beside keeping and zeroing.

f1 and f2 of the general equation w' = f1(w_k1) * f2(w_k2) + chi * theta_0: re-initialisation, sign and scale, shuffled
masks, the weight update that goes with a second-order score. In: a :class:`~..evidence.probe.Probe`. Out: an
:class:`Outcome`; the engine writes it back. The table is :data:`TRANSFORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import unknown_name
from ...files import Array
from ..mask import BoolArray

if TYPE_CHECKING:
    from ..evidence.probe import Probe

__all__ = ["TRANSFORMS", "Outcome", "Transform", "find_transform"]


@dataclass(frozen=True)
class Outcome:
    """What a transform changes.

    Attributes:
        masks: every mask anew, by weight name; None leaves them.
        weights: new values of parameters or buffers by name, in their dense shapes; those not named stay.
    """

    masks: Mapping[str, BoolArray] | None = None
    weights: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class Transform:
    """One entry of the table.

    Attributes:
        apply: from the probe to what changes; the network itself is not touched.
        needs: out of ``data``, ``labels``, ``gradients`` and ``training``.
        summary: the rule in one line.
    """

    apply: Callable[[Probe], Outcome]
    needs: tuple[str, ...]
    summary: str


TRANSFORMS: dict[str, Transform] = {}


def find_transform(name: str) -> Transform:
    """Return the transform called ``name``.

    Raises:
        UnknownNameError: there is none; the near miss is suggested.
    """
    if name not in TRANSFORMS:
        raise unknown_name("transform", name, TRANSFORMS)
    return TRANSFORMS[name]
