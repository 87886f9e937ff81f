"""ONNX files as other tools and earlier years wrote them: initializers as inputs, as typed lists, as outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.cli import run
from sparsepack.files import Array
from sparsepack.models.graph.shapes import read_shapes

FLOAT = TensorProto.FLOAT


def write(path: Path, *, inputs: bool = False, typed: bool = False, handed: bool = False, **of_model: Any) -> None:
    """Write y = relu(x W1 + b) W2 with x [N, 8], W1 [8, 16], W2 [16, 3]."""
    draw = np.random.default_rng(0)
    tensors = {"w1": draw.normal(size=(8, 16)), "b": draw.normal(size=16), "w2": draw.normal(size=(16, 3))}
    tensors["w1"][:, 5:9] = tensors["b"][5:9] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    stored = [
        helper.make_tensor(name, FLOAT, value.shape, value.ravel().tolist())
        if typed
        else numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in tensors.items()
    ]
    named = [helper.make_tensor_value_info(name, FLOAT, value.shape) for name, value in tensors.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 8]), *(named if inputs else [])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 3]), *([named[1]] if handed else [])],
        stored,
    )
    model = helper.make_model(graph, **of_model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def outputs(path: Path | str) -> list[Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    return list(session.run(None, {"x": x}))


OLD: dict[str, Any] = {"opset_imports": [helper.make_opsetid("", 9)], "ir_version": 3}
NEW: dict[str, Any] = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8}


def test_initializers_that_are_inputs_are_cut_out_with_their_extents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("old.onnx"), inputs=True, **OLD)
    assert run(["export", "old.onnx", "--to", "onnx-slim", "-o", "slim.onnx"]) == 0
    assert {t.name: tuple(t.dims) for t in onnx.load("slim.onnx").graph.initializer}["w1"] == (8, 12)
    np.testing.assert_allclose(outputs("slim.onnx")[0], outputs("old.onnx")[0], rtol=0, atol=1e-5)
    typed = ["--method", "magnitude", "--structure", "channel", "--sparsity", "0.5"]
    assert run(["prune", "old.onnx", *typed, "-o", "run"]) == 0
    assert run(["export", "run", "--to", "onnx", "-o", "pruned.onnx"]) == 0
    assert run(["export", "run", "--to", "onnx-slim", "-o", "narrow.onnx"]) == 0
    np.testing.assert_allclose(outputs("narrow.onnx")[0], outputs("pruned.onnx")[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", ["onnx-unpack", "onnx-sparse"])
def test_weights_in_typed_lists_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("typed.onnx"), typed=True, **NEW)
    assert run(["prune", "typed.onnx", "--method", "magnitude", "--sparsity", "0.5", "-o", "run"]) == 0
    assert run(["export", "run", "--to", "onnx", "-o", "dense.onnx"]) == 0
    assert run(["export", "run", "--to", to, "-o", "net.onnx"]) == 0
    assert run(["verify", "net.onnx", "--against", "run"]) == 0
    if to == "onnx-unpack":
        np.testing.assert_allclose(outputs("net.onnx")[0], outputs("dense.onnx")[0], rtol=0, atol=1e-6)


def test_a_constant_that_is_handed_out_keeps_its_extents(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", handed=True, **NEW)
    extents = read_shapes(onnx.load(tmp_path / "net.onnx")).extents
    assert extents["b"] == (16,) and extents["a"] == (2, 16)
