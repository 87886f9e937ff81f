"""Every zoo model at 30 % and 50 % of its channels: the slimmed graph computes what the masked one computes."""

from __future__ import annotations

import copy as copying

import numpy as np
import onnx
import pytest
import torch
from exact import run_in_double
from graphs import copy, run
from onnx import numpy_helper
from torch import nn

from sparsepack.exporters.slim import choose, mask, slim
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.invariant import loose_cells
from sparsepack.models.graph.lowering import to_onnx
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes.measure.parity import BOUND, compare

# A smaller image changes nothing in the graph but the time that this takes.
SMALLER = {"resnet-50": {"input_shape": [3, 64, 64], "classes": 10}}
# Random weights amplify float32 rounding through fifty layers; the comparison in double precision shows that it is
# nothing else.
BOUNDS = {"resnet-50": 5e-4}


def set_statistics(module: nn.Module, source: TorchSource) -> None:
    """Set BatchNorm statistics by one pass, so that the output depends on the input."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        module.train()(*source.example_inputs(16, seed=3))
    module.eval()


def with_state(module: nn.Module, model: onnx.ModelProto) -> nn.Module:
    """Return a copy of the module with the graph's initializers."""
    twin = copying.deepcopy(module)
    state = twin.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            state[tensor.name].copy_(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
    return twin


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_slim_to_the_masked_function(name: str) -> None:
    source = load_source(name, options=SMALLER.get(name))
    assert isinstance(source, TorchSource)
    torch.manual_seed(0)
    module = source.build().eval()
    dense = prepared(to_onnx(module, source.example_inputs(2), source.record.inputs))
    dimensions = analyse(dense)
    assert not loose_cells(dimensions)
    groups = find_groups(dimensions)
    free = [group for group in groups if not group.pinned]
    inputs = source.example_inputs(16, seed=5)
    feeds = {spec.name: x.numpy() for spec, x in zip(source.record.inputs, inputs, strict=True)}
    for ratio in (0.3, 0.5):
        zeroed = choose(dimensions, groups, ratio)
        masked = copy(dense)
        mask(masked, zeroed)
        twin = with_state(module, masked)
        set_statistics(twin, source)
        settled = to_statistics(dense, twin)
        expected_model = to_statistics(masked, twin)
        slimmed = slim(copy(settled), ratio)
        onnx.checker.check_model(slimmed.model, full_check=True)
        for old, new in zip(dense.graph.output, slimmed.model.graph.output, strict=True):
            assert old == new
        (expected,) = run(expected_model, feeds)
        (found,) = run(slimmed.model, feeds)
        comparison = compare(expected, found)
        assert comparison.error is not None
        assert comparison.error < BOUNDS.get(name, BOUND)
        (exact,), (again,) = (run_in_double(model, feeds) for model in (expected_model, slimmed.model))
        assert (compare(exact, again).error or 0.0) < 1e-9
        after = {row.name: row.units[1] for row in slimmed.account.groups}
        for group in free:
            assert after[group.name] == max(int(group.width * (1 - ratio) + 1e-9), 1), group.name
        parameters = sum(int(np.prod(t.dims)) for t in slimmed.model.graph.initializer if t.data_type == 1)
        assert slimmed.account.parameters[1] == parameters
        # Activations are cut on both sides of most layers, so that far more than the ratio of the weights goes.
        assert 1 - slimmed.account.macs[1] / slimmed.account.macs[0] > (0.25 if name == "text-encoder" else ratio)


def to_statistics(model: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """Return a copy of the graph with the module's BatchNorm statistics."""
    twin = copy(model)
    state = module.state_dict()
    for tensor in twin.graph.initializer:
        if "running_" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    return twin
