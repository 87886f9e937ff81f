"""Li et al. 2017, "Pruning filters for efficient convnets", table 1: VGG-16-A and ResNet-56-A, weights and MACs."""

from __future__ import annotations

import numpy as np
from graphs import Graph, copy, difference

from sparsepack.exporters.slim import choose, mask, slim
from sparsepack.exporters.slim_account import Account
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.prepare import prepared


def _normalised(graph: Graph, name: str, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
    scale = float(np.sqrt(2.0 / (9 * inputs)))
    weight = graph.weight(f"{name}.weight", outputs, inputs, 3, 3, scale=scale)
    x = graph.add("Conv", x, weight, pads=[1, 1, 1, 1], strides=[stride, stride])
    parameters = [graph.constant(f"{name}.scale", np.ones(outputs, np.float32))]
    parameters += [graph.constant(f"{name}.{key}", np.zeros(outputs, np.float32)) for key in ("shift", "mean")]
    parameters.append(graph.constant(f"{name}.variance", np.ones(outputs, np.float32)))
    return str(graph.add("BatchNormalization", x, *parameters))


def _counts(account: Account, model_weights: tuple[int, int]) -> tuple[float, float]:
    return 1 - model_weights[1] / model_weights[0], 1 - account.macs[1] / account.macs[0]


def _weights(before: Graph, after: dict[str, int]) -> tuple[int, int]:
    names = [name for name in before.tensors if name.endswith("weight")]
    return sum(before.tensors[name].size for name in names), sum(after[name] for name in names)


def test_vgg_16_a() -> None:
    graph = Graph()
    x, width, convolution = "x", 3, 0
    for size in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if size == 0:
            x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            continue
        convolution += 1
        x, width = graph.add("Relu", _normalised(graph, f"conv{convolution}", x, width, size)), size
    # Two fully connected layers: the published 14.98 M counts them both.
    x = graph.add("Relu", graph.add("Gemm", graph.add("Flatten", x), graph.weight("fc1.weight", 512, 512, scale=0.06)))
    x = graph.add("Gemm", x, graph.weight("fc2.weight", 512, 10, scale=0.06))
    model = graph.model({"x": ("batch", 3, 32, 32)}, [x])
    ratio = {"conv1.weight": 0.5} | {f"conv{k}.weight": 0.5 for k in range(8, 14)}
    slimmed = slim(model, ratio)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in slimmed.model.graph.initializer}
    weights = _weights(graph, sizes)
    assert weights == (14_977_728, 5_390_176)
    removed = _counts(slimmed.account, weights)
    assert [round(100 * share, 1) for share in removed] == [64.0, 34.2]


def resnet_56() -> Graph:
    """Build ResNet-56 with option A shortcuts; the graph's last operator is the classifier."""
    graph = Graph()
    x = graph.add("Relu", _normalised(graph, "stem", "x", 3, 16))
    width = 16
    graph.constant("starts", np.zeros(2, np.int64))
    graph.constant("ends", np.full(2, 1 << 40, np.int64))
    graph.constant("axes", np.array([2, 3]))
    graph.constant("steps", np.array([2, 2]))
    for block in range(27):
        size = (16, 32, 64)[block // 9]
        stride = 2 if size != width else 1
        y = graph.add("Relu", _normalised(graph, f"block{block + 1}.first", x, width, size, stride))
        y = _normalised(graph, f"block{block + 1}.second", y, size, size)
        if stride == 2:
            x = graph.add("Slice", x, "starts", "ends", "axes", "steps")
            half = width // 2
            pads = graph.constant(f"pads{block}", np.array([0, half, 0, 0, 0, half, 0, 0]))
            x = graph.add("Pad", x, pads)
        x, width = graph.add("Relu", graph.add("Add", x, y)), size
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, graph.weight("fc.weight", 64, 10, scale=0.2), name="logits")
    return graph


def test_resnet_56_a() -> None:
    graph = resnet_56()
    model = graph.model({"x": ("batch", 3, 32, 32)}, ["logits"])
    skipped = (16, 20, 38, 54)
    ratio = {f"block{k}.first.weight": 0.1 for k in range(1, 28) if 2 * k not in skipped}
    slimmed = slim(model, ratio)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in slimmed.model.graph.initializer}
    weights = _weights(graph, sizes)
    assert weights[0] == 848_944
    removed = _counts(slimmed.account, weights)
    assert [round(100 * share, 1) for share in removed] == [9.4, 10.4]


def test_residual_stages_of_resnet_56_are_coupled_and_slim_to_the_masked_function() -> None:
    model = resnet_56().model({"x": ("batch", 3, 32, 32)}, ["logits"])
    masked = prepared(copy(model))
    dimensions = analyse(masked)
    groups = find_groups(dimensions)
    stage = next(group for group in groups if group.name == "stem.weight")
    # The stem, nine blocks' second convolutions, and what is padded into the two wider stages.
    assert sum(member.output and member.tensor.endswith("weight") for member in stage.members) == 28
    mask(masked, choose(dimensions, groups, 0.5))
    slimmed = slim(copy(model), 0.5)
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    assert difference(masked, slimmed.model, {"x": x}) < 1e-4
    assert 1 - slimmed.account.macs[1] / slimmed.account.macs[0] > 0.74
