"""``packed`` (.spk): the smallest lossless file. Every tensor takes the smallest of the codecs that apply to it.

In: a sparse checkpoint. Out: a safetensors container with a single tensor of bytes, laid out as docs/FORMAT.md says:
checksum, deflated manifest, the beginning of each tensor's SHA-256, then positions and values of each tensor, back to
back. Frozen and selected tensors store no value that their seed draws again.
"""

from __future__ import annotations

import math
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.mask import BoolArray
from ..compressor.parametrisations import PARAMETRISATIONS as KINDS
from ..errors import FileFormatError, UnsupportedError
from ..files import (
    BYTES_PER_BYTE,
    FREE_BYTES,
    Array,
    TensorFile,
    atomic_path,
    numpy_dtype,
    plausible_bytes,
    refuse_existing,
    safetensors_header,
)
from .codecs import CODED, POSITIONS, SEEDED, VALUES, Layout
from .codecs.coded import POOLED, decode_coded, encode_coded
from .codecs.deflate import deflate, inflate
from .codecs.dictionary import DICTIONARY
from .codecs.drift import DRIFT, decode_drift
from .codecs.seeded import SeededMask
from .container import PREFIX, ContainerArtifact, StoredTensor, check_version
from .drifted import drawn_values, encode_drifted
from .manifest import TensorEntry, describe, manifest_json, read_manifest
from .manifest_checks import PARAMETRISATIONS
from .packed_parts import check_part_codecs, decode_parts, encode_parts, encode_positions, encode_values
from .parts import VALUES as VALUE_TYPES
from .parts import Part, drawn, parts, stored_units
from .quantise import Coded
from .value_types import INT8, parse_values

FORMAT = "packed"
VERSION = 1
_BLOB = "packed"
_PREFIX = struct.Struct("<II")
_CHECKSUM = struct.Struct("<I")
_CHUNK = 2**20
# As much of a SHA-256 as a file keeps: enough against accidents, and no hash inside a file guards against intent.
_DIGEST = 8
# A manifest of more would describe a million tensors.
_MAX_MANIFEST = 2**26
# Tensors larger than this always store positions once the network is so large that empty streams could look forged.
_FREE_WEIGHTS = 2**17


def write_packed(checkpoint: SparseCheckpoint, path: Path, *, values: str = "fp32", force: bool = False) -> None:
    """Write a checkpoint as ``packed``.

    Args:
        checkpoint: any checkpoint.
        path: where to.
        values: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``codebook:BITS``.
        force: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: a value does not fit the value type.
    """
    refuse_existing(path, force)
    # The manifest stands first and is known last, so streams wait in a file: one tensor at a time is in memory.
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as streams:
        front = _encode_all(checkpoint, values, streams)
        size = len(front) + streams.tell()
        checksum = zlib.crc32(front)
        for chunk in _chunks(streams):
            checksum = zlib.crc32(chunk, checksum)
        shape = (_CHECKSUM.size + size,)
        header = safetensors_header({_BLOB: ("uint8", shape)}, {"format": PREFIX + FORMAT, "version": VERSION})
        with temporary.open("wb") as file:
            file.writelines([header, _CHECKSUM.pack(checksum), front])
            file.writelines(_chunks(streams))


def _encode_all(checkpoint: SparseCheckpoint, values: str, streams: IO[bytes]) -> bytes:
    """Write every tensor's streams, one after the other; return what stands between the checksum and them."""
    dense = sum(
        math.prod(record.shape) * numpy_dtype(record.dtype).itemsize
        for record in checkpoint.metadata.tensors
        if record.alias_of is None
    )
    described, digests = [], []
    error, stated = 0.0, 0
    pooled = False
    for part in parts(checkpoint, values, keeps=KINDS):
        free = dense <= FREE_BYTES or part.entry.size <= _FREE_WEIGHTS
        seed = checkpoint.metadata.provenance.seed
        entry, pieces = _encode(part, free=free, with_table=not pooled, seed=seed)
        pooled = pooled or (part.coded is not None and part.coded.pooled)
        if entry.alias_of is None:
            digests.append(bytes.fromhex(part.entry.sha256)[:_DIGEST])
        stated += entry.size * numpy_dtype(entry.dtype).itemsize + sum(array.nbytes for array in part.parts.values())
        needs_seed = entry.parametrisation != "identity" or (entry.values or ("",))[0] in (SEEDED, DRIFT)
        described.append((entry, part.seed if needs_seed else None))
        streams.writelines(pieces)
        error = max(error, part.max_abs_error)
    lossy = None if parse_values(values, VALUE_TYPES).lossless else error
    manifest = describe(checkpoint.metadata, described, values=values, max_abs_error=lossy, chain=False)
    compressed = deflate(manifest_json(manifest), DICTIONARY)
    front = b"".join([struct.pack("<I", len(compressed)), compressed, *digests])
    if stated > plausible_bytes(len(front) + streams.tell()):
        raise UnsupportedError(
            f"the network takes {stated} bytes dense and {len(front) + streams.tell()} packed, so few that no reader "
            "would believe them; export to 'csr' or 'onnx'."
        )
    return front


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        yield chunk


