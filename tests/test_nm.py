"""N:M artifacts: golden arrays, exact sizes, reduction order, refusals with their reasons."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.compressor.structure import NofM, from_blocks, to_blocks
from sparsepack.errors import FileFormatError, RuntimeUnavailableError, UnknownNameError, UnsupportedError
from sparsepack.exporters import export
from sparsepack.exporters.nm import NmArtifact, from_semi_structured, index_width
from sparsepack.files import Array
from sparsepack.models.seeding.record import SeedRecord

Build = Callable[..., SparseCheckpoint]


def nm_mask(shape: tuple[int, ...], n: int, m: int, axis: int = 0, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    blocks = np.zeros((math.prod(shape) // m, m), np.bool_)
    for row in blocks:
        row[rng.choice(m, n, replace=False)] = True
    return from_blocks(blocks, shape, axis)


def weights(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(9).normal(size=shape).astype(np.float32)


def test_golden_arrays(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.array([[1, 0, 0, 2, 0, 3, 4, 0], [5, 6, 0, 0, 0, 0, 7, 8]], np.float32)
    tensor = make_tensor("fc.weight", dense, mask=dense != 0, record={"structure": "2:4"})
    path = tmp_path / "x.safetensors"
    export(checkpoint_of(tensor), "nm", path)
    arrays = load_file(path)
    assert arrays["fc.weight.values"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    # Places 0 3 1 2 and 0 1 2 3, two bits each, first in the lowest: NVIDIA's order too.
    assert arrays["fc.weight.indices"].tolist() == [0b10_01_11_00, 0b11_10_01_00]


@pytest.mark.parametrize(
    ("shape", "n", "m", "axis"),
    [
        ((16, 32), 2, 4, 0),
        ((32, 16), 2, 4, 1),
        ((6, 8, 3, 3), 2, 4, 0),
        ((6, 5, 2, 2), 1, 4, 0),
        ((3, 14), 3, 7, 0),
        ((5, 64), 1, 16, 0),
        ((4, 32), 4, 8, 0),
        ((3, 2), 1, 2, 0),
    ],
)
def test_sizes_are_exact_and_round_trips_too(
    shape: tuple[int, ...], n: int, m: int, axis: int, checkpoint_of: Build, tmp_path: Path
) -> None:
    mask = nm_mask(shape, n, m, axis)
    tensor = make_tensor("w", weights(shape), mask=mask, record={"structure": f"{n}:{m}", "output_axis": axis})
    artifact = export(checkpoint_of(tensor), "nm", tmp_path / "x.safetensors")
    kept = math.prod(shape) * n // m
    (row,) = artifact.rows()
    assert row.bytes == 4 * kept + math.ceil(kept * math.ceil(math.log2(m)) / 8)
    assert row.nnz == kept
    assert row.bound_bytes <= row.bytes
    assert row.bytes + sum(artifact.overhead().values()) == artifact.size
    assert artifact.tensor("w").tobytes() == tensor.dense().tobytes()
    # The values are the kept ones in reduction order, one row an output unit.
    stored = load_file(artifact.path)["w.values"]
    ordered = to_blocks(tensor.dense(), axis, m)[to_blocks(mask, axis, m)]
    np.testing.assert_array_equal(stored.reshape(-1), ordered)
    assert stored.shape[0] == shape[axis]


def test_a_2_4_layer_takes_nine_sixteenths_of_half_precision(checkpoint_of: Build, tmp_path: Path) -> None:
    mask = nm_mask((64, 128), 2, 4)
    tensor = make_tensor("w", weights((64, 128)), mask=mask, record={"structure": "2:4"})
    artifact = export(checkpoint_of(tensor), "nm", tmp_path / "x.safetensors", values="fp16")
    assert artifact.rows()[0].bytes == 2 * 64 * 128 * 9 / 16
    rounded = tensor.dense().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(artifact.tensor("w"), rounded)


def test_a_kept_zero_stays_kept(checkpoint_of: Build, tmp_path: Path) -> None:
    mask = nm_mask((2, 8), 2, 4)
    artifact = export(
        checkpoint_of(make_tensor("w", np.zeros((2, 8), np.float32), mask=mask, record={"structure": "2:4"})),
        "nm",
        tmp_path / "x.safetensors",
    )
    (sparse,) = artifact.sparse_tensors()
    np.testing.assert_array_equal(sparse.mask, mask)


def test_selected_weights_have_places_and_no_values(checkpoint_of: Build, tmp_path: Path) -> None:
    seed = SeedRecord("philox4x32-10", 0, "w", "signed-constant", 0.5)
    record = {"structure": "2:4", "parametrisation": "selected", "seed": seed}
    tensor = make_tensor("w", weights((4, 8)), mask=nm_mask((4, 8), 2, 4), record=record)
    artifact = export(checkpoint_of(tensor), "nm", tmp_path / "x.safetensors")
    assert list(load_file(artifact.path)) == ["w.indices"]
    assert artifact.rows()[0].bytes == 4
    assert artifact.tensor("w").tobytes() == tensor.dense().tobytes()


def test_layers_that_stayed_dense_are_stored_whole(checkpoint_of: Build, tmp_path: Path) -> None:
    pruned = make_tensor("fc.weight", weights((4, 8)), mask=nm_mask((4, 8), 2, 4), record={"structure": "2:4"})
    checkpoint = checkpoint_of(pruned, make_tensor("stem.weight", weights((4, 3, 3, 3))))
    artifact = export(checkpoint, "nm", tmp_path / "x.safetensors")
    assert [(row.codec, row.bytes) for row in artifact.rows()] == [("2:4", 68), ("dense", 432)]


def refused(checkpoint: SparseCheckpoint, path: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        export(checkpoint, "nm", path)
    assert not path.exists()
    return str(caught.value)


def test_other_masks_are_refused_with_the_reason(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    dense = weights((4, 8))
    element = make_tensor("w", dense, mask=dense > 0)
    assert "the mask of tensor 'w' has the structure 'element'. Use 'packed' or 'csr'" in refused(
        checkpoint_of(element), path
    )
    channel = make_tensor("w", dense, mask=dense > 0, record={"structure": "channel"})
    assert "has the structure 'channel'" in refused(checkpoint_of(channel), path)
    broken = make_tensor("w", dense, mask=dense > 0, record={"structure": "2:4"})
    assert "does not keep 2 weights in every 4" in refused(checkpoint_of(broken), path)
    frozen = make_tensor(
        "w", dense, mask=nm_mask((4, 8), 2, 4), record={"structure": "2:4", "parametrisation": "frozen"}
    )
    assert "tensor 'w' is frozen there at its initial values" in refused(checkpoint_of(frozen), path)
    assert "this checkpoint has no mask" in refused(checkpoint_of(make_tensor("w", dense)), path)
    odd = make_tensor("w", weights((2, 6)), mask=np.ones((2, 6), np.bool_), record={"structure": "2:4"})
    assert "of shape (2, 6) has no blocks of 2:4" in refused(checkpoint_of(odd), path)


def test_places_that_do_not_rise_are_refused(
    checkpoint_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = make_tensor("w", weights((1, 4)), mask=nm_mask((1, 4), 2, 4), record={"structure": "2:4"})
    artifact = export(checkpoint_of(tensor), "nm", tmp_path / "x.safetensors")
    assert isinstance(artifact, NmArtifact)
    original = artifact.file.read
    for forged, text in [(0b01_10, "do not rise"), (0b0101, "do not rise"), (0b1_0100, "behind the end")]:
        byte = np.array([forged], np.uint8)
        with monkeypatch.context() as patch:
            patch.setattr(artifact.file, "read", lambda name, b=byte: b if name == "w.indices" else original(name))
            with pytest.raises(FileFormatError, match=text):
                artifact.tensor("w")


@pytest.mark.parametrize(("m", "width"), [(2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (16, 4), (17, 5)])
def test_a_place_takes_the_logarithm_of_m(m: int, width: int) -> None:
    assert index_width(m) == width == math.ceil(math.log2(m))
    assert NofM(1, m).m == m


def test_semi_structured_tensors_need_a_2_4_matrix_and_a_device(checkpoint_of: Build, tmp_path: Path) -> None:
    def opened(name: str, shape: tuple[int, ...], n: int, m: int, axis: int = 0) -> NmArtifact:
        record = {"structure": f"{n}:{m}", "output_axis": axis}
        tensor = make_tensor("w", weights(shape), mask=nm_mask(shape, n, m, axis), record=record)
        artifact = export(checkpoint_of(tensor), "nm", tmp_path / name)
        assert isinstance(artifact, NmArtifact)
        return artifact

    fits = opened("fits", (64, 128), 2, 4)
    for other in (
        opened("1-4", (64, 128), 1, 4),
        opened("axis", (64, 128), 2, 4, 1),
        opened("conv", (4, 4, 2, 2), 2, 4),
    ):
        with pytest.raises(UnsupportedError, match="'w' is no 2:4 matrix"):
            other.to_semi_structured("w")
    with pytest.raises(UnsupportedError, match=r"shape \(32, 96\) does not divide into tiles of \(32, 64\)"):
        opened("odd", (32, 96), 2, 4).to_semi_structured("w")
    with pytest.raises(UnknownNameError, match=r"unknown type of a semi-structured tensor"):
        fits.to_semi_structured("w", "float32")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnavailableError, match="live on a CUDA device, and there is none"):
            fits.to_semi_structured("w")


@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor is in prototype stage")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="semi-structured tensors live on a CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_semi_structured_tensors_come_back(dtype: str, checkpoint_of: Build, tmp_path: Path) -> None:
    mask = nm_mask((64, 128), 2, 4)
    tensor = make_tensor("w", weights((64, 128)), mask=mask, record={"structure": "2:4"})
    artifact = export(checkpoint_of(tensor), "nm", tmp_path / "x.safetensors")
    assert isinstance(artifact, NmArtifact)
    back = from_semi_structured(artifact.to_semi_structured("w", dtype))
    expected = torch.from_numpy(tensor.dense()).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(back.astype(np.float32), expected)


def test_dense_tensors_take_the_same_way_back() -> None:
    half = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    np.testing.assert_array_equal(from_semi_structured(half.to_sparse()), half.numpy())
