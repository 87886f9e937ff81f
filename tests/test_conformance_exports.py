"""Every kind of checkpoint through every exporter that takes it: bit-exact where values are lossless.

One suite over ``EXPORTERS``: a new format is held to it without new test code. An exporter may refuse a kind, with a
reason, but only the kinds that :func:`refuses` knows.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.compressor.structure import parse_structure
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import EXPORTERS, export, open_artifact
from sparsepack.exporters.artifact import TRANSFORMED, Artifact, dense_bytes
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.prunable import PrunableTensor
from sparsepack.models.seeding.initialisers import weight_bound
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import load_source

Build = Callable[..., SparseCheckpoint]

STRUCTURES = ["element", "2:4", "block:2x2", "channel"]
PARAMETRISATIONS = ["identity", "frozen-seed", "frozen-values", "selected"]
# Shape and output axis; the last three have no blocks.
SHAPES = [((6, 8), 0), ((8, 6), 1), ((4, 4, 3, 3), 0), ((5, 3), 0), ((0, 4), 0), ((), 0)]
BLOCKED = SHAPES[:3]


def group_mask(shape: tuple[int, ...], axis: int, structure: str) -> Array:
    """A random mask of the structure, made by the structure itself."""
    rng = np.random.default_rng(len(shape))
    parsed = parse_structure(structure)
    if structure == "element" or not shape or 0 in shape:
        return np.asarray(rng.random(shape) < 0.4)
    tensor = PrunableTensor("w", shape, "conv" if len(shape) > 2 else "linear", axis, 1, 1)
    groups = parsed.groups(tensor)
    if structure in ("channel", "block:2x2"):
        return parsed.expand(rng.random(groups.count) < 0.5, tensor)
    order = np.argsort(rng.random((groups.count, groups.size)), axis=1)
    return parsed.expand(order < 2, tensor)


def masked_tensor(
    name: str, shape: tuple[int, ...], axis: int, structure: str, parametrisation: str, dtype: str
) -> SparseTensor:
    dense: Array = np.asarray(np.random.default_rng(1).normal(size=shape)).astype(numpy_dtype(dtype))
    mask = group_mask(shape, axis, structure)
    record: dict[str, Any] = {"role": "prunable", "structure": structure, "output_axis": axis}
    record["parametrisation"] = parametrisation.partition("-")[0]
    if parametrisation in ("frozen-seed", "selected"):
        units = shape[axis] if shape else 1
        fan_in = max(1, dense.size // units if units else 1)
        initialiser = "signed-constant" if parametrisation == "selected" else "uniform"
        record["seed"] = SeedRecord("keyed-product", 11, name, initialiser, weight_bound(initialiser, fan_in, 0))
    if dense.size > 4:
        # A kept zero, a negative zero and a NaN with a payload: three values that careless codecs lose.
        special = np.array([0.0, -0.0, np.nan]).astype(dense.dtype)
        dense.reshape(-1)[np.flatnonzero(mask)[:3]] = special[: np.count_nonzero(mask)][:3]
    return make_tensor(name, dense, mask=mask, record=record)


def others() -> list[SparseTensor]:
    """What surrounds the masked tensor in a network: a tied name, statistics, a counter, nothing at all."""
    shared = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    return [
        make_tensor("embedding.weight", shared),
        make_tensor("decoder.weight", shared, record={"alias_of": "embedding.weight"}),
        make_tensor("norm.running_var", np.full(5, 1 / 3, np.float32), record={"role": "buffer"}),
        make_tensor("norm.num_batches_tracked", np.array(7, np.int64), record={"role": "buffer"}),
        make_tensor("empty", np.empty((0, 3), np.float32)),
        make_tensor("flags", np.array([True, False, True]), record={"role": "buffer"}),
    ]


def refuses(format: str, structure: str, parametrisation: str) -> bool:
    """``nm`` takes N:M masks whose other weights are zero; everything else takes everything."""
    return format == "nm" and (structure != "2:4" or parametrisation.startswith("frozen"))


def kinds() -> Iterator[tuple[str, str, str, tuple[int, ...], int, str]]:
    for format, exporter in EXPORTERS.items():
        if exporter.needs_source:
            continue
        for structure, parametrisation, dtype in itertools.product(
            STRUCTURES, PARAMETRISATIONS, ["float32", "float16", "bfloat16", "float64"]
        ):
            for shape, axis in BLOCKED if structure in ("2:4", "block:2x2") else SHAPES:
                yield format, structure, parametrisation, shape, axis, dtype


def check(artifact: Artifact, checkpoint: SparseCheckpoint) -> None:
    """The contract of every artifact, whatever its format."""
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    assert set(artifact.overhead()) == {"header", "graph", "other"}
    assert [row.name for row in artifact.rows()] == artifact.names() == list(artifact.records())
    artifact.verify()
    decoded = artifact.tensors()
    dense = checkpoint.dense_state()
    for name, array in decoded.items():
        assert array.dtype == dense[name].dtype
        assert array.shape == dense[name].shape
        assert array.tobytes() == dense[name].tobytes(), name
    rows = {row.name: row for row in artifact.rows()}
    for name, tensor in checkpoint.tensors.items():
        if name in rows and tensor.record.alias_of is None:
            assert rows[name].nnz == tensor.kept
            assert artifact.records()[name].role == tensor.record.role
    assert artifact.model == checkpoint.metadata.model
    assert artifact.training == checkpoint.metadata.training


def test_every_kind_of_tensor_through_every_container(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    for format, structure, parametrisation, shape, axis, dtype in kinds():
        tensor = masked_tensor("layer.weight", shape, axis, structure, parametrisation, dtype)
        checkpoint = checkpoint_of(tensor, *others())
        what = f"{format} {structure} {parametrisation} {shape} {dtype}"
        if refuses(format, structure, parametrisation):
            with pytest.raises(UnsupportedError, match=r"'layer\.weight'"):
                export(checkpoint, format, path, force=True)
            continue
        artifact = export(checkpoint, format, path, force=True)
        try:
            check(artifact, checkpoint)
        except AssertionError as error:
            raise AssertionError(what) from error
        assert list(artifact.tensors()) == list(checkpoint.tensors)
        assert dense_bytes(artifact) == sum(
            t.dense().nbytes for t in checkpoint.tensors.values() if t.record.alias_of is None
        )
        for sparse in artifact.sparse_tensors():
            original = checkpoint.tensors[sparse.record.name]
            whole = original.record.parametrisation == "frozen" and original.record.seed is None
            if original.mask is not None and not whole:
                np.testing.assert_array_equal(sparse.mask, original.mask, what)
                assert sparse.record == original.record


def test_every_kind_rounds_to_half_precision_and_hashes_what_it_decodes(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    for format, structure, parametrisation, shape, axis, dtype in kinds():
        if refuses(format, structure, parametrisation) or shape == (0, 4):
            continue
        tensor = masked_tensor("layer.weight", shape, axis, structure, parametrisation, dtype)
        artifact = export(checkpoint_of(tensor), format, path, values="fp16", force=True)
        expected = tensor.dense().copy()
        if dtype in ("float32", "float64") and parametrisation != "selected":
            assert tensor.mask is not None
            stored = np.ones(shape, np.bool_) if parametrisation == "frozen-values" else tensor.mask
            expected[stored] = expected[stored].astype(np.float16)
        decoded = artifact.tensor("layer.weight")
        assert decoded.dtype == expected.dtype
        # bfloat16 has no NaN-aware comparison of its own.
        np.testing.assert_array_equal(decoded.astype(np.float64), expected.astype(np.float64))
        artifact.verify()
        assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size


FACTORY = """
from torch import nn


