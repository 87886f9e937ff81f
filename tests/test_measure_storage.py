"""Storage to the byte: rows and overhead against the file, the zipped size against zstd itself, ratios by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import zstandard
from checkpoints import assembled
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    SparseTensor,
    make_tensor,
)
from sparsepack.errors import FileFormatError
from sparsepack.exporters import EXPORTERS, export
from sparsepack.files import Array
from sparsepack.models.source import InputSpec, ModelRecord
from sparsepack.runtimes.measure import storage as storage_module
from sparsepack.runtimes.measure import zipped
from sparsepack.runtimes.measure.storage import storage
from sparsepack.runtimes.measure.subject import Subject
from sparsepack.runtimes.measure.zipped import cache_folder, distinct, zipped_dense_bytes

SHAPES = {"fc1.weight": (40, 32), "fc2.weight": (8, 40)}


def checkpoint(structure: str = "element") -> SparseCheckpoint:
    """Return a two-layer network: a quarter (half under 2:4) of the weights kept, biases, a buffer, a tied weight."""
    generator = np.random.default_rng(0)
    tensors: dict[str, SparseTensor] = {}
    for name, shape in SHAPES.items():
        dense = generator.standard_normal(shape).astype(np.float32)
        if structure == "2:4":
            mask = np.tile([True, False, True, False], shape[0] * shape[1] // 4).reshape(shape)
        else:
            order = generator.permutation(shape[0] * shape[1])
            mask = (order < order.size // 4).reshape(shape)
        tensors[name] = make_tensor(name, dense, mask=mask, record={"role": "prunable", "structure": structure})
    tensors["fc2.bias"] = make_tensor("fc2.bias", np.arange(8, dtype=np.float32))
    tensors["steps"] = make_tensor("steps", np.array(7, np.int64), record={"role": "buffer"})
    tied = msgspec.structs.replace(
        tensors["fc2.weight"].record, name="tied.weight", alias_of="fc2.weight", masked=False
    )
    tensors["tied.weight"] = SparseTensor(tied, None, None)
    return assembled(*tensors.values(), model=ModelRecord("factory", "net.py:build", [InputSpec("x", (32,))]))


def subject(tmp_path: Path, format_name: str, *, values: str = "fp32", known: bool = False) -> Subject:
    saved = checkpoint("2:4" if format_name == "nm" else "element")
    path = tmp_path / f"a{EXPORTERS[format_name].suffix}"
    export(saved, format_name, path, values=values)
    file = tmp_path / "checkpoint.safetensors"
    saved.save(file)
    return Subject(path, "a", threads=1, checkpoint=file if known else None)


@pytest.mark.parametrize("values", ["fp32", "fp16"])
@pytest.mark.parametrize("format_name", ["packed", "csr", "nm"])
def test_every_byte_is_accounted_for(tmp_path: Path, format_name: str, values: str) -> None:
    found = storage(subject(tmp_path, format_name, values=values))
    overhead = found.overhead_bytes
    rows = sum(row.bytes for row in found.tensors)
    assert rows + overhead.header + overhead.graph + overhead.other == found.bytes
    assert found.bytes == next(tmp_path.glob("a.*")).stat().st_size
    # By hand: two weights, one bias, one int64; the tied name takes nothing.
    assert found.dense_bytes == 4 * (40 * 32 + 8 * 40 + 8) + 8
    assert found.total == 40 * 32 + 8 * 40
    assert found.nonzero == found.total // (2 if format_name == "nm" else 4)
    assert found.sparsity == (0.5 if format_name == "nm" else 0.75)
    assert found.size_ratio == found.dense_bytes / found.bytes
    assert found.size_ratio_zipped == found.zipped_dense_bytes / found.bytes
    assert 0 < found.entropy_bound_bytes < found.bytes


def test_the_csr_rows_by_hand(tmp_path: Path) -> None:
    found = {row.name: row.bytes for row in storage(subject(tmp_path, "csr")).tensors}
    # int32 row pointers (rows + 1), int32 columns and float32 values for a quarter of the weights.
    assert found["fc1.weight"] == 4 * 41 + 8 * 320
    assert found["fc2.weight"] == 4 * 9 + 8 * 80
    assert found["fc2.bias"] == 32
    assert found["steps"] == 8
    assert found.get("tied.weight", 0) == 0


def test_rows_that_do_not_add_up_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = subject(tmp_path, "csr")
    monkeypatch.setattr(opened.artifact, "overhead", lambda: {"header": 1, "graph": 0, "other": 0})
    with pytest.raises(FileFormatError, match="bytes are accounted for"):
        storage(opened)


def test_the_zipped_size_is_that_of_the_checkpoint_even_for_rounded_values(tmp_path: Path) -> None:
    exact = zstandard.compress(b"".join(a.tobytes() for a in distinct(checkpoint().dense_state())), 19)
    assert storage(subject(tmp_path, "packed", values="fp16", known=True)).zipped_dense_bytes == len(exact)


def test_the_zipped_size_without_the_checkpoint_is_that_of_the_decoded_tensors(tmp_path: Path) -> None:
    opened = subject(tmp_path, "packed", values="fp16")
    decoded = zstandard.compress(b"".join(a.tobytes() for a in distinct(opened.artifact.tensors())), 19)
    assert storage(opened).zipped_dense_bytes == len(decoded)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=4), st.floats(0, 1))
def test_the_zipped_size_is_one_zstd_frame_of_all_dense_bytes(sizes: list[int], density: float) -> None:
    generator = np.random.default_rng(len(sizes))
    tensors: dict[str, Array] = {
        str(i): (generator.standard_normal(size) * (generator.random(size) < density)).astype(np.float32)
        for i, size in enumerate(sizes)
    }
    expected = len(zstandard.compress(b"".join(array.tobytes() for array in tensors.values()), 19))
    assert zipped._zip(list(tensors.values())) == expected


def test_the_zipped_size_is_close_to_zipping_the_safetensors_file(tmp_path: Path) -> None:
    tensors = {"a": np.random.default_rng(0).standard_normal(50_000).astype(np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    file = len(zstandard.compress((tmp_path / "a.safetensors").read_bytes(), 19))
    assert abs(zipped_dense_bytes(tensors, tmp_path) - file) < 200


def test_equal_tensors_are_zipped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"a": np.ones(1000, np.float32), "b": np.zeros(1000, np.float32)}
    size = zipped_dense_bytes(first, tmp_path)

    def refuse(arrays: list[Array]) -> int:
        raise AssertionError("zipped again")

    monkeypatch.setattr(zipped, "_zip", refuse)
    # Other names, other objects, the same bytes.
    assert zipped_dense_bytes({"x": first["a"].copy(), "y": first["b"].copy()}, tmp_path) == size
    with pytest.raises(AssertionError, match="zipped again"):
        zipped_dense_bytes({"a": first["b"], "b": first["a"]}, tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"level":3,"bytes":5}', b'{"level":19,"bytes":"many"}'])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    tensors = {"a": np.arange(1000, dtype=np.float32)}
    size = zipped_dense_bytes(tensors, tmp_path)
    (entry,) = (tmp_path / "zipped").iterdir()
    entry.write_bytes(damage)
    assert zipped_dense_bytes(tensors, tmp_path) == size
    assert b"19" in entry.read_bytes()


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert zipped_dense_bytes({"a": np.arange(100, dtype=np.float32)}, blocked) > 0


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SPARSEPACK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "sparsepack"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "sparsepack"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path_factory.mktemp("cache")))
    return storage_module