def _encode(part: Part, *, free: bool, with_table: bool, seed: int) -> tuple[TensorEntry, list[bytes]]:
    entry = msgspec.structs.replace(part.entry, sha256="")
    if entry.alias_of is not None:
        return entry, []
    if entry.parametrisation not in PARAMETRISATIONS:
        return encode_parts(part, entry, free)
    if part.values is None or (free and drawn(part)):
        codec, values = SEEDED, b""
    elif part.coded is not None:
        codec, values = encode_coded(part.coded, with_table=with_table or not part.coded.pooled)
    else:
        codec, values = encode_values(part.values)
        drifted = encode_drifted(part, len(values))
        codec, values = (codec, values) if drifted is None else (DRIFT, drifted)
    entry = msgspec.structs.replace(entry, values=(codec, len(values)))
    if part.mask is None:
        return entry, [values]
    layout = Layout(entry.shape, entry.structure, entry.output_axis, entry.kept_count, entry.name, seed)
    # The values must vouch for the tensor where its positions take next to nothing.
    vouched = len(values) * BYTES_PER_BYTE >= entry.size * numpy_dtype(entry.dtype).itemsize
    codec, positions = encode_positions(part.mask, layout, free=free, seeded=free or vouched)
    return msgspec.structs.replace(entry, positions=(codec, len(positions))), [positions, values]


class PackedArtifact(ContainerArtifact):
    """An opened ``packed`` file: the manifest is in memory, streams are read tensor by tensor."""

    def __init__(self, file: TensorFile) -> None:
        check_version(file.path, file.metadata, FORMAT, VERSION)
        if list(file) != [_BLOB] or file.dtype(_BLOB) != np.uint8 or len(file.shape(_BLOB)) != 1:
            raise FileFormatError(f"{file.path}: a packed file holds one row of bytes named '{_BLOB}', nothing else.")
        size = file.nbytes(_BLOB)
        if size < _PREFIX.size:
            raise FileFormatError(f"{file.path}: {size} bytes are too few for a packed file.")
        length = self._check_blob(file, size)
        try:
            content = inflate(_slice(file, _PREFIX.size, length), _MAX_MANIFEST, DICTIONARY)
        except FileFormatError as error:
            raise FileFormatError(f"{file.path}: its manifest is corrupt: {error}") from error
        manifest = read_manifest(file.path, content, file.header_bytes + size, keeps=KINDS)
        super().__init__(file, FORMAT, manifest)
        self._locate(_PREFIX.size + length, size)

    @staticmethod
    def _check_blob(file: TensorFile, size: int) -> int:
        """Compare the checksum without holding the blob; return the manifest's length."""
        with file.path.open("rb") as stream:
            stream.seek(file.header_bytes)
            checksum, length = _PREFIX.unpack(stream.read(_PREFIX.size))
            found = zlib.crc32(struct.pack("<I", length))
            while chunk := stream.read(_CHUNK):
                found = zlib.crc32(chunk, found)
        if found != checksum:
            raise FileFormatError(f"{file.path} is corrupt: its checksum differs from the one that was written.")
        if length > size - _PREFIX.size:
            raise FileFormatError(f"{file.path}: its manifest of {length} bytes does not fit into the file.")
        return int(length)

    def _locate(self, begin: int, size: int) -> None:
        stored = [entry for entry in self.manifest.tensors if entry.alias_of is None]
        self._digests: dict[str, str] = {}
        self._offsets: dict[str, int] = {}
        if len(stored) * _DIGEST > size - begin:
            raise FileFormatError(f"{self.path} ends within its table of hashes.")
        table = _slice(self.file, begin, len(stored) * _DIGEST)
        offset = begin + len(table)
        for row, entry in enumerate(stored):
            if entry.parametrisation in PARAMETRISATIONS:
                _check_codecs(self.path, entry)
            else:
                check_part_codecs(self.path, entry, self.manifest.specification(entry))
            self._digests[entry.name] = table[row * _DIGEST : (row + 1) * _DIGEST].hex()
            self._offsets[entry.name] = offset
            offset += self.tensor_bytes(entry)
        if offset != size:
            raise FileFormatError(f"{self.path}: its streams take {offset} bytes, the file holds {size}.")

    def digest(self, entry: TensorEntry) -> str:
        """Return the hash from the table; see :meth:`.container.ContainerArtifact.digest`."""
        return self._digests.get(entry.name, "")

    def tensor_bytes(self, entry: TensorEntry) -> int:
        """Return the bytes of all its streams; see :meth:`.container.ContainerArtifact.tensor_bytes`."""
        parts = sum(length for _, length in entry.parts.values())
        return (entry.positions[1] if entry.positions else 0) + (entry.values[1] if entry.values else 0) + parts

    def read(self, entry: TensorEntry) -> StoredTensor:
        """Decode its streams; see :meth:`.container.ContainerArtifact.read`."""
        if entry.parametrisation not in PARAMETRISATIONS:
            return self._read_parts(entry)
        offset = self._offsets[entry.name]
        mask, names, mask_drawn = None, [], False
        if entry.positions is not None:
            codec, length = entry.positions
            layout = Layout(entry.shape, entry.structure, entry.output_axis, entry.kept_count, entry.name)
            mask = POSITIONS[codec].decode(_slice(self.file, offset, length), layout)
            offset += length
            names.append(codec)
            mask_drawn = codec == SeededMask.id
        codec, length = entry.values or (SEEDED, 0)
        names.append(codec)
        values, codes = None, None
        if codec in CODED:
            coded = self._coded(entry, _slice(self.file, offset, length))
            values, codes = coded.decode(stored_units(entry, mask) if coded.kind == INT8 else None), coded.codes
        elif codec != SEEDED:
            values = self._values(entry, mask, codec, _slice(self.file, offset, length))
        return StoredTensor(mask, values, " + ".join(names), codes, mask_drawn)

    def _values(self, entry: TensorEntry, mask: BoolArray | None, codec: str, stream: bytes) -> Array:
        count, dtype = entry.size if mask is None else entry.kept_count, numpy_dtype(entry.stored_dtype)
        seed = self.manifest.seed_of(entry) if codec == DRIFT and count else None
        if seed is not None:
            return decode_drift(stream, drawn_values(seed, entry.shape, mask, dtype, count))
        return VALUES[codec].decode(stream, count, dtype)

    def _read_parts(self, entry: TensorEntry) -> StoredTensor:
        begin, length = self._offsets[entry.name], self.tensor_bytes(entry)
        spec = self.manifest.specification(entry)
        # Manifest and codecs were checked: the owner stores the part, and shares nothing itself.
        owned = {} if entry.shares is None else self._read_parts(self._entry(entry.shares)).parts
        return decode_parts(entry, spec, _slice(self.file, begin, length), owned)

    def _coded(self, entry: TensorEntry, stream: bytes) -> Coded:
        codec = entry.values[0] if entry.values else ""
        first = next((e for e in self.manifest.tensors if e.values and e.values[0] == POOLED), entry)
        pool = None
        if codec == POOLED and first is not entry:
            offset = self._offsets[first.name] + (first.positions[1] if first.positions else 0)
            length = first.values[1] if first.values else 0
            pool = self._coded(first, _slice(self.file, offset, length)).table
        units = entry.shape[entry.output_axis] if entry.shape else 1
        count = entry.kept_count if entry.masked else entry.size
        return decode_coded(codec, stream, count, numpy_dtype(entry.dtype), units, pool)


