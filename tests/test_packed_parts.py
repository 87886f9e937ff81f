"""What ``packed`` spends on parts: sizes against the papers' claims, to the byte; round trips; forged files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hostile.forge import join_container, join_packed, split_container, split_packed
from hostile.originals import bounded_memory, read_artifact
from hypothesis import given
from hypothesis import strategies as st
from parametrised import every_kind, handed, plain_bias, seed_for

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, handed_tensor, make_tensor
from sparsepack.compressor.parametrisations import Handover, PartSpec, masks, options, projection, signs
from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters import export
from sparsepack.exporters.artifact import Artifact, TensorRow
from sparsepack.exporters.bound import tensor_bound
from sparsepack.exporters.codecs.base import Layout
from sparsepack.exporters.codecs.parts import decode_part, encode_part
from sparsepack.exporters.packed_parts import encode_positions
from sparsepack.models.seeding.record import PHILOX

Build = Callable[..., SparseCheckpoint]
SHAPE = (100, 120)


def row_of(artifact: Artifact, name: str = "weight") -> TensorRow:
    return next(row for row in artifact.rows() if row.name == name)


def half_kept(density: float = 0.5) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.random.default_rng(0).random(SHAPE) < density


def position_bytes(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    return len(encode_positions(mask, Layout(mask.shape, "element", 0, int(mask.sum())))[1])


def tensor(handover: Handover, mask: Any = None, name: str = "weight") -> SparseTensor:
    fields = {"role": "prunable", "seed": seed_for(name, PHILOX)}
    return handed_tensor(name, SHAPE, "float32", handover, mask=mask, record=fields)


@pytest.mark.parametrize(
    ("parts", "bytes_of"),
    [("scale", lambda kept: 4), ("signs", lambda kept: -(-kept // 8)), ("scale signs", lambda kept: 4 + -(-kept // 8))],
)
def test_a_sign_takes_one_bit_a_kept_weight_or_nothing(
    parts: str, bytes_of: Callable[[int], int], checkpoint_of: Build, tmp_path: Path
) -> None:
    mask, negative = half_kept(0.1), np.random.default_rng(1).random(SHAPE) < 0.5
    made = signs.parts_of(mask, negative if "signs" in parts else None, np.float32(1) if "scale" in parts else None)
    artifact = export(checkpoint_of(tensor(Handover("signs", made), mask)), "packed", tmp_path / "x")
    row = row_of(artifact)
    assert row.bytes == position_bytes(mask) + bytes_of(int(mask.sum()))
    assert row.bound_bytes <= row.bytes
    assert row.nnz == int(mask.sum())


@pytest.mark.parametrize("count", [2, 3, 6, 8, 64, 256, 300])
def test_a_choice_takes_at_most_its_bits(count: int, checkpoint_of: Build, tmp_path: Path) -> None:
    choices = np.random.default_rng(2).integers(0, count, SHAPE)
    handover = Handover("options", options.parts_of(choices, count), count=count)
    made = tensor(handover)
    row = row_of(export(checkpoint_of(made), "packed", tmp_path / "x"))
    bits = math.ceil(math.log2(count))
    assert row.bytes <= -(-choices.size * bits // 8)
    assert row.bytes >= row.bound_bytes == pytest.approx(tensor_bound(made))
    # Even choices can hardly be coded shorter than their logarithm.
    assert row.bytes >= 0.99 * choices.size * math.log2(count) / 8


def test_choices_that_lean_to_one_side_are_entropy_coded(checkpoint_of: Build, tmp_path: Path) -> None:
    choices = (np.random.default_rng(3).random(SHAPE) < 0.05).astype(np.int64)
    handover = Handover("options", options.parts_of(choices, 8), count=8)
    row = row_of(export(checkpoint_of(tensor(handover)), "packed", tmp_path / "x"))
    assert row.codec == "choices codes"
    assert row.bytes < 0.45 * choices.size / 8
    assert row.bytes < 1.4 * row.bound_bytes


def test_each_task_costs_its_mask(checkpoint_of: Build, tmp_path: Path) -> None:
    drawn = [half_kept(density) for density in (0.5, 0.1, 0.02, 0.0, 1.0)]
    handover = Handover("masks", masks.parts_of(drawn), count=5, task=2)
    row = row_of(export(checkpoint_of(tensor(handover, drawn[2])), "packed", tmp_path / "x"))
    # A codec, a count and a length before each.
    alone = sum(position_bytes(mask) for mask in drawn)
    assert alone <= row.bytes <= alone + 5 * 6
    assert row.nnz == int(drawn[2].sum())


def test_coordinates_are_stored_once_for_the_network(checkpoint_of: Build, tmp_path: Path) -> None:
    coordinates = np.random.default_rng(4).normal(size=50).astype(np.float32)
    made = []
    for number in range(6):
        owner = None if number == 0 else "t0"
        handover = Handover("projection", projection.parts_of(coordinates), count=50, shares=owner)
        made.append(tensor(handover, name=f"t{number}"))
    artifact = export(checkpoint_of(*made), "packed", tmp_path / "x")
    assert [row.bytes for row in artifact.rows()] == [row_of(artifact, "t0").bytes, 0, 0, 0, 0, 0]
    assert row_of(artifact, "t0").bytes <= 4 * 50
    assert artifact.size < 4 * 50 + 700
    for one in made:
        assert artifact.tensor(one.record.name).tobytes() == one.dense().tobytes()
    assert row_of(artifact, "t3").codec == "coordinates shared"


def test_lossy_values_leave_parts_as_they_are(checkpoint_of: Build, tmp_path: Path) -> None:
    made = [handed(kind, name=kind) for kind in ("signs", "options", "basis", "offset", "projection")]
    dense = make_tensor("dense", np.random.default_rng(5).normal(size=(30, 40)).astype(np.float32))
    for values in ("fp16", "int8", "codebook:4"):
        artifact = export(checkpoint_of(*made, dense), "packed", tmp_path / values.replace(":", ""), values=values)
        artifact.verify()
        for one in made:
            assert artifact.tensor(one.record.name).tobytes() == one.dense().tobytes()


def test_a_network_that_no_reader_would_believe_is_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    """A projection of 600 MB in a few bytes: the writer says so, and leaves nothing behind."""
    shape = (1, 150_000_000)
    record = handed("projection", (4,)).record
    coordinates = np.ones(5, np.float32)
    huge = SparseTensor(msgspec.structs.replace(record, shape=shape), None, None, {"coordinates": coordinates})
    with pytest.raises(UnsupportedError, match="so few that no reader would believe them"):
        export(checkpoint_of(huge), "packed", tmp_path / "x")
    assert not list(tmp_path.iterdir())


@given(
    st.sampled_from(["signs", "choices", "masks", "scale", "basis", "coordinates"]),
    st.integers(1, 300),
    st.integers(2, 600),
    st.integers(0, 2**32 - 1),
)
def test_parts_come_back_bit_for_bit(name: str, size: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout = Layout((size,), "element", 0, 0)
    tasks = count % 4 + 1
    array, spec = {
        "signs": (rng.integers(0, 256, size).astype(np.uint8), PartSpec("uint8", (size,))),
        "choices": (
            rng.integers(0, count, size).astype("uint8" if count <= 256 else "uint16"),
            PartSpec("uint8" if count <= 256 else "uint16", (size,)),
        ),
        "masks": (
            np.stack([np.packbits(rng.random(size) < 0.3, bitorder="little") for _ in range(tasks)]),
            PartSpec("uint8", (tasks, -(-size // 8))),
        ),
        "scale": (rng.normal(size=1).astype(np.float16), PartSpec("float16", (1,))),
        "basis": (rng.normal(size=(4, 4)).astype(np.float32), PartSpec("float32", (4, 4))),
        "coordinates": (rng.normal(size=size).astype(np.float32), PartSpec("float32", (size,))),
    }[name]
    codec, stream = encode_part(name, array, count, layout)
    found = decode_part(name, codec, stream, spec, count, layout)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array.reshape(spec.shape))
    with pytest.raises(FileFormatError):
        decode_part(name, codec, stream + b"\0", spec, count, layout)
    with pytest.raises(FileFormatError):
        decode_part(name, "zstd", stream, spec, count, layout)


def entry_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in manifest["tensors"] if entry["name"] == name)


FORGERIES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a part of another kind": ("signs", lambda e: e.update(parts={"choices": e["parts"]["signs"]}), "cannot store"),
    "no parts": ("signs", lambda e: e.pop("parts"), "cannot store the parts"),
    "an unknown codec": ("signs", lambda e: e["parts"]["signs"].__setitem__(0, "zstd"), "unknown codec 'zstd'"),
    "a negative stream": ("signs", lambda e: e["parts"]["signs"].__setitem__(1, -3), "negative length"),
    "a longer stream": ("signs", lambda e: e["parts"]["signs"].__setitem__(1, 2**40), "its streams take"),
    "shared by itself": ("basis", lambda e: e.update(shares="basis"), "shares a part with 'basis'"),
    "shared with nobody": ("shares", lambda e: e.update(shares="nobody"), "shares a part with 'nobody'"),
    "shared with another kind": ("shares", lambda e: e.update(shares="signs"), "shares a part with 'signs'"),
    "shared, yet stored": ("shares", lambda e: e.pop("shares"), "unknown codec 'shared'"),
    "signs shared": ("signs", lambda e: e.update(shares="signs-both"), "nothing to share"),
    "a basis of another size": ("shares", lambda e: e.update(shape=[2, 3, 4, 3]), "corrupt"),
    "fewer candidates": ("options", lambda e: e.update(count=5), "chooses candidate 5, and there are 5"),
    "more candidates": ("options", lambda e: e.update(count=600), "corrupt"),
    "impossible candidates": ("options", lambda e: e.update(count=2**40), "candidates a weight"),
    "a million tasks": ("masks", lambda e: e.update(count=10**6), "has masks for 1000000 tasks"),
    "a task more": ("masks", lambda e: e.update(count=4), "corrupt"),
    "another task": ("masks", lambda e: e.update(task=2), "keeps"),
    "coordinates of terabytes": ("projection", lambda e: e.update(count=2**40), "cannot hold the"),
    "a tensor of petabytes": ("projection", lambda e: e.update(shape=[2**24, 2**26]), "cannot hold the"),
    "a projection with values": ("projection", lambda e: e.update(values=["raw", 0]), "values that it does not need"),
    "an offset without values": ("offset", lambda e: e.pop("values"), "values that it does not need, or none"),
    "an offset without positions": ("offset", lambda e: e.pop("positions"), "positions without a mask"),
    "masks beside positions": ("masks", lambda e: e.update(positions=["all", 0]), "positions without a mask"),
    "counts of an ordinary tensor": ("bias", lambda e: e.update(count=3), "parts of another kind"),
    "a kept count": ("masks", lambda e: e.update(kept=47), "keeps"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_parts_are_refused(forgery: str, packed_parts: bytes, tmp_path: Path) -> None:
    name, change, text = FORGERIES[forgery]
    manifest, rest = split_packed(packed_parts)
    change(entry_of(manifest, name))
    (tmp_path / "x").write_bytes(join_packed(manifest, rest))
    with bounded_memory(), pytest.raises(FileFormatError) as caught:
        read_artifact(tmp_path / "x")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def packed_parts(tmp_path_factory: pytest.TempPathFactory, checkpoint_of: Build) -> bytes:
    path = tmp_path_factory.mktemp("parts") / "x"
    export(checkpoint_of(*every_kind(), plain_bias()), "packed", path)
    return path.read_bytes()


@pytest.mark.parametrize("format", ["csr", "nm"])
def test_other_containers_refuse_entries_with_parts(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    """A forged csr file whose manifest names signs: no reader but packed's knows where they would lie."""
    mask = np.tile([True, False, False, True], 8).reshape(4, 8)
    weight = make_tensor("w", np.ones((4, 8), np.float32), mask=mask, record={"structure": "2:4"})
    export(checkpoint_of(weight, plain_bias()), format, tmp_path / "x")
    header, body = split_container((tmp_path / "x").read_bytes())
    entry_of(header["__metadata__"]["manifest"], "w")["parametrisation"] = "signs"
    (tmp_path / "y").write_bytes(join_container(header, body))
    with pytest.raises(FileFormatError, match="unknown parametrisation 'signs'"):
        read_artifact(tmp_path / "y")
