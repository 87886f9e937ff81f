"""Budgets of time from a cost table: on machines that follow a formula, counted by hand, and from the command."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from graphs import Graph, copy, difference, widths
from onnx import ModelProto

from sparsepack import cli
from sparsepack.errors import UnsupportedError
from sparsepack.exporters.slim import slim
from sparsepack.exporters.slim_latency import LatencyTarget
from sparsepack.exporters.slim_layers import width_layers
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.layer_costs import CostTable, LayerCost, LayerShape
from sparsepack.runtimes.whole_graph import example_feeds, graph_ms

Clock = Callable[[LayerShape], float]


def table_of(clock: Clock) -> Callable[[Sequence[LayerShape]], CostTable]:
    """Return a measure that knows every layer's time from a formula."""
    return lambda layers: CostTable(
        {}, [LayerCost(layer, clock(layer), clock(layer), clock(layer), 1) for layer in layers]
    )


def work(layer: LayerShape) -> float:
    """A machine that is paid by the multiply-accumulate, in units of a million."""
    return layer.macs / 1e6


def in_blocks(layer: LayerShape) -> float:
    """A machine that computes 16 outputs at a time, and pays double where the inputs are no multiple of 16."""
    outputs, inputs = layer.weight[:2]
    whole = -(-outputs // 16) * 16
    return work(layer) * whole / outputs * (2.0 if inputs % 16 and inputs > 3 else 1.0)


def chain(*channels: int, side: int = 8) -> ModelProto:
    graph = Graph()
    x, before = "x", 3
    for place, width in enumerate(channels):
        weight = graph.weight(f"c{place}.weight", width, before, 3, 3)
        x = graph.add("Relu", graph.add("Conv", x, weight, pads=[1, 1, 1, 1]))
        before = width
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, graph.weight("head.weight", 5, before), transB=1, name="y")
    return graph.model({"x": ("batch", 3, side, side)}, ["y"])


def test_the_budget_is_met_and_not_by_much() -> None:
    target = LatencyTarget(0.4, False, table_of(work))
    account = slim(chain(64, 64, 64), target).account
    before, after = target.layers_ms
    assert before == pytest.approx(account.macs[0] / 1e6)
    assert after == pytest.approx(account.macs[1] / 1e6, abs=1e-4)
    assert 0.3 < after / before <= 0.4


def test_no_width_pays_for_a_part_of_a_block() -> None:
    target = LatencyTarget(0.5, False, table_of(in_blocks))
    account = slim(chain(64, 96, 64), target).account
    assert target.multiple == 16
    assert all(row.outputs[1] % 16 == 0 for row in account.layers[:3])
    free = LatencyTarget(0.5, False, table_of(work))
    slim(chain(64, 96, 64), free)
    assert free.multiple == 1


def test_the_widest_choice_within_the_budget_is_found_where_all_units_count_alike() -> None:
    model = chain(32)
    target = LatencyTarget(0.6, False, table_of(work))
    account = slim(model, target).account
    # By hand: a width of 32 in eighths; the layers take 8 x 8 x 27 a channel and 5 in the head.
    fitting = [width for width in range(4, 33, 4) if width * (64 * 27 + 5) <= 0.6 * 32 * (64 * 27 + 5)]
    assert account.layers[0].outputs[1] == max(fitting)


