"""Pruning an ONNX file's weights as they are: only the chosen constants, by magnitude, with no torch network."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.exporters import export
from sparsepack.models.source import load_source


def run_of(model: str = "lenet-300-100", **options: Any) -> PruneRecipe:
    wanted = {"method": "magnitude", "data": "digits", "sparsity": 0.9, "epochs": 1, "threads": 1, **options}
    return single_run(None, model, **wanted)


def masked(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def make_onnx(path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "conv": random.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "conv_bias": random.standard_normal(4).astype(np.float32),
        "dense": random.standard_normal((144, 10)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv", "conv_bias"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Flatten", ["b"], ["c"]),
            helper.make_node("MatMul", ["c", "dense"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)


def test_an_onnx_file_is_pruned_by_magnitude_as_it_is(tmp_path: Path) -> None:
    make_onnx(tmp_path / "net.onnx")
    recipe = run_of(str(tmp_path / "net.onnx"), sparsity=0.8, epochs=None, data=None)
    checkpoint = prune(recipe, tmp_path / "run")
    checkpoint.verify()
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
    everything = np.concatenate([np.abs(arrays[name]).reshape(-1) for name in ("conv", "dense")])
    threshold = np.sort(everything)[round(0.8 * everything.size)]
    assert set(masked(checkpoint)) == {"conv", "dense"}
    for name, mask in masked(checkpoint).items():
        np.testing.assert_array_equal(mask, np.abs(arrays[name]) >= threshold)
        np.testing.assert_array_equal(checkpoint.tensors[name].dense(), np.where(mask, arrays[name], np.float32(0)))
    assert checkpoint.tensors["dense"].record.output_axis == 1
    assert checkpoint.tensors["conv_bias"].record.role == "parameter"
    assert checkpoint.metadata.model.kind == "onnx"
    assert checkpoint.metadata.training is None
    shutil.copy(tmp_path / "run" / "checkpoint.safetensors", tmp_path / "copy")
    prune(recipe, tmp_path / "run", force=True)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "run" / "checkpoint.safetensors").read_bytes()


def test_two_of_four_in_an_onnx_matmul_runs_along_its_reduction(tmp_path: Path) -> None:
    make_onnx(tmp_path / "net.onnx")
    checkpoint = prune(
        run_of(str(tmp_path / "net.onnx"), sparsity=None, structure="2:4", epochs=None, data=None), tmp_path / "run"
    )
    mask = checkpoint.tensors["dense"].mask
    assert mask is not None
    assert (mask.T.reshape(10, 36, 4).sum(axis=-1) == 2).all()
    assert checkpoint.metadata.warnings == ["'conv' stays dense: its reduction length 9 is no multiple of 4."]


def test_an_onnx_file_of_our_own_is_pruned_like_any_other(tmp_path: Path) -> None:
    """Its manifest, which tells the weights that it had, does not stay."""
    dense = prune(run_of(method="dense", sparsity=None), tmp_path / "dense")
    network = load_source("lenet-300-100", options={"input_shape": [1, 8, 8], "classes": 10})
    export(dense, "onnx", tmp_path / "ours.onnx", source=network)
    recipe = run_of(str(tmp_path / "ours.onnx"), sparsity=0.8, epochs=None, data=None)
    checkpoint = prune(recipe, tmp_path / "pruned")
    artifact = export(checkpoint, "onnx", tmp_path / "pruned.onnx", source=load_source(str(tmp_path / "ours.onnx")))
    assert artifact.metadata is None
    written = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "pruned.onnx").graph.initializer}
    for name in masked(checkpoint):
        np.testing.assert_array_equal(written[name], checkpoint.tensors[name].dense())
    onnx.checker.check_model(onnx.load(tmp_path / "pruned.onnx"))
