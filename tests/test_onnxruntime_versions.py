"""The operators in other versions of ONNX Runtime: one shared library computes the same in all of them.

``SPARSEPACK_ONNXRUNTIMES`` names folders with one version each, as ``pip install --target`` makes them, between colons;
continuous integration installs them (``.ci/run``).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters.sparse_graph.gaps import nonzero_bits, pack
from sparsepack.exporters.sparse_graph.rewrite import DOMAIN
from sparsepack.files import Array

pytestmark = pytest.mark.native

FOLDERS = [folder for folder in os.environ.get("SPARSEPACK_ONNXRUNTIMES", "").split(":") if folder]

# In a process of its own, because a process holds one version, and with the folder's numpy, if it has one.
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    options.register_custom_ops_library(sys.argv[2])
    session = onnxruntime.InferenceSession(sys.argv[3], options, providers=["CPUExecutionProvider"])
    np.save(sys.argv[4], session.run(None, {"x": np.load(sys.argv[5])})[0])
    print(onnxruntime.__version__)
except Exception as error:
    print(onnxruntime.__version__, "refused:", error)
"""


def write_model(path: Path) -> Array:
    """Write a convolution with a residual and a product behind it; return what it gives for ones."""
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((5, 5, 1, 1)) * (rng.random((5, 5, 1, 1)) < 0.4)).astype(np.float32)
    matrix = (rng.standard_normal((6, 4)) * (rng.random((6, 4)) < 0.5)).astype(np.float32)
    stored: dict[str, Array] = {
        "kg": pack(nonzero_bits(kernel)),
        "kv": kernel[nonzero_bits(kernel)],
        "mg": pack(nonzero_bits(matrix)),
        "mv": matrix[nonzero_bits(matrix)],
    }
    nodes = [
        helper.make_node("SparseConv", ["x", "kg", "kv", "", "x"], ["c"], domain=DOMAIN, shape=[5, 5, 1, 1]),
        helper.make_node("SparseMatMul", ["c", "mg", "mv"], ["y"], domain=DOMAIN, shape=[6, 4], activation="Relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 3, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    x = sample().astype(np.float64)
    summed = np.einsum("oc,nchw->nohw", kernel[:, :, 0, 0].astype(np.float64), x) + x
    expected: Array = np.maximum(summed @ matrix, 0)
    return expected


def sample() -> Array:
    array: Array = np.random.default_rng(1).standard_normal((2, 5, 3, 6)).astype(np.float32)
    return array


NONE = pytest.param("", marks=pytest.mark.skip("SPARSEPACK_ONNXRUNTIMES names no folder"))


@pytest.mark.parametrize("folder", FOLDERS or [NONE])
def test_another_version_computes_the_same(folder: str, operators: Path, tmp_path: Path) -> None:
    expected = write_model(tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", sample())
    words = [folder, operators, tmp_path / "model.onnx", tmp_path / "y.npy", tmp_path / "x.npy"]
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    major, minor = (int(part) for part in done.stdout.split()[0].split(".")[:2])
    if (major, minor) < (1, 17):
        assert "sparsepack needs ONNX Runtime 1.17 or newer" in done.stdout
    else:
        assert "refused" not in done.stdout, done.stdout
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-5)
