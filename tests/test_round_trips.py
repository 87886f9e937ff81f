"""Any tensor through a checkpoint and every format that needs no network: bit for bit, each byte accounted for.

Any bits (NaN payloads, infinities, subnormals), kept zeros and -0.0 among them; any dtype that a network's tensor can
have; empty, 0-d, 1-d and odd shapes; densities from 0 to 1; any structure that tiles the shape; any parametrisation.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsepack.compressor.block import Block
from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.compressor.structure import NofM
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.prunable import PrunableTensor
from sparsepack.models.seeding.record import SeedRecord

Build = Callable[..., SparseCheckpoint]
WHOLE = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
DTYPES = [*WHOLE, *FLOATS, "float8_e4m3fn", "float8_e5m2"]
SHAPES: list[tuple[int, ...]] = [
    (),
    (0,),
    (0, 4),
    (3, 0),
    (1,),
    (7,),
    (1, 1),
    (5, 3),
    (8, 12),
    (6, 7, 3),
    (4, 4, 3, 3),
    (2, 3, 1, 5, 2),
]


def any_bits(dtype: str, count: int, rng: np.random.Generator) -> Array:
    """Values of any bits; a fifth of them 0, 0.0 or -0.0."""
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return np.asarray(rng.random(count) < 0.5)
    plain = rng.integers(0, 256, count * kind.itemsize, np.uint8).view(kind)
    if kind.kind in "fV":
        zeros = np.array([0.0, -0.0], np.float32).astype(kind)
    else:
        zeros = np.zeros(2, kind)
    plain = plain.copy()
    plain[rng.random(count) < 0.2] = rng.choice(zeros)
    return plain


@st.composite
def tensors(draw: st.DrawFn) -> SparseTensor:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape))
    dense = any_bits(dtype, size, rng).reshape(shape)
    density = draw(st.sampled_from([None, 0.0, 0.02, 0.1, 0.5, 0.9, 1.0]))
    if density is None:
        return make_tensor("layer.weight", dense)
    axis = draw(st.integers(0, max(0, len(shape) - 1)))
    record: dict[str, object] = {"role": "prunable", "output_axis": axis}
    mask = np.asarray(rng.random(shape) < density)
    tensor = PrunableTensor("layer.weight", shape, "linear", axis, 1, 1)
    structure = draw(st.sampled_from(["element", "channel", NofM(2, 4), NofM(1, 3), Block(2, 2), Block(1, 3)]))
    if shape and size and structure == "channel":
        units = [shape[axis] if place == axis else 1 for place in range(len(shape))]
        mask = np.broadcast_to(rng.random(units) < density, shape).copy()
        record["structure"] = "channel"
    elif shape and size and isinstance(structure, NofM | Block) and structure.eligible(tensor) is None:
        groups = structure.groups(tensor)
        if isinstance(structure, NofM):
            chosen = np.argsort(rng.random((groups.count, groups.size)), axis=1) < structure.n
        else:
            chosen = rng.random(groups.count) < density
        mask = structure.expand(chosen, tensor)
        record["structure"] = structure.text
    parametrisation = draw(st.sampled_from(["identity", "identity", "frozen", "frozen whole", "selected"]))
    if dtype in FLOATS and parametrisation != "identity":
        record["parametrisation"] = parametrisation.split()[0]
        if parametrisation != "frozen whole":
            record["seed"] = SeedRecord("keyed-product", 3, "layer.weight", "uniform", 0.125)
    return make_tensor("layer.weight", dense, mask=mask, record=record)


@given(tensor=tensors(), format=st.sampled_from(["packed", "csr", "nm", "checkpoint"]))
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bit_for_bit(checkpoint_of: Build, tmp_path: Path, format: str, tensor: SparseTensor) -> None:
    path = tmp_path / "file"
    checkpoint = checkpoint_of(tensor)
    if format == "checkpoint":
        checkpoint.save(path, force=True)
        loaded = SparseCheckpoint.load(path)
        loaded.verify()
        found = loaded.tensors["layer.weight"]
    else:
        try:
            export(checkpoint, format, path, force=True)
        except UnsupportedError:
            # Where a file can hold anything, nothing is refused.
            assert format == "nm"
            return
        artifact = open_artifact(path)
        artifact.verify()
        assert artifact.tensor("layer.weight").tobytes() == tensor.dense().tobytes()
        assert artifact.tensor("layer.weight").dtype == tensor.dense().dtype
        assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == path.stat().st_size
        (found,) = artifact.sparse_tensors()
    assert found.dense().tobytes() == tensor.dense().tobytes()
    if tensor.mask is not None and found.mask is not None:
        # A kept zero stays kept.
        np.testing.assert_array_equal(found.mask, tensor.mask)
        if tensor.values is not None and tensor.record.parametrisation != "frozen":
            assert found.values is not None
            assert found.values.tobytes() == tensor.values.tobytes()


def test_every_dtype_of_a_network_is_tried() -> None:
    for dtype in DTYPES:
        assert numpy_dtype(dtype).name == dtype
    with pytest.raises(Exception, match="expected one of " + ", ".join(["bool", "uint8", "int8"])) as caught:
        numpy_dtype("float128")
    assert all(dtype in str(caught.value) for dtype in DTYPES)
    assert str(caught.value).count(",") == len(DTYPES) - 1
