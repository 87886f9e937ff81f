"""Lossy values: the quantisers against plain loops, their codecs bit for bit, files that say how far off they are."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given
from hypothesis import strategies as st

from sparsepack.cli import run
from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.errors import FileFormatError, UnknownNameError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.bound import entropy_bits
from sparsepack.exporters.codecs.coded import CODED, POOLED, decode_coded, encode_coded
from sparsepack.exporters.csr import CsrArtifact
from sparsepack.exporters.packed import PackedArtifact
from sparsepack.exporters.parts import part_of
from sparsepack.exporters.quantise import Coded, codebook, encode_codebook, quantise_int8
from sparsepack.exporters.value_types import CODEBOOKS, ValueType, parse_values
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.runtimes.verify import verify

Build = Callable[..., SparseCheckpoint]
FLOATS = ["float32", "float16", "bfloat16", "float64"]
LOSSY = ["fp16", "bf16", "int8", "codebook:1", "codebook:4", "codebook:8"]
ALL = ("fp32", "fp16", "bf16", "int8", CODEBOOKS)


def weight(name: str, shape: tuple[int, ...], sparsity: float, seed: int = 0, dtype: str = "float32") -> SparseTensor:
    dense: Array = np.random.default_rng(seed).normal(size=shape).astype(numpy_dtype(dtype))
    mask = np.abs(dense.astype(np.float64)) >= np.quantile(np.abs(dense.astype(np.float64)), sparsity)
    return make_tensor(name, dense, mask=mask, record={"role": "prunable"})


def test_value_types_are_read_in_one_place() -> None:
    assert parse_values("codebook:5", ALL) == ValueType("codebook", 5)
    assert [parse_values(text, ALL).lossless for text in ("fp32", "fp16", "int8")] == [True, False, False]
    for wrong in ("codebook", "codebook:0", "codebook:9", "codebook:05", CODEBOOKS, "fp17", ""):
        with pytest.raises(UnknownNameError, match=r"codebook:BITS \(1 to 8\)"):
            parse_values(wrong, ALL)
    with pytest.raises(UnknownNameError, match=r"for 'csr' 'codebook:4'.*Choose from: fp32, fp16, bf16, int8"):
        parse_values("codebook:4", ALL[:4], "csr")


def plain_kmeans(values: list[float], centres: list[float]) -> list[float]:
    """K-means in one dimension, written as it is taught; centres without values are dropped at the end."""
    while True:
        members: list[list[float]] = [[] for _ in centres]
        for value in values:
            distances = [abs(value - centre) for centre in centres]
            members[distances.index(min(distances))].append(value)
        moved = [sum(m) / len(m) if m else c for m, c in zip(members, centres, strict=True)]
        if all(math.isclose(a, b, abs_tol=1e-15) for a, b in zip(moved, centres, strict=True)):
            return [c for c, m in zip(centres, members, strict=True) if m]
        centres = moved


@pytest.mark.parametrize(("bits", "seed"), list(itertools.product([1, 2, 3, 4], [0, 1])))
def test_a_codebook_is_k_means_begun_on_a_line(bits: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=400).astype(np.float32)
    values = values[np.abs(values) > 0.8]
    left, right = values[values < 0].astype(float), values[values > 0].astype(float)
    lengths = left.max() - left.min(), right.max() - right.min()
    along = [sum(lengths) * index / (2**bits - 1) for index in range(2**bits)]
    line = [left.min() + a if a <= lengths[0] else right.min() + a - lengths[0] for a in along]
    expected = plain_kmeans([float(v) for v in values], line)
    # Entries keep eleven bits.
    np.testing.assert_allclose(codebook(values, bits), expected, rtol=2**-11)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60), st.integers(1, 8))
def test_codes_are_the_nearest_entries(numbers: list[float], bits: int) -> None:
    values = np.array(numbers, np.float32)
    table = codebook(values, bits)
    assert 1 <= table.size <= 2**bits
    assert (np.diff(table.astype(np.float64)) > 0).all()
    coded = encode_codebook("w", values, table)
    distances = np.abs(values.astype(np.float64)[:, None] - table.astype(np.float64))
    np.testing.assert_array_equal(distances[np.arange(values.size), coded.codes], distances.min(axis=1))
    if np.unique(values).size <= 2**bits:
        np.testing.assert_array_equal(coded.decode(), values)
    # What was quantised once is quantised again without loss.
    again = coded.decode()
    np.testing.assert_array_equal(encode_codebook("w", again, codebook(again, bits)).decode(), again)


@example([4095.0], 1, 0)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), max_size=60), st.integers(1, 4), st.integers(0, 99))
def test_int8_is_within_half_a_step_of_its_unit(numbers: list[float], count: int, seed: int) -> None:
    values = np.array(numbers, np.float32)
    units = np.random.default_rng(seed).integers(0, count, values.size)
    coded = quantise_int8("w", values, units, count)
    assert coded.table.shape == (count,)
    steps = coded.table[units].astype(np.float64)
    errors = np.abs(coded.decode(units).astype(np.float64) - values.astype(np.float64))
    assert (errors <= 0.5 * steps * (1 + 1e-6)).all()
    for unit in range(count):
        largest = np.abs(values[units == unit]).max(initial=0.0) / 127
        # Scales keep eight bits, rounded up, or are those of which 126 steps meet every value; below the smallest
        # normal number nothing is left to scale.
        if largest > 1e-37:
            assert largest * (1 - 1e-6) <= coded.table[unit] <= largest * (127 / 126) * (1 + 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("values", ["int8", "codebook:4"])
def test_values_that_are_not_finite_have_no_code(bad: float, values: str, checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.array([[1.0, bad]], np.float32)
    tensor = make_tensor("fc.weight", dense, record={"role": "prunable"})
    with pytest.raises(UnsupportedError, match=r"'fc\.weight' holds values that are not finite"):
        export(checkpoint_of(tensor), "packed", tmp_path / "x.spk", values=values)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_the_range_of_a_scale_have_no_int8_code(checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = make_tensor("fc.weight", np.array([[1.0, 1e300]]), record={"role": "prunable"})
    with pytest.raises(UnsupportedError, match=r"'fc\.weight' holds values that are not finite"):
        export(checkpoint_of(tensor), "packed", tmp_path / "x.spk", values="int8")


def test_an_error_among_the_smallest_numbers_is_told_as_it_is(checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = make_tensor("fc.weight", np.array([[1.0, 5e-324]]), record={"role": "prunable"})
    artifact = export(checkpoint_of(tensor), "packed", tmp_path / "x.spk", values="fp16")
    assert [row.max_abs_error for row in artifact.rows()] == [5e-324]


@st.composite
def coded_rows(draw: st.DrawFn) -> tuple[Coded, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, units = draw(st.integers(1, 300)), draw(st.integers(1, 20))
    if draw(st.booleans()):
        scales = rng.random(units).astype(np.float32)
        return Coded("int8", rng.integers(-127, 128, count).astype(np.int8), scales), units
    dtype = numpy_dtype(draw(st.sampled_from(FLOATS)))
    table = np.sort(rng.normal(size=draw(st.integers(1, 256)))).astype(dtype)
    return Coded("codebook", rng.integers(0, table.size, count).astype(np.uint8), table, draw(st.booleans())), units


@given(coded_rows())
def test_coded_streams_round_trip(row: tuple[Coded, int]) -> None:
    coded, units = row
    for with_table in (True, False) if coded.pooled else (True,):
        codec, stream = encode_coded(coded, with_table=with_table)
        assert codec in CODED
        found = decode_coded(codec, stream, coded.codes.size, coded.table.dtype, units, coded.table)
        assert (found.kind, found.pooled) == (coded.kind, coded.pooled)
        assert found.codes.tobytes() == coded.codes.tobytes()
        assert found.codes.dtype == coded.codes.dtype
        assert found.table.tobytes() == coded.table.tobytes()


def test_a_stream_made_by_hand_decodes() -> None:
    # Raw table of two entries in eight bytes; codes 0 1 1 0 1, four two-bit fields a byte.
    table = np.array([-1.0, 2.0], np.float32)
    stream = bytes([0, 2, 8]) + table.tobytes() + bytes([4, 0b00010100, 0b01])
    found = decode_coded("codebook", stream, 5, np.dtype(np.float32), 1)
    np.testing.assert_array_equal(found.decode(), table[[0, 1, 1, 0, 1]])


@pytest.mark.parametrize(
    ("codec", "stream", "text"),
    [
        ("codebook", b"", "unknown codec"),
        ("codebook", bytes([3, 1, 4, 0, 0, 0, 0]), "unknown codec"),
        ("codebook", bytes([0, 128, 128]), "ends early"),
        ("codebook", bytes([0, 0x81, 2, 4]) + bytes(4), "257 values in 4 bytes does not fit"),
        ("codebook", bytes([0, 1, 5]) + bytes(4), "in 5 bytes does not fit"),
        ("codebook", bytes([0, 0, 1, 7, 1, 0, 0, 0, 0, 0]), "empty table has a stream"),
        ("codebook", bytes([0, 1, 4]) + bytes(4), "unknown packing"),
        ("codebook", bytes([0, 1, 4]) + bytes(4) + bytes([3, 0]), "unknown packing"),
        ("codebook", bytes([0, 1, 4]) + bytes(4) + bytes([1, 0, 0]), "5 codes take 5 bytes, not 2"),
        ("codebook", bytes([0, 1, 4]) + bytes(4) + bytes([1, 0, 0, 0, 0, 1]), "code of 1 is not in a table of 1"),
        ("codebook", bytes([0, 2, 8]) + bytes(8) + bytes([8, 0x20]), "follow the last value"),
        ("codebook", bytes([0, 0, 0, 1, 0, 0, 0, 0, 0]), "not in a table of 0"),
        (POOLED, bytes([0, 0, 0, 1, 0, 0, 0, 0, 0]), "before the one that brings it"),
        ("int8", bytes([0, 1, 4]) + bytes(4) + bytes([1, 0, 0, 0, 0, 0]), "1 scales stand for 2"),
        ("int8", bytes([0, 3, 12]) + bytes(12) + bytes([1, 0, 0, 0, 0, 0]), "3 values in 12 bytes does not fit"),
    ],
)
def test_malformed_coded_streams_are_refused(codec: str, stream: bytes, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        decode_coded(codec, stream, 5, np.dtype(np.float32), 2)


def test_codes_land_near_their_entropy() -> None:
    kept = np.random.default_rng(2).normal(size=400_000).astype(np.float32)
    kept = kept[np.abs(kept) > 1.645]
    for bits in range(1, 9):
        coded = encode_codebook("w", kept, codebook(kept, bits))
        bound = entropy_bits(np.bincount(coded.codes)) / 8
        size = len(encode_coded(coded)[1])
        # Byte-wise Huffman codes lose up to a few percent; the table takes at most three bytes an entry.
        assert bound < size < 1.035 * bound + 3 * 2**bits + 60


@pytest.mark.parametrize("values", LOSSY)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_file_decodes_to_what_it_says_and_says_how_far_off_that_is(
    values: str, dtype: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    seed = SeedRecord("keyed-product", 3, "frozen.weight", "uniform", 0.25)
    frozen = weight("frozen.weight", (20, 30), 0.8, 5, dtype)
    tensors = [
        weight("fc.weight", (40, 50), 0.9, 1, dtype),
        make_tensor(
            "frozen.weight",
            frozen.dense(),
            mask=frozen.mask,
            record={"role": "prunable", "parametrisation": "frozen", "seed": seed},
        ),
        make_tensor("whole.weight", weight("x", (6, 7), 0.0, 2, dtype).dense(), record={"role": "prunable"}),
        make_tensor("empty.weight", np.empty((0, 4), numpy_dtype(dtype)), record={"role": "prunable"}),
        make_tensor("scalar.weight", np.array(1.7).astype(numpy_dtype(dtype)), record={"role": "prunable"}),
        make_tensor("fc.bias", np.linspace(-1, 1, 40).astype(numpy_dtype(dtype))),
        make_tensor("norm.running_mean", np.linspace(0, 1, 9).astype(numpy_dtype(dtype)), record={"role": "buffer"}),
    ]
    checkpoint = checkpoint_of(*tensors)
    checkpoint.save(tmp_path / "checkpoint.safetensors")
    artifact = export(checkpoint, "packed", tmp_path / "x.spk", values=values)
    assert isinstance(artifact, PackedArtifact)
    artifact.verify()
    rows = {row.name: row for row in artifact.rows()}
    assert sum(row.bytes for row in rows.values()) + artifact.overhead()["header"] == artifact.size
    worst = 0.0
    for tensor in tensors:
        name, expected = tensor.record.name, tensor.dense()
        found = artifact.tensor(name)
        assert found.dtype == expected.dtype
        error = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
        allowed = rows[name].max_abs_error or 0.0
        assert error <= allowed <= 1.011 * error
        worst = max(worst, error)
        (sparse,) = [t for t in artifact.sparse_tensors() if t.record.name == name]
        np.testing.assert_array_equal(sparse.mask, tensor.mask)
    assert artifact.manifest.max_abs_error == worst
    np.testing.assert_array_equal(artifact.tensor("norm.running_mean"), tensors[-1].dense())
    assert all(finding.ok for finding in verify(artifact.path, against=tmp_path / "checkpoint.safetensors"))


def test_small_tensors_share_a_codebook_and_each_can_be_read_alone(checkpoint_of: Build, tmp_path: Path) -> None:
    small = [weight(f"{n}.weight", (6, 10), 0.2, n) for n in range(4)]
    large = weight("large.weight", (100, 100), 0.5, 9)
    artifact = export(checkpoint_of(*small[:2], large, *small[2:]), "packed", tmp_path / "x.spk", values="codebook:5")
    codecs = {row.name: row.codec.split(" + ")[1] for row in artifact.rows()}
    assert codecs == {**{t.record.name: POOLED for t in small}, "large.weight": "codebook"}
    # Whoever comes later pays no table: a bitmap of 8 bytes, 48 codes, 4 bytes that say so.
    assert all(row.bytes <= 8 + 48 + 4 for row in artifact.rows() if row.name in ("1.weight", "3.weight"))
    everything = artifact.tensors()
    union = np.concatenate([np.asarray(t.values) for t in small])
    entries = {float(v) for t in small for v in everything[t.record.name][np.asarray(t.mask)]}
    assert entries <= {float(v) for v in codebook(union, 5)}
    np.testing.assert_array_equal(open_artifact(artifact.path).tensor("3.weight"), everything["3.weight"])


def test_one_small_tensor_has_nobody_to_share_with(checkpoint_of: Build, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(weight("a.weight", (6, 10), 0.2), weight("b.weight", (200, 100), 0.5, 1))
    artifact = export(checkpoint, "packed", tmp_path / "x.spk", values="codebook:5")
    assert all(row.codec.endswith("+ codebook") for row in artifact.rows())


def test_what_a_seed_draws_is_not_rounded() -> None:
    seed = SeedRecord("keyed-product", 0, "fc.bias", "uniform", 0.5)
    tensor = make_tensor("fc.bias", rebuild(seed, (40,)), record={"seed": seed})
    for values in LOSSY:
        part = part_of(tensor, values)
        assert (part.entry.stored, part.entry.error, part.seed) == (None, None, seed)


def test_a_bias_that_half_precision_cannot_hold_stays_beside_codes() -> None:
    tensor = make_tensor("fc.bias", np.array([70000.0, 1.0], np.float32))
    assert part_of(tensor, "int8").entry.stored is None
    with pytest.raises(UnsupportedError, match="half precision"):
        part_of(tensor, "fp16")


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_rows_open_in_scipy(axis: int, checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.random.default_rng(0).normal(size=(12, 20)).astype(np.float32)
    mask = np.abs(dense) > 1
    tensor = make_tensor("w", dense, mask=mask, record={"role": "prunable", "output_axis": axis})
    artifact = export(checkpoint_of(tensor), "csr", tmp_path / "x.safetensors", values="int8")
    assert isinstance(artifact, CsrArtifact)
    crow, col, codes, scales = (
        artifact.file.read(f"w.{name}") for name in ("crow_indices", "col_indices", "values", "scales")
    )
    assert codes.dtype == np.int8
    rows = dense.shape[axis]
    matrix = scipy.sparse.csr_matrix((codes, col, crow), shape=(rows, dense.size // rows)).toarray()
    by_hand = matrix.astype(np.float32) * scales[:, None]
    np.testing.assert_array_equal(by_hand if axis == 0 else by_hand.T, artifact.tensor("w"))
    assert np.abs(artifact.tensor("w") - tensor.dense()).max() <= scales.max() / 2 * (1 + 1e-6)


@pytest.mark.parametrize("values", ["bf16", "int8"])
def test_n_of_m_files_take_short_values(values: str, checkpoint_of: Build, tmp_path: Path) -> None:
    dense = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    mask = np.tile([True, False, False, True], 32).reshape(8, 16)
    record = {"role": "prunable", "structure": "2:4"}
    artifact = export(
        checkpoint_of(make_tensor("w", dense, mask=mask, record=record)), "nm", tmp_path / "x", values=values
    )
    artifact.verify()
    # 64 kept: two bits a place, one or two bytes a value, four bytes a scale.
    assert artifact.rows()[0].bytes == 16 + (64 + 4 * 8 if values == "int8" else 128)
    assert np.abs(artifact.tensor("w") - dense * mask).max() < 0.02


def test_the_command_says_how_far_off_values_are(
    checkpoint_of: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint_of(weight("fc.weight", (30, 40), 0.9), make_tensor("fc.bias", np.zeros(3, np.float32))).save(
        tmp_path / "checkpoint.safetensors"
    )
    file = str(tmp_path / "x.spk")
    assert run(["export", str(tmp_path), "--to", "packed", "--values", "codebook:2", "-o", file]) == 0
    assert "codebook:2 values differ from the checkpoint's by up to" in capsys.readouterr().out
    assert run(["inspect", file]) == 0
    assert "max error" in capsys.readouterr().out
    assert run(["inspect", file, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tensors"]
    assert rows[0]["max_abs_error"] > 0
    assert rows[1]["max_abs_error"] == 0
    assert run(["export", str(tmp_path), "--to", "packed", "--values", "codebook:12", "-o", file, "--force"]) == 2
    assert "codebook:BITS (1 to 8)" in capsys.readouterr().err
