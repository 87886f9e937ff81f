"""Parametrisations: each decoder against arithmetic written out, through a checkpoint, and against hostile files."""

import hashlib
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from parametrised import HANDED, fits, handed, plain_bias, seed_for

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, handed_tensor, make_tensor
from sparsepack.compressor.mask import unpack_bits
from sparsepack.compressor.parametrisations import PARAMETRISATIONS, Handover, basis, masks, offset, options, signs
from sparsepack.compressor.parametrisations.offset import cosine_transform
from sparsepack.compressor.parametrisations.projection import hadamard, length_of, project, signs_of
from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters import export
from sparsepack.models.seeding.candidates import candidate, chosen
from sparsepack.models.seeding.philox import stream_key, words
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX, SeedRecord

Build = Callable[..., SparseCheckpoint]
GENERATORS = [PHILOX, KEYED_PRODUCT]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("parts", ["signs", "scale", "scale signs"])
def test_signs_are_mask_times_sign_times_magnitude(parts: str, generator: str) -> None:
    rng = np.random.default_rng(0)
    mask, negative = rng.random((5, 7)) < 0.5, rng.random((5, 7)) < 0.5
    seed = seed_for("w", generator)
    drawn = rebuild(seed, (5, 7))
    scale = np.float32(0.3)
    made = signs.parts_of(mask, negative if "signs" in parts else None, scale if "scale" in parts else None)
    tensor = handed_tensor("w", (5, 7), "float32", Handover("signs", made), mask=mask, record={"seed": seed})
    dense = tensor.dense()
    for row, column in itertools.product(range(5), range(7)):
        sign = (-1 if negative[row, column] else 1) if "signs" in parts else np.sign(drawn[row, column])
        magnitude = scale if "scale" in parts else abs(drawn[row, column])
        assert dense[row, column] == (sign * magnitude if mask[row, column] else 0)
    bits = made.get("signs")
    assert bits is None or bits.nbytes == -(-int(mask.sum()) // 8)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("initialiser", ["uniform", "signed-constant", "constant"])
def test_candidates_go_on_where_the_tensor_ends(generator: str, initialiser: str) -> None:
    seed, shape = seed_for("w", generator, initialiser), (3, 5)
    np.testing.assert_array_equal(candidate(seed, shape, 0), rebuild(seed, shape))
    number = 4
    found = candidate(seed, shape, number).reshape(-1)
    for place in range(15):
        if initialiser == "constant":
            expected = 0.25
        elif generator == PHILOX:
            (word,) = words(seed.seed, seed.name, number * 15 + place, 1)
            top = int(word) >> 31
            expected = (
                (0.25 if top else -0.25)
                if initialiser == "signed-constant"
                else ((int(word) >> 8) - 2**23) * 0.25 * 2.0**-23
            )
        else:
            # A tensor of more columns has the same keys in front.
            wide = rebuild(seed, (3, 5 * (number + 1)))
            expected = float(wide[place // 5, number * 5 + place % 5])
        assert found[place] == np.float32(expected)


@given(st.integers(1, 40), st.data())
def test_choices_take_each_weight_from_its_candidate(count: int, data: st.DataObject) -> None:
    generator = data.draw(st.sampled_from(GENERATORS))
    shape = data.draw(st.sampled_from([(6,), (3, 4), (2, 3, 2, 2), ()]))
    choices = np.array(data.draw(st.lists(st.integers(0, count), min_size=24, max_size=24)))[: int(np.prod(shape))]
    seed = seed_for("w", generator)
    stack = np.stack([candidate(seed, shape, number).reshape(-1) for number in range(count + 1)])
    handover = Handover("options", options.parts_of(choices.reshape(shape), count + 1), count=count + 1)
    dense = handed_tensor("w", shape, "float32", handover, record={"seed": seed}).dense()
    np.testing.assert_array_equal(dense.reshape(-1), np.take_along_axis(stack, choices[None], 0)[0])
    assert dense.shape == shape


def test_a_choice_far_into_the_stream_is_drawn_alone() -> None:
    """Positions beyond 2**32 words: the counter's second word is used."""
    seed = SeedRecord(PHILOX, 1, "w", "uniform", 1.0)
    place = 2**36 + 1
    (word,) = words(1, "w", place, 1)
    found = chosen(seed, (2**30,), np.array([place % 2**30]), np.array([place // 2**30]))
    assert found[0] == np.float32(((int(word) >> 8) - 2**23) * 2.0**-23)
    assert stream_key(1, "w") == (1, zlib.crc32(b"w"))


@pytest.mark.parametrize("task", range(3))
def test_each_task_computes_with_its_own_mask(task: int, checkpoint_of: Build, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.random((4, 5)) < density for density in (0.2, 0.5, 0.8)]
    seed = seed_for("w")
    handover = Handover("masks", masks.parts_of(drawn), count=3, task=task)
    tensor = handed_tensor("w", (4, 5), "float32", handover, mask=drawn[0], record={"seed": seed})
    expected = make_tensor(
        "w", np.zeros((4, 5), np.float32), mask=drawn[task], record={"parametrisation": "selected", "seed": seed}
    )
    np.testing.assert_array_equal(tensor.dense(), expected.dense())
    assert tensor.kept == int(drawn[task].sum())
    checkpoint_of(tensor).save(tmp_path / "c.safetensors")
    loaded = SparseCheckpoint.load(tmp_path / "c.safetensors").tensors["w"]
    for number, mask in enumerate(drawn):
        np.testing.assert_array_equal(unpack_bits(loaded.parts["masks"][number], (4, 5)), mask)


def test_a_basis_of_single_weights_is_ordinary_pruning() -> None:
    rng = np.random.default_rng(2)
    weight, mask = rng.normal(size=(3, 2, 3, 3)).astype(np.float32), rng.random((3, 2, 3, 3)) < 0.4
    handover = Handover("basis", basis.parts_of(weight, np.eye(9, dtype=np.float32), mask))
    dense = handed_tensor("w", weight.shape, "float32", handover, mask=mask).dense()
    np.testing.assert_array_equal(dense, np.where(mask, weight, 0))


@given(st.integers(0, 10**6), st.sampled_from(["float32", "float64", "float16"]))
def test_a_basis_is_a_linear_map_of_coefficients(number: int, dtype: str) -> None:
    rng = np.random.default_rng(number)
    coefficients, mask = rng.normal(size=(3, 2, 2, 3)).astype(dtype), rng.random((3, 2, 2, 3)) < 0.5
    filters = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(dtype)
    handover = Handover("basis", basis.parts_of(coefficients, filters, mask))
    dense = handed_tensor("w", mask.shape, dtype, handover, mask=mask).dense()
    exact = np.where(mask, coefficients, 0).astype(np.float64).reshape(6, 6) @ filters.astype(np.float64)
    tolerance = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(dense.reshape(6, 6).astype(np.float64), exact, atol=tolerance)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 25, 100])
def test_the_cosine_transform_is_orthonormal_and_scipys(size: int) -> None:
    found = cosine_transform(size, size)
    np.testing.assert_allclose(found, scipy.fft.dct(np.eye(size), axis=0, norm="ortho"), atol=3e-16)
    np.testing.assert_allclose(found @ found.T, np.eye(size), atol=1e-14)


def test_the_cosine_transform_is_cropped_to_the_layer() -> None:
    whole = scipy.fft.dct(np.eye(12), axis=0, norm="ortho")
    np.testing.assert_allclose(cosine_transform(5, 12), whole[:5], atol=3e-16)
    np.testing.assert_allclose(cosine_transform(12, 4), whole[:, :4], atol=3e-16)
    np.testing.assert_array_equal(cosine_transform(12, 4, 3, 7), cosine_transform(12, 4)[3:7])


def test_an_offset_is_sparse_values_plus_the_scaled_transform() -> None:
    rng = np.random.default_rng(3)
    sparse, mask = rng.normal(size=(6, 2, 2, 2)).astype(np.float32), rng.random((6, 2, 2, 2)) < 0.3
    handover = Handover("offset", offset.parts_of(sparse, mask, np.float32(1.5)))
    dense = handed_tensor("w", mask.shape, "float32", handover, mask=mask).dense()
    transform = scipy.fft.dct(np.eye(8), axis=0, norm="ortho")[:6]
    np.testing.assert_allclose(
        dense.reshape(6, 8), 1.5 * transform + np.where(mask, sparse, 0).reshape(6, 8), atol=3e-7
    )


@pytest.mark.parametrize(("weights", "dimension"), [(6, 3), (6, 20), (1, 1), (64, 64), (100, 7)])
def test_a_projection_is_the_matrix_that_it_never_builds(weights: int, dimension: int) -> None:
    seed = seed_for("w", PHILOX)
    length = length_of(weights, dimension)
    one, two, three = (np.diag(diagonal.astype(np.float64)) for diagonal in signs_of(seed, length))
    h = scipy.linalg.hadamard(length).astype(np.float64)
    matrix = (h @ three @ h @ two @ h @ one) / length
    np.testing.assert_allclose(matrix.T @ matrix, length * np.eye(length), atol=1e-9)
    coordinates = np.random.default_rng(4).normal(size=dimension).astype(np.float32)
    expected = matrix[:weights, :dimension] @ coordinates.astype(np.float64)
    np.testing.assert_allclose(project(seed, weights, coordinates), expected, rtol=1e-4, atol=1e-5)


def test_projections_of_two_tensors_are_nearly_orthogonal() -> None:
    """Columns of the whole network's matrix: mean square 1 an entry, and no coordinate follows another."""
    columns = np.stack(
        [
            np.concatenate([project(seed_for(name, PHILOX), size, unit) for name, size in (("a", 700), ("b", 900))])
            for unit in np.eye(8, dtype=np.float32)
        ]
    ).astype(np.float64)
    gram = columns @ columns.T / 1600
    np.testing.assert_allclose(np.diag(gram), 1, atol=0.15)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 0.15


def test_hadamard_known_answer() -> None:
    np.testing.assert_array_equal(hadamard(np.array([1, 2, 3, 4], np.float32)), [10, -2, -4, 0])


@given(
    st.sampled_from(sorted(HANDED)),
    st.sampled_from([(4, 3, 2, 2), (5, 7), (9,), (1, 1, 3), ()]),
    st.sampled_from(["float32", "float16", "bfloat16", "float64"]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(GENERATORS),
    st.integers(0, 100),
)
def test_a_checkpoint_keeps_every_part(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint_of: Build,
    kind: str,
    shape: tuple[int, ...],
    dtype: str,
    density: float,
    generator: str,
    number: int,
) -> None:
    if not fits(kind, shape, dtype):
        return
    tensor = handed(kind, shape, dtype=dtype, density=density, generator=generator, number=number)
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    checkpoint_of(tensor, plain_bias()).save(path)
    for loaded in (SparseCheckpoint.load(path), SparseCheckpoint.open(path)):
        loaded.verify()
        again = loaded.tensors["weight"]
        assert again.record == tensor.record
        assert again.dense().tobytes() == tensor.dense().tobytes()
        assert set(again.parts) == set(tensor.parts)
        assert all(again.parts[part].tobytes() == array.tobytes() for part, array in tensor.parts.items())
    again_path = path.with_name("again")
    SparseCheckpoint.load(path).save(again_path)
    assert again_path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", sorted(HANDED))
def test_packed_keeps_the_record_and_every_part(kind: str, checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = handed(kind)
    artifact = export(checkpoint_of(tensor, plain_bias()), "packed", tmp_path / "x")
    again = next(iter(artifact.sparse_tensors()))
    assert again.record == tensor.record
    assert set(again.parts) == set(tensor.parts)
    for part, array in tensor.parts.items():
        assert again.parts[part].dtype == array.dtype
        np.testing.assert_array_equal(again.parts[part], array)
    assert (tensor.mask is None) == (again.mask is None)
    np.testing.assert_array_equal(again.mask, tensor.mask)


@pytest.mark.parametrize("format", ["packed", "csr"])
@pytest.mark.parametrize("kind", sorted(HANDED))
def test_containers_decode_to_the_same_bits(kind: str, format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    tensor = handed(kind)
    artifact = export(checkpoint_of(tensor, plain_bias()), format, tmp_path / "x")
    assert artifact.tensor("weight").tobytes() == tensor.dense().tobytes()
    artifact.verify()
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size


def shared() -> tuple[SparseTensor, SparseTensor]:
    """Two convolutions with one basis."""
    rng = np.random.default_rng(6)
    filters = rng.normal(size=(9, 9)).astype(np.float32)
    made = []
    for name, owner in (("a", None), ("b", "a")):
        weight, mask = rng.normal(size=(4, 2, 3, 3)).astype(np.float32), rng.random((4, 2, 3, 3)) < 0.5
        handover = Handover("basis", basis.parts_of(weight, filters, mask), shares=owner)
        made.append(handed_tensor(name, weight.shape, "float32", handover, mask=mask))
    return made[0], made[1]


def test_a_shared_basis_is_stored_once(checkpoint_of: Build, tmp_path: Path) -> None:
    one, two = shared()
    checkpoint_of(one, two).save(tmp_path / "c")
    loaded = SparseCheckpoint.load(tmp_path / "c")
    np.testing.assert_array_equal(loaded.tensors["b"].parts["basis"], one.parts["basis"])
    loaded.verify()
    (length,) = struct.unpack_from("<Q", (tmp_path / "c").read_bytes())
    header = json.loads((tmp_path / "c").read_bytes()[8 : 8 + length])
    assert sorted(key for key in header if key.endswith(":basis")) == ["a:basis"]


def test_checkpoints_without_parts_have_the_bytes_that_they_had(checkpoint_of: Build, tmp_path: Path) -> None:
    """Golden: a file written before parametrisations had parts."""
    rng = np.random.default_rng(0)
    dense = np.round(rng.normal(size=(4, 6)), 3).astype(np.float32)
    seed = seed_for("frozen")
    tensors = [
        make_tensor("plain", dense, mask=dense > 0, record={"role": "prunable", "structure": "2:4"}),
        make_tensor("frozen", dense, mask=dense > 1, record={"parametrisation": "frozen", "seed": seed}),
        make_tensor("selected", dense, mask=dense > 0, record={"parametrisation": "selected", "seed": seed}),
        make_tensor("bias", dense[0].copy()),
        make_tensor("tied", dense, record={"alias_of": "plain"}),
    ]
    checkpoint_of(*tensors).save(tmp_path / "c")
    assert hashlib.sha256((tmp_path / "c").read_bytes()).hexdigest() == GOLDEN


GOLDEN = "25ea18cb5009499f0361e89d9e8dd316b67e45ba690c669bbe94f603ee9bfcdd"


def forged(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a checkpoint's first record."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["sparsepack"])
    change(metadata["tensors"][0])
    header["__metadata__"]["sparsepack"] = json.dumps(metadata)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {
    "more signs than weights": ("signs", {"shape": [4, 3, 2, 3]}, "does not have 72 bits"),
    "no seed for the magnitudes": ("signs", {"seed": None}, "carries no seed"),
    "parts of another kind": ("signs", {"parts": ["choices"]}, r"cannot store the parts \(choices\)"),
    "parts twice": ("signs", {"parts": ["signs", "signs"]}, "cannot store the parts"),
    "no mask": ("signs", {"masked": False}, "has no mask"),
    "one candidate": ("options", {"count": 1}, "has 1 candidates"),
    "a choice beyond the candidates": ("options", {"count": 3}, "chooses candidate 5, and there are 3"),
    "choices of another width": ("options", {"count": 300}, "choices of uint16"),
    "too many candidates": ("options", {"count": 5000}, "has 5000 candidates"),
    "more tasks than masks": ("masks", {"count": 9}, "should hold 54 masks"),
    "a task beyond the last": ("masks", {"task": 3}, "computes task 3"),
    "a negative task": ("masks", {"task": -1}, "computes task -1"),
    "a basis of no filters": ("basis", {"shape": [24]}, "has no filters"),
    "a basis of another size": ("basis", {"shape": [4, 1, 6, 2]}, "should hold 144 basis"),
    "a basis that nobody stores": ("basis", {"shares": "bias"}, "shares a part with 'bias'"),
    "a basis shared with itself": ("basis", {"shares": "weight"}, "shares a part with 'weight'"),
    "two scales": ("offset", {"dtype": "float64"}, "should hold"),
    "no coordinates": ("projection", {"count": 0}, "has 0 coordinates"),
    "coordinates that are not there": ("projection", {"count": 10**12}, "should hold 1000000000000 coordinates"),
    "a projected tensor of petabytes": ("projection", {"shape": [10**6, 10**9]}, "cannot hold"),
    "a masked projection": ("projection", {"masked": True}, "has a mask"),
    "a number that is no count": ("options", {"count": "6"}, "malformed"),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_records_are_refused(what: str, checkpoint_of: Build, tmp_path: Path) -> None:
    kind, changes, message = HOSTILE[what]
    path = tmp_path / "c.safetensors"
    checkpoint_of(handed(kind), plain_bias()).save(path)
    forged(path, lambda record: record.update(changes))
    with pytest.raises(FileFormatError, match=message):
        SparseCheckpoint.load(path).verify()


def test_a_keyed_product_with_more_keys_than_weights_is_refused() -> None:
    handover = Handover("options", options.parts_of(np.zeros((1, 4000), np.int64), 64), count=64)
    with pytest.raises(UnsupportedError, match=r"needs 256000 keys.*philox4x32-10 needs none"):
        handed_tensor("w", (1, 4000), "float32", handover, record={"seed": seed_for("w")})


def test_parts_that_do_not_fit_are_named() -> None:
    handover = Handover("options", {"choices": np.zeros(3, np.uint8)}, count=4)
    with pytest.raises(UnsupportedError, match="its choices should be 4 of uint8, and are 3 of uint8"):
        handed_tensor("w", (2, 2), "float32", handover, record={"seed": seed_for("w")})
    with pytest.raises(UnsupportedError, match="'w' cannot be stored: it is 'options' but carries no seed"):
        handed_tensor("w", (2, 2), "float32", handover)
    with pytest.raises(UnsupportedError, match="it has no values"):
        handed_tensor("w", (2, 2), "float32", Handover("offset", {"scale": np.ones(1, np.float32)}), mask=np.eye(2) > 0)


def test_the_table_is_the_closed_list() -> None:
    names = ["identity", "frozen", "selected", "signs", "options", "masks", "basis", "offset", "projection"]
    assert list(PARAMETRISATIONS) == names
    for kind in PARAMETRISATIONS.values():
        assert set(kind.unseeded) <= set(kind.variants)
        assert all(list(variant) == sorted(variant) for variant in kind.variants)