def test_the_expensive_layers_narrow_first_and_nothing_is_emptied() -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("wide", 64, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Relu", graph.add("Conv", x, graph.weight("dear", 64, 64, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("Relu", graph.add("Gemm", x, graph.weight("cheap", 64, 64), transB=1))
    graph.add("Gemm", x, graph.weight("head", 5, 64), transB=1, name="y")
    account = slim(graph.model({"x": ("batch", 3, 8, 8)}, ["y"]), LatencyTarget(0.3, False, table_of(work))).account
    wide, dear, cheap, _ = (row.outputs[1] for row in account.layers)
    assert cheap == 64
    assert 16 <= wide < 64 and 16 <= dear < 64


def test_milliseconds_are_a_budget_of_their_own_and_rounding_by_hand_holds() -> None:
    model = chain(60, 60)
    goal = 0.6 * sum(work(layer.shape) for layer in _layers(model))
    target = LatencyTarget(goal, True, table_of(work))
    account = slim(copy(model), target, round_to=4).account
    assert target.layers_ms[1] <= goal
    assert all(row.outputs[1] % 4 == 0 for row in account.layers[:2])


def _layers(model: ModelProto) -> list:  # type: ignore[type-arg]  # ONNX nodes
    dimensions = analyse(prepared(copy(model)))
    groups = {group.name: group for group in find_groups(dimensions) if not group.pinned}
    return width_layers(dimensions, groups, 1)


def test_what_cannot_be_met_says_how_far_it_goes() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot come down to .* at the narrowest widths that gain anything"):
        slim(chain(32, 32), LatencyTarget(1e-4, False, table_of(work)))
    with pytest.raises(UnsupportedError, match="holds no layer of this graph"):
        slim(chain(32, 32), LatencyTarget(0.5, False, lambda layers: CostTable({})))


def test_layers_follow_their_groups() -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a.weight", 8, 3, 1, 1)))
    x = graph.add("Conv", x, graph.weight("depth.weight", 8, 1, 3, 3), group=8, pads=[1, 1, 1, 1])
    y = graph.add("Conv", "x", graph.weight("b.weight", 6, 3, 1, 1))
    x = graph.add("Concat", x, y, axis=1)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, graph.weight("head.weight", 5, 14), transB=1, name="y")
    model = graph.model({"x": ("batch", 3, 8, 8)}, ["y"])
    found = _layers(model)
    halves = {name: whole // 2 for layer in found for name, whole, _ in (*layer.inputs.parts, *layer.outputs.parts)}
    assert len(halves) == 2
    slimmed = widths(slim(copy(model), 0.5).model)
    for layer in found:
        shape = layer.at(halves)
        assert shape.weight in slimmed.values()
        assert shape.group in (1, 4)
        assert math.prod(layer.at({name: 2 * width for name, width in halves.items()}).weight) == math.prod(
            layer.shape.weight
        )


def test_a_slimmed_graph_computes_what_the_masked_one_does_whoever_chose() -> None:
    model = chain(32, 48)
    target = LatencyTarget(0.5, False, table_of(in_blocks))
    slimmed = slim(copy(model), target).model
    by_hand = {row: widths(slimmed)[row][0] for row in ("c0.weight", "c1.weight")}
    shares = {"c0.weight": 1 - by_hand["c0.weight"] / 32, "c1.weight": 1 - by_hand["c1.weight"] / 48}
    again = slim(copy(model), shares).model
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    assert difference(again, slimmed, {"x": x}) < 1e-6


def test_a_whole_graph_is_measured_by_the_clock() -> None:
    ticks = itertools.count()
    # The clock moves one second a reading: one for the loop's condition, two around each run.
    assert graph_ms(chain(4), threads=1, seconds=20.0, clock=lambda: float(next(ticks))) == pytest.approx(1000.0)
    feeds = example_feeds(chain(4), 5)
    assert [feed.shape for feed in feeds.values()] == [(5, 3, 8, 8)]


def run(tmp_path: Path, *words: str) -> int:
    path = tmp_path / "m.onnx"
    path.write_bytes(chain(32, 32).SerializeToString())
    return cli.run(["export", str(path), *words, "-o", str(tmp_path / "x.onnx"), "--force"])


def test_the_command_measures_keeps_the_table_and_uses_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = tmp_path / "costs.json"
    words = ["--to", "onnx-slim", "--target-latency", "0.9", "--cost-table", str(costs), "--json"]
    assert run(tmp_path, *words, "--tune", "--threads", "1") == 0
    latency = json.loads(capsys.readouterr().out)["account"]["latency"]
    assert latency["graph"][0] > 0 and latency["layers"][1] <= 0.9 * latency["layers"][0]
    assert CostTable.load(costs).costs
    assert run(tmp_path, *words) == 0
    again = json.loads(capsys.readouterr().out)["account"]["latency"]
    assert again["graph"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target-latency", "0.5"], "give --tune to measure them here, or --cost-table FILE"),
        (["--target-latency", "soon", "--tune"], "expected a share of the time now (0.5) or milliseconds (20ms)"),
        (["--target-latency", "0", "--tune"], "expected a share of the time now"),
        (["--target-latency", "0.5", "--slim", "0.5"], "--slim and --target-latency both say how much to remove"),
        (["--slim", "0.5", "--tune"], "or with --to onnx-slim --target-latency"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(tmp_path, "--to", "onnx-slim", *words) == 2
    assert message in capsys.readouterr().err
