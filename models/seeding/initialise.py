"""Draw a whole network from one seed, in place, by the type of each layer.

    layer                                  weight                                  bias
    Conv*, ConvTranspose*, Linear          the initialiser, by its fans            uniform: as the weight; else 0
    MultiheadAttention projections         the initialiser (three stacked          as Linear
                                           matrices count as one of their fan-out)
    Embedding, EmbeddingBag                mean 0, standard deviation 0.02         -
    BatchNorm*, LayerNorm, GroupNorm ...   1                                       0
    PReLU                                  0.25                                    -

An embedding has no fan-in. Standard deviation 0.02 is what BERT (Devlin et al. 2019) and GPT-2 use; it is kept under
every initialiser (uniform: half-width 0.02 sqrt(3); signed-constant and constant: +-0.02; the rest: normal), and the
row of a padding index is zero. Running means become 0, running variances 1.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import torch
from torch import nn

from ...errors import ModelError
from ..prunable import fans
from ..tensors import to_torch
from .initialisers import check_generator, check_initialiser, draw_with, float32, weight_bound
from .philox import check_seed
from .record import SeedRecord

_DENSE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_WITH_STATISTICS = _NORMS[:7]
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_EMBEDDING_STD = 0.02


def initialise(module: nn.Module, initialiser: str, seed: int, generator: str) -> dict[str, SeedRecord]:
    """Draw every parameter of ``module`` in place and reset the statistics of its norm layers.

    Args:
        module: the network; a tied parameter is drawn once, under its first name.
        initialiser: one of the six of :mod:`.initialisers`, for the weights.
        seed: the run's seed, 0 <= seed < 2**32.
        generator: ``philox4x32-10`` or ``keyed-product``.

    Returns:
        by name, the records of those parameters that rebuild from a seed.

    Raises:
        UnknownNameError: no such initialiser or generator.
        UsageError: the seed is out of range.
        ModelError: two parameters' names have the same CRC-32, or a layer's type is not in the table above.
    """
    check_initialiser(initialiser)
    check_generator(generator)
    check_seed(seed)
    parameters = _owned_parameters(module)
    refuse_equal_crc(name for name, _, _, _ in parameters)
    plans = [_plan(layer, attribute, name, initialiser) for name, layer, attribute, _ in parameters]
    records: dict[str, SeedRecord] = {}
    with torch.no_grad():
        for (name, layer, _, parameter), (drawn_by, bound) in zip(parameters, plans, strict=True):
            array, record = draw_with(drawn_by, bound, tuple(parameter.shape), seed, name, generator)
            parameter.copy_(to_torch(array))
            if isinstance(layer, _EMBEDDINGS) and layer.padding_idx is not None:
                parameter[layer.padding_idx] = 0.0
            elif record is not None:
                records[name] = record
        for layer in module.modules():
            if isinstance(layer, _WITH_STATISTICS):
                layer.reset_running_stats()
    return records


def refuse_equal_crc(names: Iterable[str]) -> None:
    """Raise :class:`ModelError` when two names have the same CRC-32 and would be drawn alike."""
    seen: dict[int, str] = {}
    for name in names:
        other = seen.setdefault(zlib.crc32(name.encode()), name)
        if other != name:
            raise ModelError(
                f"parameters '{other}' and '{name}' have names of equal CRC-32, so one seed would draw them from the "
                "same random words; rename one of the layers."
            )


def _owned_parameters(module: nn.Module) -> list[tuple[str, nn.Module, str, nn.Parameter]]:
    """List (name, layer, attribute, parameter), each parameter once, in state_dict order."""
    seen: set[int] = set()
    owned = []
    for prefix, layer in module.named_modules():
        for attribute, parameter in layer._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                owned.append((f"{prefix}.{attribute}" if prefix else attribute, layer, attribute, parameter))
    return owned


def _plan(layer: nn.Module, attribute: str, name: str, initialiser: str) -> tuple[str, float]:
    """Return the initialiser and the bound of one parameter."""
    if isinstance(layer, _DENSE) and attribute in ("weight", "bias"):
        if attribute == "bias":
            return _bias(initialiser, fans(tuple(layer.weight.shape))[0])
        return initialiser, weight_bound(initialiser, *fans(tuple(layer.weight.shape)))
    if isinstance(layer, nn.MultiheadAttention):
        if not attribute.endswith("_weight"):
            return _bias(initialiser, layer.embed_dim)
        fan_in = int(getattr(layer, attribute).shape[1])
        return initialiser, weight_bound(initialiser, fan_in, layer.embed_dim)
    if isinstance(layer, _EMBEDDINGS):
        if initialiser == "uniform":
            return "uniform", float32(_EMBEDDING_STD * math.sqrt(3.0))
        # Under one constant every token would be the same token.
        signed = initialiser in ("constant", "signed-constant")
        return ("signed-constant" if signed else "kaiming-normal"), float32(_EMBEDDING_STD)
    if isinstance(layer, _NORMS) and attribute in ("weight", "bias"):
        return "constant", 1.0 if attribute == "weight" else 0.0
    if isinstance(layer, nn.PReLU):
        return "constant", 0.25
    raise ModelError(
        f"parameter '{name}' belongs to a {type(layer).__name__}, which no initialiser knows how to draw; leave --init "
        "away to keep the values that the model brings."
    )


def _bias(initialiser: str, fan_in: int) -> tuple[str, float]:
    if initialiser == "uniform":
        return "uniform", weight_bound("uniform", fan_in, 0)
    return "constant", 0.0
