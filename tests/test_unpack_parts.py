"""What a graph makes of signs, choices and masks: the same bits, folded by ONNX Runtime, at the size that they cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from parametrised import seed_for

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, handed_tensor, make_tensor
from sparsepack.compressor.parametrisations import Handover, masks, options, signs
from sparsepack.exporters import export
from sparsepack.exporters.artifact import Artifact
from sparsepack.exporters.materialise import materialisation
from sparsepack.exporters.unpacking.positions import encode
from sparsepack.models.source import ModelSource, load_source

Build = Callable[..., SparseCheckpoint]
SHAPE = (48, 64)
FACTORY = """
from torch import nn


def build():
    import torch
    return nn.Linear(64, 48, bias=False), torch.zeros(1, 64)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    path = tmp_path_factory.mktemp("network") / "network.py"
    path.write_text(FACTORY)
    return load_source(f"{path}:build", allow_import=True)


def tensor_of(kind: str, initialiser: str) -> SparseTensor:
    rng = np.random.default_rng(0)
    mask, negative = rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.5
    known: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "scale": (signs.parts_of(mask, scale=np.float32(0.25)), {}),
        "negative scale": (signs.parts_of(mask, scale=np.float32(-0.25)), {}),
        "signs": (signs.parts_of(mask, negative), {}),
        "both": (signs.parts_of(mask, negative, np.float32(0.25)), {}),
        "masks": (masks.parts_of([~mask, mask]), {"count": 2, "task": 1}),
        "options": (options.parts_of(rng.integers(0, 5, SHAPE), 5, mask), {"count": 5}),
    }
    made, extra = known[kind]
    name = {"masks": "masks", "options": "options"}.get(kind, "signs")
    fields: dict[str, Any] = {"role": "prunable", "seed": seed_for("weight", initialiser=initialiser)}
    return handed_tensor("weight", SHAPE, "float32", Handover(name, made, **extra), mask=mask, record=fields)


def exported(tensor: SparseTensor, build: Build, source: ModelSource, path: Path) -> Artifact:
    checkpoint = build(tensor, model=source.record)
    return export(checkpoint, "onnx-unpack", path / "x.onnx", source=source)


KEYS = 4 * (48 + 64)


@pytest.mark.parametrize(
    ("kind", "initialiser", "codec", "values"),
    [
        ("scale", "uniform", "seeded", KEYS),
        ("scale", "signed-constant", "seeded", KEYS),
        ("negative scale", "uniform", "seeded", KEYS),
        ("signs", "signed-constant", "codebook", None),
        ("both", "uniform", "codebook", None),
        ("masks", "uniform", "seeded", KEYS),
        ("options", "signed-constant", "codebook", None),
        ("options", "uniform", "raw", None),
        ("signs", "uniform", "raw", None),
    ],
)
def test_the_graph_rebuilds_the_tensor(
    kind: str,
    initialiser: str,
    codec: str,
    values: int | None,
    checkpoint_of: Build,
    source: ModelSource,
    tmp_path: Path,
) -> None:
    tensor = tensor_of(kind, initialiser)
    artifact = exported(tensor, checkpoint_of, source, tmp_path)
    artifact.verify()
    assert artifact.tensor("weight").tobytes() == tensor.dense().tobytes()
    (row,) = artifact.rows()
    assert row.codec.endswith(codec)
    kept = tensor.kept
    assert tensor.mask is not None
    positions = encode(tensor.mask).stored.nbytes
    if values is None:
        # Codes in groups of eight, and a table of two values; raw values take four bytes each.
        values = 4 * kept if codec == "raw" else -(-kept // 8) + 8
    assert row.bytes == positions + values
    # The graph computes x W^T: rows of the identity give the weight back.
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: np.eye(64, dtype=np.float32)})
    np.testing.assert_array_equal(found.T, tensor.dense())


def test_what_a_format_stores_more_is_said(checkpoint_of: Build) -> None:
    checkpoint = checkpoint_of(tensor_of("both", "uniform"), make_tensor("bias", np.ones(3, np.float32)))
    kept = checkpoint.tensors["weight"].kept
    note = materialisation(checkpoint)
    assert note is not None
    assert f"stores signs: {4 * kept} bytes of values instead of {-(-kept // 8) + 4}" in note
    assert materialisation(checkpoint, ("identity", "signs")) is None
    assert materialisation(checkpoint_of(make_tensor("bias", np.ones(3, np.float32)))) is None
