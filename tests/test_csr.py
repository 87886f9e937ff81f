"""CSR artifacts: the arrays that scipy and torch take unchanged, orientation, seeds, malformed indices."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from sparsepack.cli import run
from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError, UnknownNameError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.csr import CsrArtifact, matrix_shape, write_csr
from sparsepack.files import Array
from sparsepack.models.seeding.initialisers import weight_bound
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.runtimes.report.listing import artifact_summary

Build = Callable[..., SparseCheckpoint]
CHAIN = [{"op": "linear", "weight": "fc.weight", "bias": None}]


def weights(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_golden_arrays(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.array([[0, 5, 0, 6], [0, 0, 0, 0], [7, 0, 0, 0]], np.float32)
    path = tmp_path / "x.safetensors"
    # A kept zero stays in the arrays.
    mask = dense != 0
    mask[2, 3] = True
    bias = np.arange(3, dtype=np.float32)
    export(checkpoint_of(make_tensor("fc.weight", dense, mask=mask), make_tensor("fc.bias", bias)), "csr", path)
    arrays = load_file(path)
    assert sorted(arrays) == ["fc.bias", "fc.weight.col_indices", "fc.weight.crow_indices", "fc.weight.values"]
    for name, expected in [("crow_indices", [0, 2, 2, 4]), ("col_indices", [1, 3, 0, 3])]:
        assert arrays[f"fc.weight.{name}"].dtype == np.int32
        assert arrays[f"fc.weight.{name}"].tolist() == expected
    assert arrays["fc.weight.values"].tolist() == [5, 6, 7, 0]
    np.testing.assert_array_equal(arrays["fc.bias"], bias)


@pytest.mark.parametrize(
    ("shape", "rows"), [((30, 50), (30, 50)), ((8, 4, 3, 3), (8, 36)), ((7,), (7, 1)), ((), (1, 1))]
)
def test_scipy_and_torch_take_the_arrays_unchanged(
    shape: tuple[int, ...], rows: tuple[int, int], checkpoint_of: Build, tmp_path: Path
) -> None:
    dense = weights(shape)
    mask = np.asarray(np.abs(dense) > 1)
    path = tmp_path / "x.safetensors"
    export(checkpoint_of(make_tensor("w", dense, mask=mask)), "csr", path)
    expected = np.where(mask, dense, 0).reshape(rows)

    arrays = load_file(path)
    parts = (arrays["w.values"], arrays["w.col_indices"], arrays["w.crow_indices"])
    matrix = scipy.sparse.csr_matrix(parts, shape=rows)
    assert matrix.has_canonical_format
    assert matrix.indices.dtype == np.int32
    np.testing.assert_array_equal(matrix.toarray(), expected)

    tensors = load_torch(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        sparse = torch.sparse_csr_tensor(
            tensors["w.crow_indices"], tensors["w.col_indices"], tensors["w.values"], rows, check_invariants=True
        )
    assert sparse.col_indices().dtype == torch.int32
    np.testing.assert_array_equal(sparse.to_dense().numpy(), expected)


def test_rows_are_output_units_whatever_the_axis(checkpoint_of: Build, tmp_path: Path) -> None:
    """An ONNX MatMul's [K, N] is stored transposed and comes back as it was."""
    dense = weights((5, 3))
    mask = np.abs(dense) > 0.6
    path = tmp_path / "x.safetensors"
    tensor = make_tensor("w", dense, mask=mask, record={"output_axis": 1})
    artifact = export(checkpoint_of(tensor), "csr", path)
    arrays = load_file(path)
    assert arrays["w.crow_indices"].shape == (4,)
    parts = (arrays["w.values"], arrays["w.col_indices"], arrays["w.crow_indices"])
    np.testing.assert_array_equal(scipy.sparse.csr_matrix(parts, shape=(3, 5)).toarray(), tensor.dense().T)
    np.testing.assert_array_equal(artifact.tensor("w"), tensor.dense())
    assert matrix_shape((5, 3), 1) == (3, 5)


def seeded(shape: tuple[int, ...], parametrisation: str) -> dict[str, object]:
    seed = SeedRecord("keyed-product", 3, "fc.weight", "uniform", weight_bound("uniform", shape[1], 0))
    return {"parametrisation": parametrisation, "seed": seed} if parametrisation != "identity" else {}


