"""Values told from what their seed drew: a stream by hand, round trips, when it is chosen, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.artifact import Artifact, TensorRow
from sparsepack.exporters.bound import part_bound
from sparsepack.exporters.codecs import bits
from sparsepack.exporters.codecs.drift import decode_drift, encode_drift
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import SeedRecord

Build = Callable[..., SparseCheckpoint]
SEED = SeedRecord("philox4x32-10", 3, "fc.weight", "uniform", 0.125)


def stored(data: bytes) -> bytes:
    """A raw deflate stream with one stored block: bytes that can be written down by hand."""
    return b"\x01" + len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little") + data


# 1.0 moves up by one unit: length 1, class 1 + 31. 0.25, two exponents lower, moves down by five: length 3, class
# 3 + 31 - 2, and 5 = 0b101 has 01 below its highest bit: symbol 0b010. Both tails are signs alone: 0, then 1.
DRAWN = np.array([1.0, 0.25], np.float32)
MOVED = np.array([0x3F800001, 0x3E7FFFFB], np.uint32).view(np.float32)
STREAM = b"\x20" + stored(b"\x00\x02") + b"\x02"


def test_the_hand_made_stream_decodes() -> None:
    np.testing.assert_array_equal(decode_drift(STREAM, DRAWN), MOVED)
    np.testing.assert_array_equal(decode_drift(encode_drift(MOVED, DRAWN), DRAWN), MOVED)


@given(st.sampled_from(["float32", "float16", "bfloat16"]), st.integers(0, 2**32), st.integers(0, 32))
def test_any_bits_beside_any_others_round_trip(dtype: str, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    kind = numpy_dtype(dtype)
    unsigned = np.dtype(f"<u{kind.itemsize}")
    drawn = rng.integers(0, 1 << 8 * kind.itemsize, 50, np.uint64).astype(unsigned)
    # From equal values over the next ones to anything at all, NaN payloads and -0.0 among them.
    moved = drawn ^ rng.integers(0, (1 << min(width, 8 * kind.itemsize)) or 1, 50, np.uint64).astype(unsigned)
    stream = encode_drift(moved.view(kind), drawn.view(kind))
    assert decode_drift(stream, drawn.view(kind)).tobytes() == moved.tobytes()


def test_long_rows_are_coded_in_sections() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random(2**17 + 5).astype(np.float32)
    values = drawn + rng.normal(0, 1e-4, drawn.size).astype(np.float32)
    assert decode_drift(encode_drift(values, drawn), drawn).tobytes() == values.tobytes()


def test_a_move_costs_the_bits_of_its_own_size() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(1, 2, 50_000).astype(np.float32)
    for sigma in (1e-5, 1e-3):
        values = drawn + rng.normal(0, sigma, drawn.size).astype(np.float32)
        # Differential entropy of a normal number, in units of 2**-23.
        ideal = np.log2(sigma * 2**23 * np.sqrt(2 * np.pi * np.e)) * drawn.size / 8
        assert ideal < len(encode_drift(values, drawn)) < 1.02 * ideal


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2**30)), max_size=80))
def test_numbers_of_varied_widths_round_trip(pairs: list[tuple[int, int]]) -> None:
    widths = np.array([width for width, _ in pairs], np.int64)
    numbers = np.array([number & ((1 << width) - 1) for width, number in pairs], np.int64)
    stream = bits.pack_varied(numbers, widths)
    joined = sum(int(number) << int(begin) for number, begin in zip(numbers, np.cumsum(widths) - widths, strict=True))
    assert stream == joined.to_bytes((int(widths.sum()) + 7) // 8, "little")
    np.testing.assert_array_equal(bits.unpack_varied(stream, widths), numbers)


def trained(shape: tuple[int, ...], sigma: float) -> Array:
    values = rebuild(SEED, shape) + np.random.default_rng(0).normal(0, sigma, shape).astype(np.float32)
    return values.astype(np.float32)


@pytest.mark.parametrize("parametrisation", ["identity", "frozen"])
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_trained_tensors_are_told_from_their_seed(
    parametrisation: str, density: float, checkpoint_of: Build, tmp_path: Path
) -> None:
    weight = trained((80, 50), 1e-4)
    mask = np.random.default_rng(1).random(weight.shape) < density
    record = {"seed": SEED, "role": "prunable", "parametrisation": parametrisation}
    checkpoint = checkpoint_of(make_tensor("fc.weight", weight, mask=mask, record=record))
    (row,), artifact = written(checkpoint, tmp_path)
    assert row.codec.endswith("drift")
    assert row.bytes < 0.85 * part_bound(mask, weight[mask])
    assert artifact.tensor("fc.weight").tobytes() == checkpoint.tensors["fc.weight"].dense().tobytes()


def test_whole_tensors_are_told_from_their_seed_whatever_its_exceptions(checkpoint_of: Build, tmp_path: Path) -> None:
    other = SeedRecord("keyed-product", 9, "other", "uniform", 0.02)
    moved = rebuild(other, (400,)) + np.float32(1e-5)
    tensors = [
        make_tensor("fc.weight", trained((70, 30), 1e-4), record={"seed": SEED}),
        make_tensor("fc.bias", moved, record={"seed": other}),
    ]
    rows, artifact = written(checkpoint_of(*tensors), tmp_path)
    assert [row.codec for row in rows] == ["drift", "drift"]
    for tensor in tensors:
        assert artifact.tensor(tensor.record.name).tobytes() == tensor.dense().tobytes()


@pytest.mark.parametrize("values", ["fp16", "bf16", "int8", "codebook:3"])
def test_rounded_values_decode_to_the_rounded_tensor(values: str, checkpoint_of: Build, tmp_path: Path) -> None:
    for sigma in (1e-7, 1e-3):
        weight = trained((80, 50), sigma)
        mask = np.random.default_rng(1).random(weight.shape) < 0.3
        masked = make_tensor("fc.weight", weight, mask=mask, record={"seed": SEED, "role": "prunable"})
        bias = make_tensor("fc.bias", trained((3000,), sigma), record={"seed": SEED})
        path = tmp_path / f"{sigma}.spk"
        export(checkpoint_of(masked, bias), "packed", path, values=values)
        artifact = open_artifact(path)
        artifact.verify()
        largest = max(row.max_abs_error or 0.0 for row in artifact.rows())
        for tensor in (masked, bias):
            assert np.abs(artifact.tensor(tensor.record.name) - tensor.dense()).max() <= largest


def test_values_that_left_their_seed_behind_are_not(checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = make_tensor("fc.weight", trained((80, 50), 1.0), record={"seed": SEED})
    (row,), _ = written(checkpoint_of(tensor), tmp_path)
    assert row.codec in ("magnitudes", "floats")


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"", "ends early"),
        (STREAM + b"\x00", "follow the end"),
        (STREAM[:-1], "take 1 bytes, not 0"),
        (STREAM[:-1] + b"\x06", "bits are set behind the end"),
        (b"\x20" + stored(b"\x00") + b"\x02", "1 symbols for 2"),
        (b"\x20" + stored(bytes(3)) + b"\x02", "more than the 2 bytes"),
        (b"\x20" + stored(b"\x00\xff") + b"\x01\x00", "ends early"),
        # a length of -1, one of 33, and a symbol with a bit below its top ones
        (b"\x1c" + stored(bytes(2)), "that its type does not have"),
        (b"\x40" + stored(bytes(2)), "that its type does not have"),
        (b"\x20" + stored(b"\x01\x02") + b"\x02", "that its type does not have"),
        (b"\x20" + stored(b"\x00\xff") + b"\xff\xff\xff\xff" + b"\x02", "leaves its type"),
    ],
)
def test_malformed_streams_are_refused(stream: bytes, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        decode_drift(stream, DRAWN)


def written(checkpoint: SparseCheckpoint, folder: Path) -> tuple[list[TensorRow], Artifact]:
    export(checkpoint, "packed", folder / "x.spk")
    artifact = open_artifact(folder / "x.spk")
    artifact.verify()
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    return artifact.rows(), artifact
