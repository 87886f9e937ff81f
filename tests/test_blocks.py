"""Masks of blocks: which weights a block is, exact selection, their positions in packed, block sparse rows in csr."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from sparsepack.compressor.block import Block, block_of
from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.compressor.selection import select
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import parse_structure
from sparsepack.errors import FileFormatError, UsageError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.bound import entropy_bits, position_bits
from sparsepack.exporters.codecs import POSITIONS, Layout
from sparsepack.exporters.csr import CsrArtifact
from sparsepack.files import Array
from sparsepack.models.prunable import PrunableTensor

Build = Callable[..., SparseCheckpoint]
SHAPES = [((6, 8), 0, (2, 4)), ((8, 6), 1, (3, 2)), ((4, 6, 3, 3), 0, (1, 9)), ((12, 5), 0, (4, 1)), ((4,), 0, (2, 1))]


def tensor(name: str, *shape: int, output_axis: int = 0) -> PrunableTensor:
    return PrunableTensor(name, shape, "conv" if len(shape) > 2 else "linear", output_axis, 0, 0)


def matrix_of(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def block_mask(shape: tuple[int, ...], axis: int, block: tuple[int, int], density: float = 0.4) -> Array:
    parsed = Block(*block)
    count = parsed.groups(tensor("w", *shape, output_axis=axis)).count
    return parsed.spread(np.random.default_rng(count).random(count) < density, shape, axis)


def test_the_text_names_rows_and_columns() -> None:
    assert parse_structure("block:4x1") == Block(4, 1)
    assert Block(2, 16).text == "block:2x16"
    for text in ("block:1x1", "block:0x4", "block:04x1"):
        with pytest.raises(UsageError, match="no block of two weights or more"):
            parse_structure(text)
    with pytest.raises(UsageError, match=r"Choose from: element, N:M .*block:RxC"):
        parse_structure("block:4")


def test_blocks_tile_the_matrix_of_output_units() -> None:
    weight = np.arange(16).reshape(4, 4)
    assert Block(2, 2).group_scores(weight, tensor("w", 4, 4)).tolist() == [10, 18, 42, 50]
    assert Block(2, 2).group_scores(weight, tensor("w", 4, 4), normalise=True).tolist() == [2.5, 4.5, 10.5, 12.5]
    # Output axis 1: the first block holds output units 0 and 1.
    assert Block(2, 2).group_scores(weight, tensor("w", 4, 4, output_axis=1)).tolist() == [10, 42, 18, 50]
    kernels = np.arange(18).reshape(1, 2, 3, 3)
    assert Block(1, 9).group_scores(kernels, tensor("w", 1, 2, 3, 3)).tolist() == [36, 117]


@pytest.mark.parametrize(("shape", "axis", "block"), SHAPES)
def test_a_mask_of_blocks_is_constant_on_each(shape: tuple[int, ...], axis: int, block: tuple[int, int]) -> None:
    kept = np.random.default_rng(0).random(int(np.prod(shape)) // (block[0] * block[1])) < 0.5
    matrix = matrix_of(Block(*block).expand(kept, tensor("w", *shape, output_axis=axis)), axis)
    rows, columns = matrix.shape[0] // block[0], matrix.shape[1] // block[1]
    for number, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        tile = matrix[row * block[0] : (row + 1) * block[0], column * block[1] : (column + 1) * block[1]]
        assert (tile == kept[number]).all()


def test_layers_that_blocks_do_not_tile_stay_dense() -> None:
    space = make_space([tensor("a", 6, 8), tensor("b", 5, 8), tensor("c", 4, 3)], Block(2, 4))
    assert space.names == ("a",)
    assert space.unfit["b"] == "its 5 x 8 weights are no whole number of blocks of 2 x 4"
    assert block_of("block:2x4", (5, 8), 0) is None
    assert block_of("block:2x4", (), 0) is None
    assert block_of("element", (6, 8), 0) is None


@given(st.integers(0, 2**32), st.integers(0, 72), st.booleans())
def test_the_best_blocks_are_kept_and_no_more_than_fit(seed: int, quota: int, alive: bool) -> None:
    rng = np.random.default_rng(seed)
    space = make_space([tensor("a", 4, 6), tensor("b", 6, 8)], Block(2, 2))
    if alive and quota < 8:
        quota = 8
    # Few different scores, so that there are ties; the first are kept.
    scores = {t.name: rng.integers(0, 4, t.shape).astype(np.float32) for t in space.tensors}
    masks = select(scores, quota, Block(2, 2), space, keep_alive=alive)
    blocks = [
        (-scores[t.name][r : r + 2, c : c + 2].sum(), number, t.name, r, c)
        for number, (t, r, c) in enumerate(
            (t, r, c) for t in space.tensors for r in range(0, t.shape[0], 2) for c in range(0, t.shape[1], 2)
        )
    ]
    chosen = {min(b for b in blocks if b[2] == name) for name in "ab"} if alive else set()
    for entry in sorted(blocks):
        if len(chosen) < quota // 4:
            chosen.add(entry)
    expected = {name: np.zeros(scores[name].shape, bool) for name in "ab"}
    for _, _, name, r, c in chosen:
        expected[name][r : r + 2, c : c + 2] = True
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[name])


def test_blocks_of_equal_size_are_chosen_as_one_by_one() -> None:
    """Blocks of one size take the short way; with an allocation by layer each layer keeps its own."""
    space = make_space([tensor("a", 4, 6), tensor("b", 6, 8)], Block(2, 2))
    scores = {t.name: np.random.default_rng(1).random(t.shape).astype(np.float32) for t in space.tensors}
    within = {"a": block_mask((4, 6), 0, (2, 2)), "b": block_mask((6, 8), 0, (2, 2))}
    masks = select(scores, {"a": 7, "b": 13}, Block(2, 2), space, within=within)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 4, "b": 12}
    assert all((mask <= within[name]).all() for name, mask in masks.items())


def test_positions_by_hand() -> None:
    """[4, 6] in blocks of 2x3: four blocks; the second and the last stay, as a bitmap: 0b1010."""
    mask = np.zeros((4, 6), bool)
    mask[:2, 3:] = mask[2:, 3:] = True
    layout = Layout((4, 6), "block:2x3", 0, 12)
    np.testing.assert_array_equal(POSITIONS["blocks"].decode(b"\x01\x0a", layout), mask)
    assert POSITIONS["blocks"].encode(mask, layout) == b"\x01\x0a"
    mask[0, 0] = True
    assert POSITIONS["blocks"].encode(mask, Layout((4, 6), "block:2x3", 0, 13)) is None


@pytest.mark.parametrize(
    ("stream", "structure", "kept", "text"),
    [
        (b"", "block:2x3", 12, "names no codec"),
        (b"\x03\x0a", "block:2x3", 12, "names no codec"),
        (b"\x01\x0b", "block:2x3", 12, "keeps 3 weights, its entry says 2"),
        (b"\x01\x1a", "block:2x3", 12, "."),
        (b"\x01\x0a", "block:2x3", 13, "does not fit a tensor"),
        (b"\x01\x0a", "block:3x2", 12, "does not fit a tensor"),
        (b"\x01\x0a", "element", 12, "does not fit a tensor"),
    ],
)
def test_malformed_streams_are_refused(stream: bytes, structure: str, kept: int, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        POSITIONS["blocks"].decode(stream, Layout((4, 6), structure, 0, kept))


def test_positions_reach_the_bound_of_blocks(checkpoint_of: Build, tmp_path: Path) -> None:
    mask = block_mask((512, 512), 0, (4, 2), 0.1)
    weight = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    record = {"structure": "block:4x2", "role": "prunable"}
    checkpoint = checkpoint_of(make_tensor("w", weight, mask=mask, record=record))
    artifact = export(checkpoint, "packed", tmp_path / "x.spk")
    (row,) = artifact.rows()
    assert row.codec.startswith("blocks + ")
    kept = int(mask.sum()) // 8
    bound = entropy_bits([kept, 512 * 64 - kept])
    assert position_bits(mask, "block:4x2") == bound
    stream = POSITIONS["blocks"].encode(mask, Layout(mask.shape, "block:4x2", 0, int(mask.sum())))
    assert stream is not None
    assert bound / 8 < len(stream) < 1.03 * bound / 8
    assert artifact.tensor("w").tobytes() == checkpoint.tensors["w"].dense().tobytes()


@pytest.mark.parametrize(("shape", "axis", "block"), SHAPES)
@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
def test_block_sparse_rows_open_in_scipy_and_torch(
    shape: tuple[int, ...], axis: int, block: tuple[int, int], values: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    mask = block_mask(shape, axis, block)
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    record = {"structure": Block(*block).text, "role": "prunable", "output_axis": axis}
    checkpoint = checkpoint_of(make_tensor("w", weight, mask=mask, record=record))
    artifact = export(checkpoint, "csr", tmp_path / "x.safetensors", values=values)
    assert isinstance(artifact, CsrArtifact)
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    arrays = load_file(artifact.path)
    crow, col, kept = (arrays[f"w.{part}"] for part in ("crow_indices", "col_indices", "values"))
    assert kept.shape == (int(mask.sum()) // (block[0] * block[1]), *block)
    dense = artifact.tensor("w")
    if values == "fp32":
        assert dense.tobytes() == checkpoint.tensors["w"].dense().tobytes()
        expected = matrix_of(dense, axis)
        found = scipy.sparse.bsr_matrix((kept, col, crow), shape=expected.shape)
        np.testing.assert_array_equal(found.toarray(), expected)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse BSR tensor support is in beta")
            rows, columns, blocks = (torch.from_numpy(part) for part in (crow, col, kept))
            sparse = torch.sparse_bsr_tensor(rows, columns, blocks, expected.shape, check_invariants=True)
        np.testing.assert_array_equal(sparse.to_dense().numpy(), expected)
    matrix, tiled = artifact.csr("w"), artifact.bsr("w")
    by_row = scipy.sparse.csr_matrix((matrix.values, matrix.col_indices, matrix.crow_indices), matrix.shape)
    tiles = scipy.sparse.bsr_matrix((tiled.values, tiled.col_indices, tiled.crow_indices), tiled.shape)
    np.testing.assert_array_equal(by_row.toarray(), matrix_of(dense, axis))
    np.testing.assert_array_equal(tiles.toarray(), matrix_of(dense, axis))


@pytest.mark.parametrize("format", ["packed", "csr"])
def test_masks_that_lost_their_blocks_go_weight_by_weight(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    mask = block_mask((8, 8), 0, (2, 2))
    mask[0, :4], mask[1, :4] = True, False
    tensors = {
        "none": np.zeros((8, 8), bool),
        "parts": mask,
        "all": np.ones((8, 8), bool),
    }
    record = {"structure": "block:2x2", "role": "prunable"}
    checkpoint = checkpoint_of(*(make_tensor(name, weight, mask=m, record=record) for name, m in tensors.items()))
    artifact = export(checkpoint, format, tmp_path / "x")
    for name, found in checkpoint.tensors.items():
        assert artifact.tensor(name).tobytes() == found.dense().tobytes()
    if isinstance(artifact, CsrArtifact):
        assert [row.codec for row in artifact.rows()] == ["bsr", "csr", "bsr"]
        with pytest.raises(FileFormatError, match="'parts' is not stored in blocks"):
            artifact.bsr("parts")


def test_indices_of_blocks_are_checked(checkpoint_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, 2:] = mask[2:, :2] = True
    weight = np.ones((4, 4), np.float32)
    record = {"structure": "block:2x2", "role": "prunable"}
    export(checkpoint_of(make_tensor("w", weight, mask=mask, record=record)), "csr", tmp_path / "x")
    artifact = open_artifact(tmp_path / "x")
    assert isinstance(artifact, CsrArtifact)
    original = artifact.file.read
    for array, values, text in (("col_indices", [1, 2], "outside 0 to 1"), ("crow_indices", [0, 2, 1], "do not rise")):
        forged = np.array(values, np.int32)
        monkeypatch.setattr(artifact.file, "read", lambda n, a=array, f=forged: f if n == f"w.{a}" else original(n))
        with pytest.raises(FileFormatError, match=text):
            artifact.tensor("w")
