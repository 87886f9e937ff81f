"""Every parametrisation through every exporter that takes it and every runtime that takes the artifact.

One network has a convolution for each kind; a new kind (in ``parametrised``), format or runtime is held to it without
new test code. What a format keeps or turns into values is its own business: it decodes and computes the same.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from parametrised import HANDED, handed
from torch.nn import functional

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor
from sparsepack.compressor.parametrisations import PARAMETRISATIONS
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import EXPORTERS, export
from sparsepack.exporters.artifact import TRANSFORMED, Artifact
from sparsepack.files import Array
from sparsepack.models.source import ModelSource, TorchSource, load_source
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.parity import BOUND, compare

Build = Callable[..., SparseCheckpoint]
SHAPE = (4, 3, 2, 2)
FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for name in NAMES:
            setattr(self, name, nn.Conv2d(3, 4, 2, bias=False))

    def forward(self, x):
        return sum(getattr(self, name)(x) for name in NAMES)


def build():
    return Net(), torch.zeros(1, 3, 5, 5)
"""
# Slimmed and quantised graphs hold other tensors by design; N:M files take N:M masks only.
FORMATS = [name for name in EXPORTERS if name not in TRANSFORMED and name != "nm"]
# No tracing: the network as a graph.
GRAPHS = ("onnx", "onnx-unpack", "onnx-sparse")


def name_of(kind: str) -> str:
    return f"{kind.replace('-', '_')}.weight"


def tensors() -> list[SparseTensor]:
    return [handed(kind, SHAPE, name=name_of(kind), generator="keyed-product") for kind in HANDED]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    path = tmp_path_factory.mktemp("graph") / "network.onnx"
    names = [name_of(kind) for kind in HANDED]
    nodes = [helper.make_node("Conv", ["x", name], [f"y{number}"]) for number, name in enumerate(names)]
    nodes.append(helper.make_node("Sum", [f"y{number}" for number in range(len(names))], ["y"]))
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 4, 4])],
        [numpy_helper.from_array(np.full(SHAPE, number + 1, np.float32), name) for number, name in enumerate(names)],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return load_source(str(path))


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    path = tmp_path_factory.mktemp("factory") / "network.py"
    names = [name_of(kind).removesuffix(".weight") for kind in HANDED]
    path.write_text(f"NAMES = {names!r}\n{FACTORY}")
    return load_source(f"{path}:build", allow_import=True)


def expected(state: dict[str, Array], inputs: Array) -> Array:
    x = torch.from_numpy(inputs.astype(np.float64))
    weights = [torch.from_numpy(array.astype(np.float64)) for array in state.values()]
    return torch.stack([functional.conv2d(x, weight) for weight in weights]).sum(0).numpy()


def check(artifact: Artifact, checkpoint: SparseCheckpoint, source: ModelSource) -> int:
    """The artifact holds the checkpoint's bits and every runtime that takes it computes with them; return how many."""
    artifact.verify()
    dense = checkpoint.dense_state()
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    decoded = artifact.tensors()
    assert set(decoded) <= set(dense)
    for name, array in decoded.items():
        assert array.tobytes() == dense[name].tobytes(), name
    inputs = np.random.default_rng(1).standard_normal((16, 3, 5, 5)).astype(np.float32)
    reference = expected(dense, inputs)
    took = 0
    for name, runtime in RUNTIMES.items():
        if runtime.available() is None and runtime.accepts(artifact) is None:
            typed = source if isinstance(source, TorchSource) else None
            found = runtime.load(artifact, threads=1, source=typed).run(inputs)
            comparison = compare(reference, found.astype(np.float64))
            assert comparison.error is not None and comparison.error <= BOUND, (name, comparison)
            took += 1
    return took


@pytest.mark.parametrize("format", FORMATS)
def test_every_parametrisation_through_the_format(
    format: str, graph: ModelSource, factory: ModelSource, checkpoint_of: Build, tmp_path: Path
) -> None:
    source = graph if format in GRAPHS else factory
    checkpoint = checkpoint_of(*tensors(), model=source.record, chain=None)
    needed = source if EXPORTERS[format].needs_source else None
    artifact = export(checkpoint, format, tmp_path / f"x{EXPORTERS[format].suffix}", source=needed)
    took = check(artifact, checkpoint, source)
    assert took or not EXPORTERS[format].needs_source


def test_every_parametrisation_is_among_the_kinds() -> None:
    kinds = {tensor.record.parametrisation for tensor in tensors()}
    assert kinds == set(PARAMETRISATIONS) - {"identity", "frozen", "selected"}


@pytest.mark.parametrize("kind", ["basis", "offset"])
def test_n_of_m_refuses_what_is_dense(kind: str, checkpoint_of: Build, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"tensor 'weight' is '{kind}', dense there"):
        export(checkpoint_of(handed(kind)), "nm", tmp_path / "x")
