"""Budgets of multiply-accumulates: the widths chosen against an exhaustive search over every ratio there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from graphs import Graph, copy, widths
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from sparsepack import cli
from sparsepack.errors import UnsupportedError
from sparsepack.exporters.slim import slim
from sparsepack.exporters.slim_target import MacsTarget

SIDE = 8


def network(first: int, second: int, seed: int = 0) -> ModelProto:
    """Return 3 -> first -> second -> 5 channels: two groups that can be chosen freely, 3x3 kernels, 8x8 places."""
    graph = Graph(seed)
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a", first, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Relu", graph.add("Conv", x, graph.weight("b", second, first, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, graph.weight("c", 5, second), transB=1, name="y")
    return graph.model({"x": ("batch", 3, SIDE, SIDE)}, ["y"])


def macs(first: int, second: int) -> int:
    """Return the multiply-accumulates of :func:`network` by hand."""
    return SIDE * SIDE * 9 * (3 * first + first * second) + second * 5


@given(
    first=st.integers(2, 20), second=st.integers(2, 20), share=st.floats(0.05, 1.0), round_to=st.sampled_from([1, 4])
)
@settings(max_examples=25, deadline=None)
def test_the_smallest_ratio_that_meets_the_budget_is_found(
    first: int, second: int, share: float, round_to: int
) -> None:
    def kept(width: int, ratio: float) -> int:
        whole = max(int(width * (1 - ratio) + 1e-9), 1)
        return min(-(-whole // round_to) * round_to, width)

    budget = share * macs(first, second)
    # Every width that either group can take, at the ratio where it is first taken.
    steps = sorted({k / width for width in (first, second) for k in range(width)})
    reachable = [(kept(first, ratio), kept(second, ratio)) for ratio in steps]
    within = [pair for pair in reachable if macs(*pair) <= budget]
    model = network(first, second)
    if not within:
        with pytest.raises(UnsupportedError, match="it still needs"):
            slim(model, MacsTarget(share), round_to=round_to)
        return
    account = slim(model, MacsTarget(share), round_to=round_to).account
    found = (account.layers[0].outputs[1], account.layers[1].outputs[1])
    assert macs(*found) == account.macs[1] <= budget
    # At least what one ratio for all groups keeps, and no group more than the next step would.
    best = within[0]
    above = reachable[max(reachable.index(best) - 1, 0)]
    assert all(low <= width <= high for low, width, high in zip(best, found, above, strict=True))
    assert all(width % round_to == 0 or width in (first, second) for width in found)


def test_a_number_above_one_counts_operations_and_one_is_the_whole_graph() -> None:
    model = network(16, 16)
    counted = slim(copy(model), MacsTarget(float(macs(8, 8)))).account
    assert [row.outputs[1] for row in counted.layers] == [8, 8, 5]
    assert slim(copy(model), MacsTarget(1.0)).account.macs == (macs(16, 16), macs(16, 16))


def test_dead_units_count_towards_the_budget() -> None:
    model = network(16, 16)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    array = np.frombuffer(tensors["a"].raw_data, np.float32).reshape(16, 3, 3, 3).copy()
    array[:8] = 0
    tensors["a"].raw_data = array.tobytes()
    account = slim(model, MacsTarget(float(macs(8, 16)))).account
    assert [row.outputs[1] for row in account.layers] == [8, 16, 5]


def test_the_command_meets_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "x.onnx"
    path.write_bytes(network(16, 24).SerializeToString())
    words = ["export", str(path), "--to", "onnx-slim", "--target-macs", "0.5", "--round-to", "4", "--json"]
    assert cli.run([*words, "-o", str(out)]) == 0
    account = json.loads(capsys.readouterr().out)["account"]
    assert account["macs"][0] == macs(16, 24)
    assert 0.35 < account["macs"][1] / account["macs"][0] <= 0.5
    import onnx

    assert widths(onnx.load(out))["a"][0] % 4 == 0
