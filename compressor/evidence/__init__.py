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


def _flow(probe: Probe) -> Mapping[str, Array]:
    from .flow import absolute_flow

    return absolute_flow(probe)


def _squared_flow(probe: Probe) -> Mapping[str, Array]:
    from .flow import squared_flow

    return squared_flow(probe)


def _hessian_gradient(probe: Probe) -> Mapping[str, Array]:
    from .hessian_gradient import hessian_gradient

    return hessian_gradient(probe)


def _initial_weights(probe: Probe) -> Mapping[str, Array]:
    return probe.recorded("initial")


EVIDENCE: dict[str, Evidence] = {
    "gradients": Evidence(
        _gradients, ("data", "labels", "gradients"), "dL/dw of the cross-entropy, signed, summed over batches"
    ),
    "flow": Evidence(_flow, ("gradients",), "dR/d|w|, what flows through each weight of the absolute network"),
    "squared-flow": Evidence(_squared_flow, ("gradients",), "dR/d(w^2), the same of the network of squares"),
    "hessian-gradient": Evidence(
        _hessian_gradient, ("data", "labels", "gradients"), "the Hessian of the cross-entropy times its gradient"
    ),
    "initial-weights": Evidence(_initial_weights, (), "the weights before the first step, from the tape"),
}