def _check_codecs(path: Path, entry: TensorEntry) -> None:
    problem = None
    codec, length = entry.values or ("", 0)
    if entry.values is None or codec not in (*VALUES, *CODED, SEEDED, DRIFT):
        problem = f"names the unknown value codec '{codec}'"
    elif (entry.positions is not None) != entry.masked:
        problem = "has positions without a mask, or a mask without positions"
    elif entry.positions is not None and entry.positions[0] not in POSITIONS:
        problem = f"names the unknown position codec '{entry.positions[0]}'"
    elif length < 0 or (entry.positions is not None and entry.positions[1] < 0):
        problem = "has a stream of negative length"
    elif codec == SEEDED and (length or entry.seed is None or entry.parametrisation == "frozen"):
        problem = "stores no values and has no seed that draws them"
    elif codec in CODED and not (entry.kept_count if entry.masked else entry.size):
        problem = "has codes, but no values"
    elif codec == DRIFT and (entry.seed is None or not (entry.kept_count if entry.masked else entry.size)):
        problem = "has distances from a seed, but no seed or no values"
    elif codec != SEEDED and entry.parametrisation == "selected":
        problem = "is selected, but stores values"
    elif codec == SEEDED and entry.masked and entry.parametrisation != "selected":
        problem = "stores no values and has no seed that draws them"
    if problem:
        raise FileFormatError(f"{path}: tensor '{entry.name}' {problem}.")


def _slice(file: TensorFile, begin: int, length: int) -> bytes:
    """Return a part of the blob; its bounds were checked against the file when it was opened."""
    with file.path.open("rb") as stream:
        stream.seek(file.header_bytes + begin)
        data = stream.read(length)
    if len(data) != length:
        raise FileFormatError(f"{file.path} ends early.")
    return data