def test_frozen_and_selected_tensors_store_no_seeded_value(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = weights((40, 60))
    mask = np.abs(dense) > 1
    artifacts, names = {}, {}
    for parametrisation in ("identity", "frozen", "selected"):
        tensor = make_tensor("fc.weight", dense, mask=mask, record=seeded((40, 60), parametrisation))
        path = tmp_path / f"{parametrisation}.safetensors"
        artifacts[parametrisation] = export(checkpoint_of(tensor), "csr", path)
        names[parametrisation] = sorted(load_file(path))
        assert artifacts[parametrisation].tensor("fc.weight").tobytes() == tensor.dense().tobytes()
    assert names["frozen"] == names["identity"]
    assert names["selected"] == ["fc.weight.col_indices", "fc.weight.crow_indices"]
    assert 0 < artifacts["frozen"].size - artifacts["identity"].size <= 64
    pruned, selected = artifacts["identity"], artifacts["selected"]
    assert sum(r.bytes for r in pruned.rows()) - sum(r.bytes for r in selected.rows()) == 4 * mask.sum()
    assert isinstance(selected, CsrArtifact)
    matrix = selected.csr("fc.weight")
    np.testing.assert_array_equal(
        scipy.sparse.csr_matrix((matrix.values, matrix.col_indices, matrix.crow_indices), matrix.shape).toarray(),
        selected.tensor("fc.weight"),
    )


def test_sizes_are_exact_and_the_chain_travels_along(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = weights((40, 60))
    mask = np.abs(dense) > 1
    tied = make_tensor("tied", dense, record={"alias_of": "fc.weight"})
    checkpoint = checkpoint_of(make_tensor("fc.weight", dense, mask=mask), tied, chain=CHAIN)
    artifact = export(checkpoint, "csr", tmp_path / "x.safetensors")
    nnz = int(mask.sum())
    assert [(row.nnz, row.bytes, row.codec) for row in artifact.rows()] == [
        (nnz, 8 * nnz + 4 * 41, "csr"),
        (0, 0, "alias of fc.weight"),
    ]
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    assert artifact.chain == CHAIN
    assert isinstance(artifact, CsrArtifact)
    assert artifact.csr("tied").values.size == nnz
    with pytest.raises(FileFormatError, match="holds no tensor 'x'"):
        artifact.csr("x")


def test_half_precision_values_are_stored_in_half_the_bytes(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = weights((40, 60))
    tensor = make_tensor("w", dense, mask=dense > 1)
    artifact = export(checkpoint_of(tensor), "csr", tmp_path / "x.safetensors", values="fp16")
    assert load_file(artifact.path)["w.values"].dtype == np.float16
    expected = tensor.dense().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(artifact.tensor("w"), expected)
    assert artifact.tensor("w").dtype == np.float32


def test_arrays_that_would_share_a_name_are_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    dense = weights((4, 4))
    clash = checkpoint_of(make_tensor("w", dense, mask=dense > 0), make_tensor("w.values", dense))
    with pytest.raises(UnsupportedError, match=r"both be named 'w\.values'"):
        export(clash, "csr", tmp_path / "x.safetensors")


def test_a_tensor_without_a_mask_has_no_matrix(checkpoint_of: Build, tmp_path: Path) -> None:
    artifact = export(checkpoint_of(make_tensor("b", weights((4,)))), "csr", tmp_path / "x.safetensors")
    assert isinstance(artifact, CsrArtifact)
    with pytest.raises(FileFormatError, match="'b' has no mask; it is stored whole"):
        artifact.csr("b")


@pytest.mark.parametrize(
    ("array", "values", "text"),
    [
        ("crow_indices", [0, 2, 1, 4], "row pointers do not rise"),
        ("crow_indices", [1, 2, 2, 4], "row pointers do not rise"),
        ("crow_indices", [0, 2, 2, 3], "row pointers do not rise"),
        ("col_indices", [3, 1, 0, 2], "do not rise within a row"),
        ("col_indices", [1, 1, 0, 2], "do not rise within a row"),
        ("col_indices", [1, 4, 0, 2], "outside 0 to 3"),
        ("col_indices", [-1, 3, 0, 2], "outside 0 to 3"),
    ],
)
def test_indices_that_are_no_csr_are_refused(
    array: str, values: list[int], text: str, checkpoint_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = np.array([[0, 5, 0, 6], [0, 0, 0, 0], [7, 0, 8, 0]], np.float32)
    artifact = export(checkpoint_of(make_tensor("w", dense, mask=dense != 0)), "csr", tmp_path / "x.safetensors")
    assert isinstance(artifact, CsrArtifact)
    original = artifact.file.read
    forged = np.array(values, np.int32)
    monkeypatch.setattr(artifact.file, "read", lambda name: forged if name == f"w.{array}" else original(name))
    with pytest.raises(FileFormatError, match=f"tensor 'w' is corrupt: .*{text}"):
        artifact.tensor("w")


def test_the_file_opens_again_by_content(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    export(checkpoint_of(make_tensor("w", weights((4, 4)))), "csr", path)
    assert open_artifact(path).format == "csr"


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("index_dtype", ["int32", "int64", "uint16"])
def test_indices_are_what_the_consumer_asks_for(index_dtype: str, checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.random.default_rng(3).normal(size=(40, 60)).astype(np.float32)
    tensor = make_tensor("w", dense, mask=dense > 1)
    path = tmp_path / "x.safetensors"
    write_csr(checkpoint_of(tensor), path, index_dtype=index_dtype)
    artifact = open_artifact(path)
    artifact.verify()
    assert sum(row.bytes for row in artifact.rows()) + artifact.overhead()["header"] == artifact.size
    arrays = load_file(path)
    crow, col, values = (arrays[f"w.{name}"] for name in ("crow_indices", "col_indices", "values"))
    assert col.dtype == index_dtype
    assert crow.dtype == ("int64" if index_dtype == "int64" else "int32")
    np.testing.assert_array_equal(
        scipy.sparse.csr_matrix((values, col, crow), shape=(40, 60)).toarray(), tensor.dense()
    )
    if index_dtype != "uint16":
        # PyTorch takes both index arrays of one signed type, and no other.
        rows, columns, kept = (torch.from_numpy(array) for array in (crow, col, values))
        weight = torch.sparse_csr_tensor(rows, columns, kept, (40, 60), check_invariants=True)
        np.testing.assert_array_equal(weight.to_dense().numpy(), tensor.dense())


def test_indices_that_cannot_be_are_refused(
    checkpoint_of: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = np.ones((1, 2**16 + 1), np.float32)
    checkpoint = checkpoint_of(make_tensor("w", wide, mask=wide > 0))
    path = tmp_path / "x.safetensors"
    with pytest.raises(UnsupportedError, match=r"65537 columns .* uint16 indices; give --index-dtype int32"):
        write_csr(checkpoint, path, index_dtype="uint16")
    with pytest.raises(UnknownNameError, match=r"unknown index type 'int31'\. Did you mean 'int32'"):
        write_csr(checkpoint, path, index_dtype="int31")
    assert not path.exists()
    checkpoint.save(tmp_path / "checkpoint.safetensors")
    base = ["export", str(tmp_path), "-o", str(path), "--index-dtype", "int64", "--to"]
    assert run([*base, "packed"]) == 2
    assert "--index-dtype goes with --to csr" in capsys.readouterr().err
    assert run([*base, "csr"]) == 0
    assert load_file(path)["w.col_indices"].dtype == np.int64


def test_an_export_says_whether_it_is_smaller_or_larger(checkpoint_of: Build, tmp_path: Path) -> None:
    half, double = np.ones((8, 8), np.float16), np.ones((80, 80))
    grown = make_tensor("w", half, mask=np.ones((8, 8), np.bool_))
    shrunk = make_tensor("w", double, mask=np.eye(80, dtype=np.bool_))
    said = []
    for name, tensors in (("grown", [grown]), ("shrunk", [shrunk]), ("nothing", [])):
        path = tmp_path / name
        export(checkpoint_of(*tensors), "csr", path)
        said.append((artifact_summary(open_artifact(path)), path.stat().st_size))
    assert said[0][0].endswith(f", {said[0][1] / half.nbytes:.2f}x larger than its dense values.")
    assert said[1][0].endswith(f", {double.nbytes / said[1][1]:.2f}x smaller than its dense values.")
    assert said[2][0].endswith(" B.")
