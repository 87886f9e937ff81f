"""The packed format: round trips, sizes to the byte, the seed record's price, rounding, determinism."""

import itertools
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.errors import FileFormatError, OutputExistsError, UnknownNameError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.codecs.dictionary import DICTIONARY
from sparsepack.exporters.packed import PackedArtifact
from sparsepack.files import Array, plausible_bytes
from sparsepack.models.seeding.initialisers import weight_bound
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import SeedRecord

Build = Callable[..., SparseCheckpoint]
SHAPES = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}


def lenet(parametrisation: str, sparsity: float = 0.98) -> list[SparseTensor]:
    """LeNet-300-100 with global magnitude masks over trained-looking weights; the same masks and values each time."""
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(size=shape).astype(np.float32) * 0.06 for name, shape in SHAPES.items()}
    threshold = np.quantile(np.concatenate([np.abs(w).ravel() for w in weights.values()]), sparsity)
    tensors = []
    for name, weight in weights.items():
        bound = weight_bound("uniform", weight.shape[1], 0)
        seed = SeedRecord("keyed-product", 3, f"{name}.weight", "uniform", bound)
        record: dict[str, object] = {"role": "prunable", "parametrisation": parametrisation}
        if parametrisation != "identity":
            record["seed"] = seed
        tensors.append(make_tensor(f"{name}.weight", weight, mask=np.abs(weight) >= threshold, record=record))
        tensors.append(make_tensor(f"{name}.bias", rng.normal(size=weight.shape[:1]).astype(np.float32)))
    return tensors


def assert_same(artifact: PackedArtifact, checkpoint: SparseCheckpoint) -> None:
    expected = checkpoint.dense_state()
    decoded = artifact.tensors()
    assert list(decoded) == list(expected)
    for name, array in expected.items():
        assert decoded[name].dtype == array.dtype
        assert decoded[name].shape == array.shape
        assert decoded[name].tobytes() == array.tobytes()


def packed(checkpoint: SparseCheckpoint, path: Path, **options: object) -> PackedArtifact:
    artifact = export(checkpoint, "packed", path, **options)  # type: ignore[arg-type]  # options by name
    assert isinstance(artifact, PackedArtifact)
    return artifact