def build():
    import torch
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)), torch.zeros(1, 8)
"""


# Slimmed and quantised graphs hold other tensors by design; tests of their own compare functions.
WHOLE = [name for name, exporter in EXPORTERS.items() if exporter.needs_source and name not in TRANSFORMED]


@pytest.mark.parametrize("format", WHOLE)
def test_every_kind_through_the_formats_that_need_the_network(
    format: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    (tmp_path / "network.py").write_text(FACTORY)
    source = load_source(f"{tmp_path / 'network.py'}:build", allow_import=True)
    structures = ["element", "2:4", "channel", "element", "block:2x2", "2:4", "channel"]
    parametrisations = [*PARAMETRISATIONS, "identity", "identity", "identity"]
    for structure, parametrisation in zip(structures, parametrisations, strict=True):
        tensors = [
            masked_tensor("0.weight", (12, 8), 0, structure, parametrisation, "float32"),
            make_tensor("0.bias", np.arange(12, dtype=np.float32)),
            masked_tensor("2.weight", (8, 12), 0, structure, parametrisation, "float32"),
            make_tensor("2.bias", np.zeros(8, np.float32)),
        ]
        checkpoint = checkpoint_of(*tensors, model=source.record)
        artifact = export(
            checkpoint, format, tmp_path / f"{structure}-{parametrisation}".replace(":", "-"), source=source
        )
        check(artifact, checkpoint)
        assert set(artifact.tensors()) == set(checkpoint.tensors)


@pytest.mark.parametrize("format", [name for name, exporter in EXPORTERS.items() if not exporter.needs_source])
def test_equal_checkpoints_give_equal_bytes_and_a_failed_export_leaves_nothing(
    format: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    tensor = masked_tensor("w", (6, 8), 0, "2:4", "identity", "float32")
    for name in ("a", "b"):
        export(checkpoint_of(tensor, *others()), format, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert open_artifact(tmp_path / "a").sha256 == open_artifact(tmp_path / "b").sha256
    huge = make_tensor("w", np.full((6, 8), 1e9, np.float32), mask=tensor.mask, record={"structure": "2:4"})
    with pytest.raises(UnsupportedError, match="'w'"):
        export(checkpoint_of(huge), format, tmp_path / "c", values="fp16")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_checkpoint_on_disk_gives_the_same_artifact(checkpoint_of: Build, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(masked_tensor("w", (6, 8), 0, "element", "frozen-seed", "float32"), *others())
    checkpoint.save(tmp_path / "checkpoint.safetensors")
    loaded = SparseCheckpoint.load(tmp_path / "checkpoint.safetensors")
    assert export(checkpoint, "packed", tmp_path / "a").sha256 == export(loaded, "packed", tmp_path / "b").sha256
