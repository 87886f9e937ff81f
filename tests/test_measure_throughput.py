"""Batch sweeps, several sessions at once and an artifact against itself: counts that a slow machine cannot change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.cli.options import NumberList
from sparsepack.errors import UnsupportedError
from sparsepack.files import Array
from sparsepack.runtimes.measure import measure, subject
from sparsepack.runtimes.measure.memory import Footprint
from sparsepack.runtimes.measure.throughput import _count
from sparsepack.runtimes.report.table import render


class Sleeper:
    """A session whose runs take ten milliseconds of nobody's processor, or fail."""

    notes = ()
    fixed_batch = None

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def run(self, *inputs: Array) -> Array:
        if self.fails:
            raise UnsupportedError("it does not compute.")
        time.sleep(0.01)
        return inputs[0]


def graph(path: Path, batch: int | str) -> Path:
    """Write a graph of one product, for any batch or for one batch size only."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
            [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "footprint", lambda *a, **k: Footprint(1.0, 10**6))


def measured(path: Path, **options: Any) -> dict[str, Any]:
    record = measure([path], runtimes=["onnxruntime-cpu"], threads=2, time_budget=0.1, **options)
    entry: dict[str, Any] = record["artifacts"][0]["latency"]["onnxruntime-cpu"]
    return {"record": record, **entry}


def test_sessions_run_at_the_same_time() -> None:
    inputs = (np.zeros((1, 2), np.float32),)
    counts, seconds = _count([Sleeper() for _ in range(4)], inputs, 0.2)
    # One after the other they would need 10 ms for every run.
    assert sum(counts) * 0.01 > 1.5 * seconds
    assert all(counts)


def test_a_session_that_fails_ends_them_all() -> None:
    with pytest.raises(UnsupportedError, match="does not compute"):
        _count([Sleeper(), Sleeper(fails=True)], (np.zeros((1, 2), np.float32),), 60.0)


def test_batches_and_throughput_are_in_record_and_table(tmp_path: Path, no_child: None) -> None:
    found = measured(graph(tmp_path / "any.onnx", "n"), batches=(8, 2, 8), throughput=True)
    assert [row["batch"] for row in found["batches"]] == [2, 8]
    for row in found["batches"]:
        assert row["examples_per_second"] == pytest.approx(1000 * row["batch"] / row["median_ms"])
    assert found["throughput"]["streams"] == 2
    assert found["throughput"]["examples_per_second"] > 0
    text = render(found["record"])
    assert "batch sizes" in text
    assert "examples/s" in text


def test_a_network_of_one_batch_size_is_timed_at_that_size(tmp_path: Path, no_child: None) -> None:
    found = measured(graph(tmp_path / "five.onnx", 5), batches=(1, 8), throughput=True)
    assert [row["batch"] for row in found["batches"]] == [5]
    assert found["batch"] == 5


def test_an_artifact_against_itself(tmp_path: Path, no_child: None) -> None:
    found = measured(graph(tmp_path / "any.onnx", "n"), self_check=True)
    check = found["self_check"]
    assert check["low"] <= check["ratio"] <= check["high"]
    covers = check["low"] <= 1.0 <= check["high"]
    assert ("as it must be" if covers else "which is not 1") in " ".join(render(found["record"]).split())
    check.update(ratio=1.1, low=1.05, high=1.2)
    found["record"]["artifacts"][0]["latency"]["onnxruntime-cpu"]["self_check"] = check
    assert "which is not 1" in " ".join(render(found["record"]).split())


@pytest.mark.parametrize("text", ["", "0", "1,,2", "a", "1.5", "-1"])
def test_a_list_of_numbers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no list of whole numbers from 1"):
        NumberList().convert(text, None, None)


def test_a_list_of_numbers() -> None:
    assert NumberList().convert("1, 8,64", None, None) == (1, 8, 64)