def test_any_safetensors_reader_opens_the_container(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "x.spk"
    packed(checkpoint_of(*lenet("identity")), path)
    arrays = load_file(path)
    assert list(arrays) == ["packed"]
    assert arrays["packed"].dtype == np.uint8


@pytest.mark.parametrize("parametrisation", ["identity", "frozen", "selected"])
def test_freezing_costs_the_seed_record_and_nothing_else(
    parametrisation: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    pruned = packed(checkpoint_of(*lenet("identity")), tmp_path / "pruned.spk")
    checkpoint = checkpoint_of(*lenet(parametrisation))
    artifact = packed(checkpoint, tmp_path / "x.spk")
    assert_same(artifact, checkpoint)
    streams = sum(row.bytes for row in artifact.rows())
    if parametrisation == "selected":
        assert streams < sum(row.bytes for row in pruned.rows()) - 4 * 3000
        assert {row.codec for row in artifact.rows() if "weight" in row.name} == {"gaps + seeded"}
        return
    # Streams and hash tables are the same size: the difference is the seed record in the manifest.
    assert streams == sum(row.bytes for row in pruned.rows())
    assert 0 <= artifact.size - pruned.size <= 64


def test_a_large_frozen_network_pays_for_its_seed_once(checkpoint_of: Build, tmp_path: Path) -> None:
    sizes = []
    for parametrisation in ("identity", "frozen"):
        tensors = []
        for layer in range(60):
            shape = (4 + layer % 7, 8, 3, 3)
            name = f"layer{layer % 4}.{layer}.conv1.weight"
            seed = SeedRecord("keyed-product", 7, name, "uniform", weight_bound("uniform", 72, 0))
            record = {"parametrisation": parametrisation, "role": "prunable", "seed": seed}
            weight: Array = np.random.default_rng(layer).normal(size=shape).astype(np.float32)
            tensors.append(make_tensor(name, weight, mask=np.abs(weight) > 1.6, record=record))
        checkpoint = checkpoint_of(*tensors)
        artifact = packed(checkpoint, tmp_path / f"{parametrisation}.spk")
        assert_same(artifact, checkpoint)
        sizes.append(artifact.size)
    assert abs(sizes[1] - sizes[0]) <= 64


def test_seed_records_that_cannot_be_derived_are_written_out(checkpoint_of: Build, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    seeds = [
        SeedRecord("keyed-product", 1, "a", "uniform", weight_bound("uniform", 8, 0)),
        SeedRecord("keyed-product", 1, "b", "uniform", weight_bound("uniform", 8, 0)),
        SeedRecord("philox4x32-10", 2, "elsewhere", "signed-constant", 0.125),
        SeedRecord("philox4x32-10", 2, "d", "constant", -0.0),
    ]
    tensors = [
        make_tensor(name, weight, mask=weight > 0.5, record={"parametrisation": "frozen", "seed": seed})
        for name, seed in zip("abcd", seeds, strict=True)
    ]
    artifact = packed(checkpoint_of(*tensors), tmp_path / "x.spk")
    assert [record.seed for record in artifact.records().values()] == seeds
    assert math.copysign(1, artifact.records()["d"].seed.bound) == -1  # type: ignore[union-attr]  # it has one
    assert_same(artifact, checkpoint_of(*tensors))


def test_a_tensor_that_its_seed_draws_stores_nothing(checkpoint_of: Build, tmp_path: Path) -> None:
    seed = SeedRecord("philox4x32-10", 0, "bias", "uniform", 0.05)
    drawn = make_tensor("bias", rebuild(seed, (300,)), record={"seed": seed})
    checkpoint = checkpoint_of(drawn)
    artifact = packed(checkpoint, tmp_path / "x.spk")
    assert [(row.codec, row.bytes, row.bound_bytes) for row in artifact.rows()] == [("seeded", 0, 0.0)]
    assert_same(artifact, checkpoint)


def test_frozen_values_without_a_seed_are_stored_whole(checkpoint_of: Build, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    tensor = make_tensor("w", weight, mask=weight > 1, record={"parametrisation": "frozen", "role": "prunable"})
    artifact = packed(checkpoint_of(tensor), tmp_path / "x.spk")
    (row,) = artifact.rows()
    assert row.nnz == int((weight > 1).sum())
    assert row.codec == "floats"
    assert_same(artifact, checkpoint_of(tensor))


def test_every_byte_is_accounted_for(checkpoint_of: Build, tmp_path: Path) -> None:
    artifact = packed(checkpoint_of(*lenet("identity", 0.998)), tmp_path / "x.spk")
    header, streams = artifact.overhead()["header"], sum(row.bytes for row in artifact.rows())
    assert header + streams == artifact.size == (tmp_path / "x.spk").stat().st_size
    # Safetensors header, two numbers, manifest, and 8 bytes of SHA-256 for each of six tensors.
    assert header < 160 + 8 + 170 + 6 * 8


def test_an_alias_is_stored_once(checkpoint_of: Build, tmp_path: Path) -> None:
    weight = np.ones((3, 4), np.float32)
    tied = make_tensor("decoder.weight", weight, record={"alias_of": "encoder.weight"})
    artifact = packed(checkpoint_of(make_tensor("encoder.weight", weight), tied), tmp_path / "x.spk")
    decoded = artifact.tensors()
    assert decoded["decoder.weight"] is decoded["encoder.weight"]
    assert [row.codec for row in artifact.rows()] == ["deflate", "alias of encoder.weight"]
    assert [tensor.record.name for tensor in artifact.sparse_tensors()] == ["encoder.weight"]


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint_of: Build, tmp_path: Path) -> None:
    for name in ("a.spk", "b.spk"):
        packed(checkpoint_of(*lenet("frozen")), tmp_path / name)
    assert (tmp_path / "a.spk").read_bytes() == (tmp_path / "b.spk").read_bytes()


def test_an_existing_file_is_kept_without_force(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "x.spk"
    path.write_bytes(b"mine")
    checkpoint = checkpoint_of(make_tensor("w", np.ones(3, np.float32)))
    with pytest.raises(OutputExistsError, match="--force"):
        export(checkpoint, "packed", path)
    assert path.read_bytes() == b"mine"
    export(checkpoint, "packed", path, force=True)
    assert open_artifact(path).format == "packed"


def test_half_precision_rounds_what_is_stored_and_says_how_much(checkpoint_of: Build, tmp_path: Path) -> None:
    tensors = [
        *lenet("frozen"),
        make_tensor("bn.running_var", np.full(3, 1 / 3, np.float32), record={"role": "buffer"}),
    ]
    checkpoint = checkpoint_of(*tensors)
    whole = packed(checkpoint, tmp_path / "fp32.spk")
    artifact = packed(checkpoint, tmp_path / "fp16.spk", values="fp16")
    decoded = artifact.tensors()
    worst = 0.0
    for tensor in tensors:
        expected: Array = tensor.dense().copy()
        if tensor.record.role != "buffer":
            where = np.ones(expected.shape, np.bool_) if tensor.mask is None else tensor.mask
            rounded = expected[where].astype(np.float16).astype(np.float32)
            worst = max(worst, float(np.abs(rounded - expected[where]).max()))
            expected[where] = rounded
        assert decoded[tensor.record.name].dtype == np.float32
        np.testing.assert_array_equal(decoded[tensor.record.name], expected)
    assert artifact.manifest.max_abs_error == worst > 0
    assert whole.manifest.max_abs_error is None
    assert artifact.size < 0.62 * whole.size


def test_half_precision_that_would_overflow_names_the_tensor(checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = make_tensor("fc9.weight", np.array([1.0, -70000.0, np.inf], np.float32))
    with pytest.raises(UnsupportedError, match=r"'fc9\.weight' holds 70000, which half precision"):
        export(checkpoint_of(tensor), "packed", tmp_path / "x.spk", values="fp16")
    assert not list(tmp_path.iterdir())
    kept = make_tensor("ok", np.array([np.inf, np.nan, 65504.0], np.float32))
    artifact = export(checkpoint_of(kept), "packed", tmp_path / "x.spk", values="fp16")
    np.testing.assert_array_equal(artifact.tensor("ok"), kept.dense())


def test_unknown_values_and_formats_are_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(make_tensor("w", np.ones(3, np.float32)))
    with pytest.raises(UnknownNameError, match="Did you mean 'fp16'"):
        export(checkpoint, "packed", tmp_path / "x", values="fp61")
    with pytest.raises(UnknownNameError, match="Did you mean 'packed'"):
        export(checkpoint, "packd", tmp_path / "x")


def test_a_huge_empty_network_still_takes_bytes_in_proportion(checkpoint_of: Build, tmp_path: Path) -> None:
    """No honest file may look like one that promises the world: 80 MB of nothing is coded, not left out."""
    shape = (2000, 10_000)
    nothing = make_tensor("w", np.zeros(shape, np.float32), mask=np.zeros(shape, np.bool_))
    artifact = packed(checkpoint_of(nothing), tmp_path / "x.spk")
    assert artifact.rows()[0].bytes > 0
    assert plausible_bytes(artifact.size) >= 4 * math.prod(shape)
    assert not artifact.tensor("w").any()


def test_the_dictionary_is_frozen() -> None:
    """Released files lean on it: change the version of the format, never this text."""
    assert (len(DICTIONARY), zlib.crc32(DICTIONARY)) == (1803, 356367218)


def test_a_wrong_hash_is_found(checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "x.spk"
    artifact = packed(checkpoint_of(make_tensor("w", np.arange(5, dtype=np.float32))), path)
    content = bytearray(path.read_bytes())
    begin = artifact.file.header_bytes
    (length,) = struct.unpack_from("<I", content, begin + 4)
    content[begin + 8 + length] ^= 1
    struct.pack_into("<I", content, begin, zlib.crc32(bytes(content[begin + 4 :])))
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="tensor 'w' decodes to other bytes"):
        open_artifact(path).verify()


@pytest.mark.parametrize("seed", range(6))
def test_masks_and_values_survive_apart(seed: int, checkpoint_of: Build, tmp_path: Path) -> None:
    """Kept zeros, -0.0 and NaN payloads come back where they were, and the mask does not forget them."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 400, dtype=np.uint32).view(np.float32)
    bits[:40] = list(itertools.islice(itertools.cycle([0.0, -0.0]), 40))
    mask = rng.random((20, 20)) < 0.3
    mask[0] = True
    tensor = make_tensor("w", bits.reshape(20, 20), mask=mask)
    artifact = packed(checkpoint_of(tensor), tmp_path / "x.spk")
    (sparse,) = artifact.sparse_tensors()
    assert sparse.mask is not None
    assert sparse.values is not None
    assert tensor.values is not None
    np.testing.assert_array_equal(sparse.mask, mask)
    assert sparse.values.tobytes() == tensor.values.tobytes()
