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


def _unrolled_gates(probe: Probe) -> Mapping[str, Array]:
    from .unrolled import unrolled_gates

    return unrolled_gates(probe)


def _walks(probe: Probe) -> Mapping[str, Array]:
    from .walks import walks

    return walks(probe)


def _temporal_jacobian(probe: Probe) -> Mapping[str, Array]:
    from .temporal_jacobian import temporal_jacobian

    return temporal_jacobian(probe)


def _unit_gates(probe: Probe) -> Mapping[str, Array]:
    from .unit_gates import unit_gates

    return unit_gates(probe)


def _initial_weights(probe: Probe) -> Mapping[str, Array]:
    return probe.recorded("initial")


def _update_squares(probe: Probe) -> Mapping[str, Array]:
    return probe.recorded("update-squares")


def _curvature(probe: Probe) -> Mapping[str, Array]:
    from .curvature import curvature

    return curvature(probe)


def _gradient_samples(probe: Probe) -> Mapping[str, Array]:
    from .curvature import gradient_samples

    return gradient_samples(probe)


def _taylor_terms(probe: Probe) -> Mapping[str, Array]:
    from .curvature import taylor_terms

    return taylor_terms(probe)


def _taylor_second_order_terms(probe: Probe) -> Mapping[str, Array]:
    from .curvature import taylor_second_order_terms

    return taylor_second_order_terms(probe)


def _kronecker_factors(probe: Probe) -> Mapping[str, Array]:
    from .kronecker import kronecker_factors

    return kronecker_factors(probe)


_LABELLED = ("data", "labels", "gradients")

EVIDENCE: dict[str, Evidence] = {
    "gradients": Evidence(
        _gradients, ("data", "labels", "gradients"), "dL/dw of the cross-entropy, signed, summed over batches"
    ),
    "flow": Evidence(_flow, ("gradients",), "dR/d|w|, what flows through each weight of the absolute network"),
    "squared-flow": Evidence(_squared_flow, ("gradients",), "dR/d(w^2), the same of the network of squares"),
    "hessian-gradient": Evidence(
        _hessian_gradient, ("data", "labels", "gradients"), "the Hessian of the cross-entropy times its gradient"
    ),
    "unrolled-gates": Evidence(
        _unrolled_gates, ("data", "labels", "gradients"), "dL/dc of gates on the weights, through training steps"
    ),
    "walks": Evidence(_walks, ("gradients",), "1 for the weights on random walks between inputs and outputs, else 0"),
    "temporal-jacobian": Evidence(
        _temporal_jacobian, ("data", "gradients"), "d||J 1||/dw, J how a recurrent state depends on an earlier one"
    ),
    "unit-gates": Evidence(
        _unit_gates, ("data", "labels", "gradients"), "dL/dc of gates on output units, by weight name"
    ),
    "initial-weights": Evidence(_initial_weights, (), "the weights before the first step, from the tape"),
    "update-squares": Evidence(
        _update_squares, (*_LABELLED, "training"), "sum over the training's steps of (dw)^2 / eta, from the tape"
    ),
    "curvature": Evidence(_curvature, _LABELLED, "the diagonal of Fisher, Gauss-Newton or Hessian matrix"),
    "gradient-samples": Evidence(_gradient_samples, _LABELLED, "gradients of single examples or batches, [N, *shape]"),
    "taylor-terms": Evidence(_taylor_terms, _LABELLED, "mean over batches of (sum g w)^2"),
    "taylor-second-order-terms": Evidence(
        _taylor_second_order_terms, _LABELLED, "mean over batches of (sum g w - 1/2 w (H w))^2"
    ),
    "kronecker-factors": Evidence(
        _kronecker_factors, _LABELLED, "NAME/A: covariance of a layer's inputs; NAME/S: of its outputs' gradients"
    ),
}
