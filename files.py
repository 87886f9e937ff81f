"""Files that are never lost and never trusted: atomic writing, canonical JSON, hashes, checked safetensors.

Everything the project writes goes through :func:`atomic_path` (a temporary file beside the target, then a rename), and
every safetensors file it reads goes through :class:`TensorFile`, which refuses a bad header before it allocates.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FileFormatError, OutputExistsError, SparsepackError

Array = npt.NDArray[Any]

METADATA_KEY = "sparsepack"
_MAX_HEADER_BYTES = 100_000_000
# A reader refuses a file that claims more dense bytes than this: 64 MiB and 65,536 for each byte of the file. The
# emptiest network that the codecs can write stays below it, and a few forged bytes cannot ask for petabytes.
FREE_BYTES = 2**26
BYTES_PER_BYTE = 2**16
# safetensors' own names; the two bfloat16/float8 families are kept as raw integers of the same width.
_DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_CODES = {name: code for code, name in _DTYPES.items()}
# What a network's tensors can be of.
DTYPES = tuple(_CODES)
# As many as numpy had for decades.
_MAX_AXES = 32


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a name such as ``float32`` or ``bfloat16``.

    Raises:
        FileFormatError: the name is not one that a network's tensor can have.
    """
    if name not in _CODES:
        raise FileFormatError(f"unknown dtype '{name}'; expected one of {', '.join(_CODES)}.")
    if name.startswith(("bfloat16", "float8")):
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    return np.dtype(name)


def plausible_bytes(file_bytes: int) -> int:
    """Return the most dense bytes that a file of this size may claim."""
    return FREE_BYTES + BYTES_PER_BYTE * file_bytes


def possible_shape(shape: Sequence[int], itemsize: int) -> bool:
    """Tell whether an array can have a shape: a zero extent does not hide others that none can have."""
    extents = [extent for extent in shape if extent]
    return len(shape) <= _MAX_AXES and min(extents, default=1) > 0 and math.prod(extents) * itemsize < 2**63


def refuse_existing(path: Path, force: bool) -> None:
    """Raise :class:`OutputExistsError` when ``path`` exists and ``force`` is false."""
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists already; give --force to replace it, or choose another name.")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; success renames it onto ``path`` in one step, any failure removes it.

    Raises:
        SparsepackError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # As much of the name as leaves room for the rest: no file system counts more than four bytes a character.
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:48]}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise SparsepackError(f"cannot write {path}: {error.strerror or error}.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; an artifact is as readable as any file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise SparsepackError(f"cannot write {path}: {error.strerror or error}; nothing was changed.") from error
    finally:
        temporary.unlink(missing_ok=True)


def path_text(path: Path | str) -> str:
    """Return a path, or words that hold some, as text for any file: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_array(array: Array) -> str:
    """Return the SHA-256 (hex) of an array's little-endian row-major bytes; shape and dtype are not part of it."""
    return hashlib.sha256(little_endian_bytes(array)).hexdigest()


def little_endian_bytes(array: Array) -> memoryview:
    """Return an array's bytes in row-major order, little-endian whatever the array's own; a view where that can be."""
    little = np.ascontiguousarray(array)
    if little.dtype.byteorder == ">":
        little = little.astype(little.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_safetensors(path: Path, tensors: Mapping[str, Array], metadata: Any) -> None:
    """Write a safetensors file whose only metadata key holds ``metadata`` as canonical JSON.

    Tensors are laid out in the mapping's order, aligned to 8 bytes as the format asks, so equal input gives equal
    bytes. (The library writes several metadata keys in random order; one key and our own 20 lines keep it fixed.)
    """
    header = safetensors_header({name: (a.dtype.name, np.shape(a)) for name, a in tensors.items()}, metadata)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        for array in tensors.values():
            stream.write(little_endian_bytes(array))


def safetensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Any) -> bytes:
    """Return what stands before the tensors' bytes, which follow in the mapping's order without holes.

    Args:
        tensors: dtype name and shape of each.
        metadata: becomes canonical JSON under the one metadata key.
    """
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: canonical_json(metadata).decode()}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * numpy_dtype(dtype).itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded


