"""One-shot pruning of large pre-trained networks, layer by layer with calibration data: Wanda and SparseGPT.

Layers are visited in the order in which the network runs them; each is pruned with the inputs that the layers pruned
before it produce. Beside the network, memory is held for one layer at a time: its inputs' second moments and, for
SparseGPT, their inverse. The weights are written as they come, because the next layer's inputs depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import UnsupportedError
from ...models.evaluating import evaluating
from ...models.tensors import to_numpy
from ..evidence.layers import Product, watching
from ..evidence.stream import batches_of
from ..mask import BoolArray
from ..structure import NofM
from . import Outcome
from .sparsegpt import sparsegpt
from .wanda import wanda

if TYPE_CHECKING:
    from ..evidence.probe import Probe

# (weight rows, second moments of the inputs, weights to keep, N:M or None) -> (new rows, mask, what to tell)
Pruner = Callable[[torch.Tensor, torch.Tensor, int, NofM | None], tuple[torch.Tensor, BoolArray, str | None]]


class _Enough(Exception):  # noqa: N818 - a signal between two functions of this module, not an error
    """The layer under way has seen this batch; what comes after it need not be computed."""


def apply_wanda(probe: Probe) -> Outcome:
    """Prune every layer by |w| times the norm of its input (Sun et al. 2024); kept weights do not change."""
    return _layer_by_layer(probe, wanda, full=False)


def apply_sparsegpt(probe: Probe) -> Outcome:
    """Prune every layer column by column, the columns to come making up for each error (Frantar and Alistarh 2023)."""
    damp, block = probe.options["damp"], probe.options["block_size"]
    return _layer_by_layer(probe, lambda w, h, k, form: sparsegpt(w, h, k, form, damp=damp, block=block), full=True)


def _layer_by_layer(probe: Probe, prune: Pruner, *, full: bool) -> Outcome:
    quota = probe.rule.quota(probe.sparsity)
    if isinstance(quota, int):
        raise UnsupportedError("pruning layer by layer needs a number of weights for each layer; choose uniform.")
    form = probe.rule.structure if isinstance(probe.rule.structure, NofM) else None
    parameters = dict(probe.module.named_parameters())
    masks: dict[str, BoolArray] = {}
    warnings = []
    for name, calls in _in_order(probe):
        weight = parameters[name]
        rows = _as_rows(weight.detach())
        mask = np.zeros(tuple(rows.shape), np.bool_)
        begun = 0
        for units, moments in sorted(_moments(probe, name, calls, full).items()):
            # A fused projection is pruned in parts; their counts add up to the tensor's.
            share = quota[name] * units[1] // len(rows) - begun
            begun += share
            part = slice(*units)
            new, kept, note = prune(rows[part].float(), moments, share, form)
            mask[part] = kept
            rows[part] = new.to(rows.dtype)
            if note is not None:
                warnings.append(f"'{name}': {note}")
        with torch.no_grad():
            weight.copy_(_from_rows(rows, weight))
        masks[name] = np.ascontiguousarray(to_numpy(_from_rows(torch.from_numpy(mask), weight)))
    return Outcome({name: masks[name] for name in probe.names}, warnings=tuple(warnings))


def _in_order(probe: Probe) -> list[tuple[str, int]]:
    """Return the weights in the order of their first use, and how often a forward pass uses each."""
    calls: dict[str, int] = {}

    def sink(product: Product) -> None:
        calls[product.name] = calls.get(product.name, 0) + 1

    with evaluating(probe.module), watching(probe.module, probe.names, sink):
        for inputs, _ in batches_of(probe, 1, 1):
            probe.module(inputs)
    for name in probe.names:
        if name not in calls:
            raise UnsupportedError(
                f"'{name}' multiplies nothing when the network runs, so it sees no data; exclude it."
            )
    return list(calls.items())


def _moments(probe: Probe, name: str, calls: int, full: bool) -> dict[tuple[int, int], torch.Tensor]:
    """Return X^T X (``full``) or its diagonal over the calibration data, for each stretch of output units."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    seen = 0

    def sink(product: Product) -> None:
        nonlocal seen
        x = product.inputs.float()
        key = (product.units.start, product.units.stop)
        if key not in found:
            found[key] = torch.zeros((x.shape[1],) * (2 if full else 1), device=x.device)
        if full:
            found[key].addmm_(x.T, x)
        else:
            found[key].add_(x.square().sum(dim=0))
        seen += 1
        if seen == calls:
            raise _Enough

    with evaluating(probe.module), watching(probe.module, [name], sink):
        for inputs in _calibration(probe):
            seen = 0
            with suppress(_Enough):
                probe.module(inputs)
            # A forward pass is a third of the forward and backward passes that the counter knows.
            probe.charge(len(inputs), 1 / 3)
    return found


def _calibration(probe: Probe) -> Iterator[torch.Tensor]:
    left, size = probe.options["samples"], probe.options["batch_size"]
    for inputs, _ in batches_of(probe, -(-left // size), size):
        yield inputs[:left]
        left -= len(inputs)
        if left <= 0:
            return


def _as_rows(weight: torch.Tensor) -> torch.Tensor:
    """Return [units, reduction length], channels innermost, as inputs come and blocks of N:M lie; a copy."""
    return weight.movedim(1, -1).reshape(len(weight), -1).clone()


def _from_rows(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    shape = (weight.shape[0], *weight.shape[2:], weight.shape[1])
    return rows.reshape(shape).movedim(-1, 1)
