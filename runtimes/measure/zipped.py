"""The zipped dense size: what a user gets by zipping the dense checkpoint, and so the baseline that a format must beat.

zstd level 19 of every tensor's dense bytes, one frame, in the order given. That takes a minute for ResNet-50, so the
result is kept under the SHA-256 of those bytes: equal tensors are zipped once, whatever file they came from. It is kept
in a folder of its own (``SPARSEPACK_CACHE``, else ``XDG_CACHE_HOME/sparsepack``, else ``~/.cache/sparsepack``), not
beside artifacts, because artifacts travel without the checkpoint and often lie where nothing may be written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ...errors import SparsepackError
from ...files import Array, canonical_json, little_endian_bytes, write_bytes

LEVEL = 19


def distinct(tensors: Mapping[str, Array]) -> list[Array]:
    """Return the tensors in order, storage that several names share once."""
    seen: set[int] = set()
    unique = []
    for array in tensors.values():
        if id(array) not in seen:
            seen.add(id(array))
            unique.append(array)
    return unique


def zipped_dense_bytes(tensors: Mapping[str, Array], cache: Path | None = None) -> int:
    """Return the size of the zstd level 19 frame of all dense bytes.

    Args:
        tensors: every parameter and buffer, dense, in state_dict order.
        cache: folder of known results; None takes the default one.
    """
    arrays = distinct(tensors)
    digest = hashlib.sha256()
    for piece in map(little_endian_bytes, arrays):
        digest.update(piece)
    entry = (cache or cache_folder()) / "zipped" / f"{digest.hexdigest()}.json"
    known = _known(entry)
    if known is not None:
        return known
    size = _zip(arrays)
    try:
        write_bytes(entry, canonical_json({"level": LEVEL, "bytes": size}))
    except SparsepackError:
        # A cache that cannot be written (read-only home, full disk) costs time, not the result.
        return size
    return size


def cache_folder() -> Path:
    """Return the folder that results are kept in; see the module's description."""
    own = os.environ.get("SPARSEPACK_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sparsepack"


def _known(entry: Path) -> int | None:
    try:
        fields = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return None
    size = fields.get("bytes") if isinstance(fields, dict) and fields.get("level") == LEVEL else None
    return size if isinstance(size, int) and size > 0 else None


def _zip(arrays: list[Array]) -> int:
    """Compress piece by piece, keeping only the count; one thread, because more would give another size."""
    import zstandard

    stream = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=sum(array.nbytes for array in arrays))
    size = sum(len(stream.compress(piece)) for piece in map(little_endian_bytes, arrays))
    return size + len(stream.flush())
