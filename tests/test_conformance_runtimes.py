"""Every kind of checkpoint through every format that takes it and every runtime that takes the artifact.

The answers are compared with float64 PyTorch on the weights that the artifact decodes to; a new runtime, format or
structure is held to it without new test code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from test_conformance_exports import group_mask
from torch.nn import functional

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import EXPORTERS, export
from sparsepack.exporters.torch_archive import FORMATS as PROGRAMS
from sparsepack.files import Array
from sparsepack.models.chain import chain_of
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import ModelSource, TorchSource, load_source
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.parity import BOUND, compare

Build = Callable[..., SparseCheckpoint]

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 16, 3, padding=1)
        self.fc = nn.Linear(256, 24)
        self.out = nn.Linear(24, 8)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(1)
        return self.out(torch.relu(self.fc(x)))


def build():
    torch.manual_seed(0)
    return Net(), torch.zeros(1, 4, 4, 4)


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)), torch.zeros(1, 64)
"""

KINDS = [
    ("element", "identity"),
    ("2:4", "identity"),
    ("channel", "identity"),
    ("element", "frozen"),
    ("channel", "frozen"),
    ("element", "selected"),
]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.py"
    path.write_text(FACTORY)
    return path


def source_of(factory: Path, name: str) -> TorchSource:
    source = load_source(f"{factory}:{name}", allow_import=True)
    assert isinstance(source, TorchSource)
    return source


def pruned(source: TorchSource, structure: str, parametrisation: str, build: Build, **changes: Any) -> SparseCheckpoint:
    module = source.build()
    tensors: list[SparseTensor] = []
    for name, value in module.state_dict().items():
        dense = value.numpy().copy()
        if dense.ndim < 2:
            tensors.append(make_tensor(name, dense))
            continue
        record: dict[str, Any] = {"role": "prunable", "structure": structure, "parametrisation": parametrisation}
        if parametrisation != "identity":
            initialiser = "signed-constant" if parametrisation == "selected" else "uniform"
            record["seed"] = SeedRecord("keyed-product", 5, name, initialiser, 0.125)
        tensors.append(make_tensor(name, dense, mask=group_mask(dense.shape, 0, structure), record=record))
    return build(*tensors, model=source.record, chain=chain_of(module, source.example_inputs(2)), **changes)


def expected(state: dict[str, Array], inputs: Array) -> Array:
    """The network in float64, layer by layer."""
    weights = {name: torch.from_numpy(array.astype(np.float64)) for name, array in state.items()}
    x = torch.from_numpy(inputs.astype(np.float64))
    if "conv.weight" in weights:
        x = functional.conv2d(x, weights["conv.weight"], weights["conv.bias"], padding=1).relu().flatten(1)
        layers = ["fc", "out"]
    else:
        layers = ["0", "2"]
    for layer in layers:
        x = functional.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        x = x.relu() if layer != layers[-1] else x
    return x.numpy()


def check(checkpoint: SparseCheckpoint, format: str, values: str, path: Path, source: ModelSource | None) -> set[str]:
    """Export, and run wherever it runs; return the runtimes that took it."""
    artifact = export(checkpoint, format, path, values=values, source=source, force=True)
    shape = (4, 4, 4) if "conv.weight" in checkpoint.tensors else (64,)
    inputs = np.random.default_rng(3).standard_normal((16, *shape)).astype(np.float32)
    # A slimmed graph holds other tensors and computes the same.
    state = checkpoint.dense_state() if format == "onnx-slim" else {**checkpoint.dense_state(), **artifact.tensors()}
    reference = expected(state, inputs)
    took = set()
    for name, runtime in RUNTIMES.items():
        # Compiling takes ten seconds a network; tests of its own run it once.
        if name != "torch-compiled-cpu" and runtime.available() is None and runtime.accepts(artifact) is None:
            typed = source if isinstance(source, TorchSource) else None
            found = runtime.load(artifact, threads=1, source=typed).run(inputs)
            comparison = compare(reference, found.astype(np.float64))
            assert comparison.error is not None and comparison.error <= BOUND, (format, name, comparison)
            took.add(name)
    return took


@pytest.mark.parametrize(("structure", "parametrisation"), KINDS)
def test_containers_run_wherever_they_are_taken(
    structure: str, parametrisation: str, factory: Path, checkpoint_of: Build, tmp_path: Path
) -> None:
    source = source_of(factory, "chain")
    checkpoint = pruned(source, structure, parametrisation, checkpoint_of)
    took: set[str] = set()
    for format, exporter in EXPORTERS.items():
        if exporter.needs_source:
            continue
        for values in ("fp32", "fp16", "int8"):
            try:
                took |= check(checkpoint, format, values, tmp_path / "artifact", source)
            except UnsupportedError:
                assert format == "nm" and (structure != "2:4" or parametrisation == "frozen"), format
    assert {"torch-cpu", "scipy-csr-cpu"} <= took


@pytest.mark.parametrize(("structure", "parametrisation"), KINDS)
def test_graphs_run_wherever_they_are_taken(
    structure: str, parametrisation: str, factory: Path, checkpoint_of: Build, tmp_path: Path
) -> None:
    torch_source = source_of(factory, "build")
    checkpoint = pruned(torch_source, structure, parametrisation, checkpoint_of)
    # Lowered once: a source that is a graph already is exported without tracing it again.
    export(checkpoint, "onnx", tmp_path / "network.onnx", source=torch_source)
    foreign = onnx.load(tmp_path / "network.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "network.onnx")
    source = load_source(str(tmp_path / "network.onnx"))
    again = checkpoint_of(*checkpoint.tensors.values(), model=source.record)
    for format, exporter in EXPORTERS.items():
        # Quantised activations are another function; tests of their own bound how far from it they are.
        if not exporter.needs_source or format == "onnx-int8":
            continue
        if format in PROGRAMS:
            # PyTorch writes them, from a model that it builds.
            assert check(checkpoint, format, "fp32", tmp_path / format, torch_source) >= {f"{format}-cpu", "torch-cpu"}
            continue
        for values in ("fp32", "int8", "codebook:4"):
            if values in exporter.values or (values == "codebook:4" and "codebook:BITS" in exporter.values):
                assert check(again, format, values, tmp_path / f"{format}.onnx", source), format
