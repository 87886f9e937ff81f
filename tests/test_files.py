"""The ground floor: shapes that no array can have are refused, bytes are little-endian whatever the array's own."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from sparsepack.errors import FileFormatError
from sparsepack.files import TensorFile, little_endian_bytes, possible_shape, sha256_array, write_safetensors


@pytest.mark.parametrize(
    "shape",
    [
        "[0, 1180591620717411303424]",
        "[0, 4611686018427387904, 4611686018427387904]",
        f"[{', '.join(['1'] * 70)}]",
        f"[{'9' * 3600}, {'9' * 3600}]",
    ],
    ids=["no whole number of 64 bits", "overflow behind a zero", "axes", "thousands of digits"],
)
def test_a_shape_that_no_array_can_have_is_refused(shape: str, tmp_path: Path) -> None:
    size = 4 if shape.startswith("[1,") else 0
    header = f'{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{size}]}}}}'.encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(FileFormatError, match="'w' has a shape that no array can have"):
        TensorFile(path)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 5), (1,) * 32, (2**31, 2**29)])
def test_a_shape_that_an_array_can_have_is_not(shape: tuple[int, ...]) -> None:
    assert possible_shape(shape, 4)
    assert np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0,) * len(shape)).shape == shape


def test_a_big_endian_array_is_written_as_any_other(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e-7], np.float32)
    for name, array in (("little", values), ("big", values.astype(">f4"))):
        write_safetensors(tmp_path / name, {"w": array}, {})
    assert (tmp_path / "big").read_bytes() == (tmp_path / "little").read_bytes()
    np.testing.assert_array_equal(TensorFile(tmp_path / "big").read("w"), values)
    digest = hashlib.sha256(struct.pack("<3f", *values.tolist())).hexdigest()
    assert sha256_array(values.astype(">f4")) == sha256_array(values) == digest


def test_bytes_are_row_major(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    assert bytes(little_endian_bytes(turned)) == bytes([0, 3, 1, 4, 2, 5])
    write_safetensors(tmp_path / "t", {"w": turned, "n": np.array(7, np.int64)}, {})
    content = (tmp_path / "t").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert json.loads(content[8 : 8 + length])["w"]["shape"] == [3, 2]
    assert content[8 + length :] == bytes([0, 3, 1, 4, 2, 5]) + struct.pack("<q", 7)
