"""Evidence: what a score looks at beside the weights, gathered by running the network.

In: a :class:`Probe` (the network, its data, masks and tape). Out: named arrays. Each entry of :data:`EVIDENCE` is one
kind; the formulas that turn evidence into scores are pure and live in ``scores``. Frameworks are loaded only when
something is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...files import Array

if TYPE_CHECKING:
    from .probe import Probe

__all__ = ["EVIDENCE", "Evidence"]


@dataclass(frozen=True)
class Evidence:
    """One entry of the table.

    Attributes:
        gather: from the probe to arrays, by tensor name unless the entry says otherwise. It leaves the network as it
            was and charges the probe for its operations.
        needs: out of ``data``, ``labels`` and ``gradients``; a method whose score looks at it needs them too.
        summary: what it is, in one line.
    """

    gather: Callable[[Probe], Mapping[str, Array]]
    needs: tuple[str, ...]
    summary: str


def _gradients(probe: Probe) -> Mapping[str, Array]:
    from .gradients import loss_gradients

    return loss_gradients(probe)


def _initial_weights(probe: Probe) -> Mapping[str, Array]:
    return probe.recorded("initial")


EVIDENCE: dict[str, Evidence] = {
    "gradients": Evidence(
        _gradients, ("data", "labels", "gradients"), "dL/dw of the cross-entropy, signed, summed over batches"
    ),
    "initial-weights": Evidence(_initial_weights, (), "the weights before the first step, from the tape"),
}