def decoded_json(text: str | bytes) -> Any:
    """Return decoded JSON; half a surrogate pair, which Python takes and nothing can write again, is a ValueError."""
    value = json.loads(text)
    written = text.encode() if isinstance(text, str) else text
    if b"\\ud" in written.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


class TensorFile:
    """A safetensors file opened for reading; the header is checked against the file's size before anything is read.

    Attributes:
        path: where it lies.
        metadata: the decoded JSON of our metadata key, or None when a foreign tool wrote the file.
        header_bytes: length prefix and header together, in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                prefix = stream.read(8)
                if len(prefix) < 8:
                    raise FileFormatError(f"{path} is not a safetensors file: it is only {size} bytes long.")
                (length,) = struct.unpack("<Q", prefix)
                if length > min(size - 8, _MAX_HEADER_BYTES):
                    raise FileFormatError(
                        f"{path} is not a safetensors file or is truncated: its header claims {length} bytes, "
                        f"the file has {size}."
                    )
                raw = stream.read(length)
        except OSError as error:
            raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
        self.header_bytes = 8 + length
        try:
            header = decoded_json(raw)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path} is not a safetensors file: its header is no JSON ({error}).") from error
        if not isinstance(header, dict):
            raise FileFormatError(f"{path} is not a safetensors file: its header is no JSON object.")
        self.metadata = self._read_metadata(header.pop("__metadata__", {}))
        self._entries: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
        self._check_entries(header, size)

    def _read_metadata(self, metadata: Any) -> Any:
        text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
        if text is None:
            return None
        try:
            return decoded_json(text)
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            raise FileFormatError(f"{self.path}: the '{METADATA_KEY}' metadata is no JSON ({error}).") from error

    def _check_entries(self, header: dict[str, Any], size: int) -> None:
        spans = []
        for name, entry in header.items():
            try:
                code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
                whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, begin, end))
            except (TypeError, KeyError, ValueError) as error:
                raise FileFormatError(f"{self.path}: the header's entry for '{name}' is malformed.") from error
            if not whole or not isinstance(code, str) or code not in _DTYPES:
                raise FileFormatError(f"{self.path}: the header's entry for '{name}' is malformed.")
            dtype = numpy_dtype(_DTYPES[code])
            if not possible_shape(shape, dtype.itemsize):
                raise FileFormatError(f"{self.path}: tensor '{name}' has a shape that no array can have.")
            count = math.prod(shape)
            if end - begin != count * dtype.itemsize or self.header_bytes + end > size:
                raise FileFormatError(
                    f"{self.path}: tensor '{name}' of shape {tuple(shape)} needs {count * dtype.itemsize} bytes, "
                    f"the file holds {max(0, min(end, size - self.header_bytes) - begin)}; it is truncated or corrupt."
                )
            spans.append((begin, end))
            self._entries[name] = (dtype, tuple(shape), begin)
        position = 0
        for begin, end in sorted(spans):
            if begin != position:
                raise FileFormatError(f"{self.path}: its tensors overlap or leave holes at byte {position}.")
            position = end
        if self.header_bytes + position != size:
            raise FileFormatError(
                f"{self.path}: {size - self.header_bytes - position} bytes follow the last tensor; it is corrupt."
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._entry(name)[1]

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor without reading it."""
        return self._entry(name)[0]

    def nbytes(self, name: str) -> int:
        """Return the bytes that a tensor takes in the file."""
        dtype, shape, _ = self._entry(name)
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def read(self, name: str) -> Array:
        """Return one tensor as a fresh writable array."""
        dtype, shape, begin = self._entry(name)
        array = np.empty(shape, dtype)
        with self.path.open("rb") as stream:
            stream.seek(self.header_bytes + begin)
            count = stream.readinto(array.reshape(-1).view(np.uint8).data)
        if count != array.nbytes:
            raise FileFormatError(f"{self.path}: tensor '{name}' ends early; the file is truncated.")
        return array

    def _entry(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
        if name not in self._entries:
            raise FileFormatError(
                f"{self.path}: tensor '{name}' is missing; the file is incomplete or of another kind."
            )
        return self._entries[name]
