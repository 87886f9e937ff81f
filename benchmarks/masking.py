"""A network with its weakest channels masked, as a graph: what a slimmed graph is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from sparsepack.exporters.slim import choose, mask
from sparsepack.models.graph.dimensions import Dimensions
from sparsepack.models.graph.groups import Group


def twin_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an independent copy of a graph: slimming consumes its argument."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def masked_pair(
    module: nn.Module, examples: Sequence[Tensor], dimensions: Dimensions, groups: list[Group], ratio: float
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the dense and the masked graph, both with the BatchNorm statistics of the masked network.

    One pass over the examples sets the statistics: with those of another network, hardly anything of the input would
    reach the output after fifty layers, and any comparison would pass.

    Args:
        module: what the graph was lowered from, in eval mode; left as it was.
        examples: inputs, batch first.
        dimensions: of the dense graph.
        groups: of the dense graph.
        ratio: share of units to mask in every group, lowest L1 first.
    """
    masked = twin_of(dimensions.model)
    mask(masked, choose(dimensions, groups, ratio))
    settled = copy.deepcopy(module)
    state = settled.state_dict()
    for tensor in masked.graph.initializer:
        if tensor.name in state:
            state[tensor.name].copy_(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
    set_statistics(settled, examples)
    return _with_statistics(dimensions.model, settled), _with_statistics(masked, settled)


def set_statistics(module: nn.Module, examples: Sequence[Tensor]) -> None:
    """Set BatchNorm statistics by one pass over the examples; leaves the module in eval mode."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    if layers:
        with torch.no_grad():
            module(*examples)
    module.eval()


def _with_statistics(model: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    twin = twin_of(model)
    state = module.state_dict()
    for tensor in twin.graph.initializer:
        if "running_" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    return twin
