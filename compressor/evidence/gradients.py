"""Gradients for a score: summed over a few training batches, the network left exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import UnsupportedError
from ...files import Array
from ...models.class_scores import class_scores
from ...models.dataset import Dataset
from ...models.tensors import to_numpy
from .probe import Probe

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# These drop out by a number of their own, and cannot be put in the other mode: cuDNN's recurrent layers have no
# gradient there.
_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)


def loss_gradients(probe: Probe) -> dict[str, Array]:
    """Return the evidence ``gradients``; the options ``batches``, ``batch_size`` and ``mode`` say from what."""
    gradients, examples = accumulate_gradients(
        probe.module,
        probe.dataset,
        probe.names,
        batches=probe.options["batches"],
        batch_size=probe.options["batch_size"],
        mode=probe.options["mode"],
        seed=probe.seed,
        epoch=probe.draw,
        device=probe.device,
    )
    probe.charge(examples)
    return gradients


def accumulate_gradients(
    module: nn.Module,
    data: Dataset,
    names: Sequence[str],
    *,
    batches: int,
    batch_size: int,
    mode: str,
    seed: int,
    device: torch.device,
    epoch: int = 0,
) -> tuple[dict[str, Array], int]:
    """Return the gradients of the cross-entropy with respect to some weights, with their signs, summed over batches.

    Args:
        module: the network.
        data: the first batches of one of its training epochs are used.
        names: the weights.
        batches: how many batches.
        batch_size: examples in each.
        mode: ``train`` lets batch normalisation use the batch's statistics, ``eval`` the running ones. Dropout is off
            in both (Lee et al. 2019).
        seed: the run's seed.
        device: where the network is.
        epoch: which epoch; the rounds of an iterative schedule look at examples of their own.

    Returns:
        the gradients by name (missing where the loss does not reach), and the number of examples they cost.
    """
    named = trained(module, names)
    wanted = list(named.values())
    sums: list[torch.Tensor | None] = [None] * len(wanted)
    examples = 0
    drawn = data.batches("train", batch_size, seed=seed, epoch=epoch, shuffle=True, device=device)
    with scoring_mode(module, mode):
        for inputs, labels in islice(drawn, batches):
            loss = F.cross_entropy(class_scores(module(inputs)), labels)
            for number, gradient in enumerate(torch.autograd.grad(loss, wanted, allow_unused=True)):
                if gradient is not None:
                    earlier = sums[number]
                    sums[number] = gradient if earlier is None else earlier + gradient
            examples += len(labels)
    found = {name: to_numpy(total) for name, total in zip(named, sums, strict=True) if total is not None}
    return found, examples


def trained(module: nn.Module, names: Sequence[str]) -> dict[str, nn.Parameter]:
    """Return the weights among ``names`` that have gradients to ask for (a user's model may hold some that have none).

    Raises:
        UnsupportedError: there are none.
    """
    parameters = dict(module.named_parameters())
    found = {name: parameters[name] for name in names if parameters[name].requires_grad}
    if not found:
        raise UnsupportedError(
            "no gradient reaches any prunable weight, because all have requires_grad=False; leave it on in the factory."
        )
    return found


@contextmanager
def scoring_mode(module: nn.Module, mode: str) -> Iterator[None]:
    """Set the mode, dropout off; afterwards put back each layer's mode and the running statistics."""
    modes = {layer: layer.training for layer in module.modules()}
    shares = {layer: layer.dropout for layer in modes if isinstance(layer, _WITH_DROPOUT)}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.train(mode == "train")
    for layer in modes:
        if isinstance(layer, _DROPOUT):
            layer.eval()
    for layer in shares:
        layer.dropout = 0.0
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training
        for layer, share in shares.items():
            layer.dropout = share
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
