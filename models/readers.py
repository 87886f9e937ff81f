"""Readers of data files that nobody vouches for: npz, MNIST's idx, CIFAR-10's binary version.

Each checks what a header claims against the bytes that are there before it allocates anything.
"""

from __future__ import annotations

import gzip
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from ..files import Array

# Deflate cannot shrink by more than about 1032; a claim beyond that is a lie.
_DEFLATE_LIMIT = 1100
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_CIFAR_RECORD = 1 + 3 * 32 * 32
_IDX_UBYTE = 0x08

# numpy reads the header of an array as Python source, with the tokens of it.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
    SyntaxError,  # numpy reads a dtype of several fields as Python source
)

Arrays = tuple[Array, Array, Array, Array]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what reading a broken file raises into one line about it."""
    try:
        yield
    except _BROKEN as error:
        detail = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {path}: {detail.rstrip('.')}.") from error


def read_npz(path: Path) -> tuple[Arrays, int | None]:
    """Read ``x_train``, ``y_train``, ``x_test`` and ``y_test`` (and ``classes``, if there) of an npz file.

    Raises:
        DataError: no such file, an array is missing, needs pickle, or is truncated or corrupt.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected an npz file with {', '.join(_NPZ_KEYS)}.")
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [key for key in _NPZ_KEYS if key not in names]
        # A hostile name may hold line ends.
        held = ", ".join(" ".join(name.split()) for name in sorted(names))
        if missing:
            raise DataError(
                f"{path} lacks {', '.join(missing)}; it holds {held or 'nothing'}, expected {', '.join(_NPZ_KEYS)}."
            )
        arrays = [_read_member(path, archive, names[key]) for key in _NPZ_KEYS]
        classes = _read_member(path, archive, names["classes"]) if "classes" in names else None
    if classes is not None and (classes.ndim or classes.dtype.kind not in "iu"):
        raise DataError(f"{path}: 'classes' must be one whole number.")
    return (arrays[0], arrays[1], arrays[2], arrays[3]), None if classes is None else int(classes)


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    if info.file_size > _DEFLATE_LIMIT * max(info.compress_size, 1):
        raise DataError(
            f"{path}: '{info.filename}' claims {info.file_size} bytes out of {info.compress_size}; refused."
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise DataError(f"{path}: '{info.filename}' holds Python objects, which need pickle; refused.")
        if math.prod(shape) * dtype.itemsize != info.file_size - stream.tell():
            raise DataError(f"{path}: '{info.filename}' of shape {shape} does not fit its {info.file_size} bytes.")
    with archive.open(info) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def read_idx_folder(folder: Path) -> Arrays:
    """Read the four files of MNIST and its relatives, with or without ``.gz``, ``-idx3-ubyte`` or ``.idx3-ubyte``.

    Raises:
        DataError: a file is missing, truncated or corrupt.
    """
    found = []
    for part in ("train", "t10k"):
        for kind, rank in (("images", 3), ("labels", 1)):
            names = [f"{part}-{kind}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
            path = next((folder / name for name in names if (folder / name).is_file()), None)
            if path is None:
                raise DataError(f"{folder} has no {names[0]} (nor {names[0]}.gz); expected the four MNIST-style files.")
            found.append(read_idx(path, rank))
    return found[0], found[1], found[2], found[3]


def read_idx(path: Path, rank: int) -> Array:
    """Read one idx file of unsigned bytes.

    Args:
        path: the file; ``.gz`` is decompressed.
        rank: the number of dimensions expected.

    Returns:
        uint8, in the file's shape.

    Raises:
        DataError: another kind of file, or not exactly the bytes that its header promises.
    """
    with _readable(path):
        if path.suffix != ".gz":
            with path.open("rb") as stream:
                return _idx_array(path, stream, rank, path.stat().st_size)
        with gzip.open(path, "rb") as packed:
            return _idx_array(path, packed, rank, path.stat().st_size * _DEFLATE_LIMIT)


def _idx_array(path: Path, stream: IO[bytes] | gzip.GzipFile, rank: int, most: int) -> Array:
    header = stream.read(4 + 4 * rank)
    if len(header) < 4 + 4 * rank or header[:3] != bytes([0, 0, _IDX_UBYTE]) or header[3] != rank:
        raise DataError(
            f"{path} is no idx file of unsigned bytes with {rank} dimensions; its header is {header[:4]!r}."
        )
    shape = tuple(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    count = math.prod(shape)
    if count > most:
        raise DataError(f"{path} claims {count} values of shape {shape}; it is too short for that.")
    # One byte more than promised, so that a longer file shows.
    content = stream.read(count + 1)
    if len(content) != count:
        held = "more" if len(content) > count else len(content)
        raise DataError(f"{path} should hold {count} values of shape {shape}; it holds {held}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_cifar10(folder: Path) -> Arrays:
    """Read CIFAR-10's binary version: ``data_batch_1.bin`` ... ``data_batch_5.bin`` and ``test_batch.bin``.

    A record is one label byte and 3,072 bytes of a 3x32x32 image (Krizhevsky 2009).

    Args:
        folder: with the files, or with the ``cifar-10-batches-bin`` folder of the archive.

    Raises:
        DataError: a file is missing, or is no whole number of records, or has a label above 9.
    """
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    train = [_cifar_records(folder / f"data_batch_{index}.bin") for index in range(1, 6)]
    test = _cifar_records(folder / "test_batch.bin")
    records = np.concatenate(train)
    return *_images_and_labels(records), *_images_and_labels(test)


def _cifar_records(path: Path) -> Array:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the binary version of CIFAR-10 (data_batch_1.bin ...).")
    with _readable(path):
        size = path.stat().st_size
        if size == 0 or size % _CIFAR_RECORD:
            raise DataError(f"{path} has {size} bytes, no whole number of records of {_CIFAR_RECORD} bytes.")
        records = np.fromfile(path, np.uint8).reshape(-1, _CIFAR_RECORD)
    if int(records[:, 0].max()) > 9:
        raise DataError(f"{path} has the label {int(records[:, 0].max())}; CIFAR-10 has 0 to 9.")
    return records


def _images_and_labels(records: Array) -> tuple[Array, Array]:
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)
