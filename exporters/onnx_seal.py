"""Our entry in an ONNX file: what the file says about itself, and a hash of everything in it.

The entry is the first field of the file, a ``metadata_props`` entry with the key ``sparsepack.onnx`` whose value is a
SHA-256 (64 hexadecimal digits) and JSON; the hash covers the JSON and every byte behind the entry. Protobuf allows
fields in any order, so ONNX tools read the model as ever; standing first, the entry notices a file cut at any byte. A
tool that writes the model again moves the entry, and the file counts as that tool's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import FileFormatError, HashMismatchError
from ..files import atomic_path
from .container import check_version

KEY = b"sparsepack.onnx"
# ModelProto.metadata_props (field 14), and key and value inside an entry, all length-delimited.
_ENTRY, _KEY, _VALUE = 0x72, 0x0A, 0x12
_DIGEST = 64
_CHUNK = 1 << 20
# Enough for the entry's frame, both names and the digest.
_HEAD = 160


def seal(content: bytes, body: Iterable[bytes]) -> bytes:
    """Return the entry that goes before a serialised model.

    Args:
        content: canonical JSON that begins with the format's name, ``{"format":"sparsepack.onnx",...``.
        body: the model in pieces, without an entry of ours.
    """
    digest = hashlib.sha256(content)
    for piece in body:
        digest.update(piece)
    return _entry(digest.hexdigest().encode() + content)


def claimed_format(path: Path) -> str | None:
    """Return the format that a file of ours names in its first bytes, unchecked; None for any other file."""
    with path.open("rb") as stream:
        found = re.search(rb'"format":"sparsepack\.([a-z0-9-]+)"', stream.read(_HEAD))
    return found[1].decode() if found else None


def read_seal(path: Path) -> bytes | None:
    """Return the JSON after comparing the hash; None when the file has no entry of ours in front.

    Raises:
        HashMismatchError: the file was changed since it was written.
        FileFormatError: the entry itself is damaged.
    """
    with path.open("rb") as stream:
        frame = _frame(path, stream.read(_HEAD))
        if frame is None:
            return None
        stream.seek(frame.value)
        value = stream.read(frame.value_length)
        stream.seek(0)
        if stream.read(frame.end) != _entry(value):
            raise FileFormatError(f"{path} is corrupt: its sparsepack entry is damaged.")
        content = value[_DIGEST:]
        digest = hashlib.sha256(content)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if value[:_DIGEST] != digest.hexdigest().encode():
        raise HashMismatchError(f"{path} was changed after it was written: its SHA-256 differs.")
    return content


def remove_seal(path: Path) -> None:
    """Take our entry, if there is one in front, out of a file whose contents it no longer tells.

    Raises:
        FileFormatError: the entry is cut off.
    """
    with path.open("rb") as stream:
        frame = _frame(path, stream.read(_HEAD))
        if frame is None:
            return
        stream.seek(frame.end)
        with atomic_path(path) as temporary, temporary.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _CHUNK)


def sealed_metadata(path: Path, format: str, version: int) -> dict[str, Any]:
    """Return what a file of ours says about itself.

    Raises:
        HashMismatchError: the file was changed since it was written.
        FileFormatError: it is not of this format and version, or its entry is damaged.
    """
    content = read_seal(path)
    try:
        metadata: Any = None if content is None else msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}: its sparsepack entry is no JSON: {error}.") from error
    check_version(path, metadata, format, version)
    found: dict[str, Any] = metadata
    return found


@dataclass(frozen=True)
class _Frame:
    """Where an entry's value begins, how long it is, and where the entry ends."""

    value: int
    value_length: int
    end: int


def _frame(path: Path, head: bytes) -> _Frame | None:
    """Return where our entry lies in a file that begins with ``head``; None without one.

    Raises:
        FileFormatError: the entry is cut off, or longer than the file.
    """
    # Key and JSON both hold the name: damage to one of them does not turn the file into somebody else's.
    if KEY not in head:
        return None
    try:
        length, begin = _read_varint(head, 1)
        value_length, value = _read_varint(head, begin + 2 + len(KEY) + 1)
    except IndexError as error:
        raise FileFormatError(f"{path} is truncated: its sparsepack entry ends early.") from error
    claimed = max(value + value_length, begin + length)
    if claimed > path.stat().st_size:
        raise FileFormatError(f"{path} is truncated or corrupt: its sparsepack entry claims to end at byte {claimed}.")
    return _Frame(value, value_length, begin + length)


def _entry(value: bytes) -> bytes:
    inner = bytes([_KEY]) + varint(len(KEY)) + KEY + bytes([_VALUE]) + varint(len(value)) + value
    return bytes([_ENTRY]) + varint(len(inner)) + inner


def varint(number: int) -> bytes:
    """Return a whole number as protobuf writes it: seven bits a byte, the lowest first."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return number, position
