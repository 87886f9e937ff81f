"""Transforms: what happens to masks and weights once a mask is chosen, beside keeping and zeroing.

f1 and f2 of the general equation w' = f1(w_k1) * f2(w_k2) + chi * theta_0: re-initialisation, sign and scale, shuffled
masks, the weight update that goes with a second-order score. In: a :class:`~..evidence.probe.Probe`. Out: an
:class:`Outcome`; the engine writes it back. The table is :data:`TRANSFORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import unknown_name
from ...files import Array
from ..mask import BoolArray
from ..parametrisations import Handover

if TYPE_CHECKING:
    from ..evidence.probe import Probe

__all__ = ["TRANSFORMS", "Outcome", "Transform", "find_transform"]


@dataclass(frozen=True)
class Outcome:
    """What a transform changes.

    Attributes:
        masks: every mask anew, by weight name; None leaves them.
        weights: new values of parameters or buffers by name, in their dense shapes; those not named stay.
        fixed: by weight name, entries within the mask that are not trained from here on; None leaves them.
        fitted: how many parameters the transform itself has fitted to the data; its operations then are training,
            otherwise they are part of the search for the mask.
        handed: what the checkpoint stores in place of weights, by tensor name; nothing is trained after it.
        warnings: full sentences for the checkpoint.
        records: arrays for the tape, by label and name.
    """

    masks: Mapping[str, BoolArray] | None = None
    weights: Mapping[str, Array] | None = None
    fixed: Mapping[str, BoolArray] | None = None
    fitted: int = 0
    handed: Mapping[str, Handover] | None = None
    warnings: tuple[str, ...] = ()
    records: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Transform:
    """One entry of the table.

    Attributes:
        apply: from the probe to what changes; the network itself is not touched, unless a layer's change decides what
            the next one sees.
        needs: out of ``data``, ``labels``, ``gradients`` and ``training``.
        summary: the rule in one line.
    """

    apply: Callable[[Probe], Outcome]
    needs: tuple[str, ...]
    summary: str


def _kept_weights(probe: Probe) -> Outcome:
    from .kept_weights import kept_weights

    return kept_weights(probe)


def _fresh_classifier(probe: Probe) -> Outcome:
    from .kept_weights import fresh_classifier

    return fresh_classifier(probe)


def _pruned_weights(probe: Probe) -> Outcome:
    from .pruned_weights import pruned_weights

    return pruned_weights(probe)


def _sanity_check(probe: Probe) -> Outcome:
    from .checks import sanity_check

    return sanity_check(probe)


def _obs_update(probe: Probe) -> Outcome:
    from .obs import obs_update

    return obs_update(probe)


def _ratio_search(probe: Probe) -> Outcome:
    from .ratio_search import ratio_search

    return ratio_search(probe)


def _wanda(probe: Probe) -> Outcome:
    from .layerwise import apply_wanda

    return apply_wanda(probe)


def _sparsegpt(probe: Probe) -> Outcome:
    from .layerwise import apply_sparsegpt

    return apply_sparsegpt(probe)


def _least_squares(probe: Probe) -> Outcome:
    from .least_squares import least_squares

    return least_squares(probe)


def _edge_of_chaos(probe: Probe) -> Outcome:
    from .rescaling import edge_of_chaos

    return edge_of_chaos(probe)


def _smaller_fan_in(probe: Probe) -> Outcome:
    from .rescaling import smaller_fan_in

    return smaller_fan_in(probe)


def _tangent_transfer(probe: Probe) -> Outcome:
    from .tangent_transfer import tangent_transfer

    return tangent_transfer(probe)


def _first_task(probe: Probe) -> Outcome:
    from .first_task import first_task

    return first_task(probe)


def _approximate_isometry(probe: Probe) -> Outcome:
    from .isometry import approximate_isometry

    return approximate_isometry(probe)


def _trajectory_space(probe: Probe) -> Outcome:
    from .trajectory_space import trajectory_space

    return trajectory_space(probe)


def _elastic_ticket(probe: Probe) -> Outcome:
    from .elastic import elastic_ticket

    return elastic_ticket(probe)


def _critical_examples(probe: Probe) -> Outcome:
    from .critical_examples import critical_examples

    return critical_examples(probe)


TRANSFORMS: dict[str, Transform] = {
    "edge-of-chaos": Transform(_edge_of_chaos, (), "each layer scaled so that fan_in mean(w^2 m) = 2"),
    "smaller-fan-in": Transform(_smaller_fan_in, (), "each layer scaled as if drawn for the inputs that are left"),
    "tangent-transfer": Transform(
        _tangent_transfer, ("data", "gradients"), "a sparse student fitted to outputs and tangent kernel of its start"
    ),
    "approximate-isometry": Transform(_approximate_isometry, (), "descent on ||W W^T - I|| of every masked layer"),
    "kept-weights": Transform(_kept_weights, (), "option kept: rewind, draw again, sign, sign x sigma, shuffle"),
    "pruned-weights": Transform(_pruned_weights, (), "option pruned: zero, frozen at the start, or one or the other"),
    "sanity-check": Transform(_sanity_check, (), "option check: shuffled mask or weights, other initialisation"),
    "fresh-classifier": Transform(_fresh_classifier, (), "the last layer drawn again"),
    "trajectory-space": Transform(
        _trajectory_space, ("data", "training"), "the early weights projected on the first directions of the training"
    ),
    "elastic-ticket": Transform(_elastic_ticket, (), "mask and early values of another depth's ticket, block by block"),
    "critical-examples": Transform(
        _critical_examples, ("data", "labels"), "the next round's examples: forgotten ones, and changed answers"
    ),
    "obs-update": Transform(
        _obs_update, ("data", "labels", "gradients"), "w - sum over removed q of (w_q / [F^-1]_qq) F^-1 e_q"
    ),
    "first-task": Transform(_first_task, (), "of the masks of several tasks, that of the first"),
    "ratio-search": Transform(
        _ratio_search, ("data", "labels"), "the densities by layer, of many tried under one budget, of smallest loss"
    ),
    "least-squares": Transform(
        _least_squares, ("data", "labels"), "the last layer solved: (H^T H + ridge I)^-1 H^T Y over the training split"
    ),
    "wanda": Transform(_wanda, ("data",), "layer by layer: the largest |w_ij| ||x_j|| of each output unit stay"),
    "sparsegpt": Transform(
        _sparsegpt, ("data",), "layer by layer: w^2 / [H^-1]^2 in blocks of columns, later columns make up for it"
    ),
}


def find_transform(name: str) -> Transform:
    """Return the transform called ``name``.

    Raises:
        UnknownNameError: there is none; the near miss is suggested.
    """
    if name not in TRANSFORMS:
        raise unknown_name("transform", name, TRANSFORMS)
    return TRANSFORMS[name]
