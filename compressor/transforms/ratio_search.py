"""Densities by layer, found by trying them on data: the masks of the best (in the spirit of He et al. 2018, AMC)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ...models.class_scores import class_scores
from ...models.evaluating import evaluating
from ...models.tensors import to_numpy
from ..evidence.stream import batches_of
from ..mask import BoolArray
from ..ratio_search import Vector, search
from ..rule import MaskRule
from ..saliency import UnitEvidence
from ..training.weights import weight_arrays
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe


def ratio_search(probe: Probe) -> Outcome:
    """Return the masks whose network has the smallest loss on ``samples`` training examples.

    A candidate gives every layer a density and keeps the weights, or units, of largest magnitude in it; all candidates
    keep the same number of weights. The paper adjusts what stays by least squares; fine-tuning takes that place.
    """
    rule, options = probe.rule, probe.options
    arrays = {name: array.copy() for name, array in weight_arrays(probe.module, list(rule.names)).items()}
    scores = {name: np.abs(arrays[name]) for name in rule.space.names}
    evidence = UnitEvidence({}, arrays, {}, probe.seed, probe.draw)
    sizes = np.array([tensor.size for tensor in rule.space.tensors], np.float64)
    size = options["batch_size"]
    batches = list(batches_of(probe, -(-options["samples"] // size), size))
    parameters = dict(probe.module.named_parameters())

    def masks_of(densities: Vector) -> dict[str, BoolArray]:
        given = dict(zip(rule.space.names, densities.tolist(), strict=True))
        return with_densities(rule, given).select(scores, probe.sparsity, None, evidence)

    def reward(densities: Vector) -> float:
        with torch.no_grad():
            for name, mask in masks_of(densities).items():
                kept = torch.from_numpy(arrays[name] * mask)
                parameters[name].copy_(kept)
        losses = torch.stack([F.cross_entropy(class_scores(probe.module(x)), y, reduction="sum") for x, y in batches])
        examples = sum(len(y) for _, y in batches)
        # Forward passes alone: a third of what the counter knows.
        probe.charge(examples, 1 / 3)
        loss = float(to_numpy(losses.sum())) / examples
        return -loss if np.isfinite(loss) else -np.inf

    try:
        with evaluating(probe.module):
            best = search(
                sizes,
                1 - probe.sparsity,
                reward,
                candidates=options["candidates"],
                floor=options["floor"],
                seed=probe.seed,
            )
    finally:
        with torch.no_grad():
            for name, array in arrays.items():
                parameters[name].copy_(torch.from_numpy(array))
    return Outcome(masks_of(best))


def with_densities(rule: MaskRule, densities: dict[str, float]) -> MaskRule:
    """Return a rule with these densities by layer as its allocation."""
    units = None if rule.units is None else replace(rule.units, allocation=densities)
    return replace(rule, allocation=densities, units=units)
