"""Files taken apart to what stands behind their checksums, and put together again with checksums that are right.

``take_apart`` gives a JSON value (what the file says about itself) and the bytes that follow; ``put_together`` makes a
file of any such pair. Between the two a forger may do what he likes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from sparsepack.exporters.codecs.deflate import deflate, inflate
from sparsepack.exporters.codecs.dictionary import DICTIONARY
from sparsepack.exporters.onnx_seal import seal
from sparsepack.exporters.torch_archive import ENTRY
from sparsepack.files import METADATA_KEY

Parts = tuple[Any, bytes]


def encode(value: Any) -> bytes:
    """As ``canonical_json``, but a forger's numbers may be anything."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def split_container(content: bytes) -> Parts:
    """A safetensors file: its header with our metadata decoded in it, and the tensors."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = json.loads(header["__metadata__"][METADATA_KEY])
    return header, content[8 + length :]


def join_container(header: Any, body: bytes) -> bytes:
    """A safetensors file; where our metadata has a CRC-32 of manifest and tensors, it is made right."""
    header = dict(header)
    metadata = header.pop("__metadata__", None)
    if isinstance(metadata, dict) and "crc32" in metadata:
        # The reader sums over the manifest as it writes JSON itself.
        manifest = json.dumps(metadata.get("manifest"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        metadata = {**metadata, "crc32": zlib.crc32(body, zlib.crc32(manifest.encode(errors="surrogatepass")))}
    encoded = json.dumps({"__metadata__": {METADATA_KEY: json.dumps(metadata)}, **header}).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


def split_packed(content: bytes) -> Parts:
    """A packed file: its manifest, and what follows it (hashes and streams)."""
    (header,) = struct.unpack_from("<Q", content)
    _, length = struct.unpack_from("<II", content, 8 + header)
    begin = 8 + header + 8
    manifest = json.loads(inflate(content[begin : begin + length], 10**6, DICTIONARY))
    return manifest, content[begin + length :]


def join_packed(manifest: Any, rest: bytes, compressed: bytes | None = None, length: int | None = None) -> bytes:
    """A packed file with a valid checksum around anything."""
    compressed = deflate(encode(manifest), DICTIONARY) if compressed is None else compressed
    body = struct.pack("<I", len(compressed) if length is None else length) + compressed + rest
    blob = struct.pack("<I", zlib.crc32(body)) + body
    metadata = encode({"format": "sparsepack.packed", "version": 1}).decode()
    entry = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [0, len(blob)]}
    header = json.dumps({"__metadata__": {METADATA_KEY: metadata}, "packed": entry}).encode()
    return struct.pack("<Q", len(header)) + header + blob


def split_sealed(content: bytes) -> Parts:
    """An ONNX file of ours: the JSON of the entry in front, and the model."""
    begin = content.index(b'{"format"')
    text = content[begin:].decode("latin-1")
    value, end = json.JSONDecoder().raw_decode(text)
    return value, content[begin + end :]


def join_sealed(value: Any, body: bytes) -> bytes:
    """An ONNX file with a valid hash in front."""
    return seal(encode(value), [body]) + body


def split_archive(content: bytes) -> Parts:
    """An npz file: the names and lengths of its members, and their bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return [[name, len(data)] for name, data in members.items()], b"".join(members.values())


def join_archive(members: Any, body: bytes) -> bytes:
    """An npz file whose members have the right checksums."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # Two members of one name are just what a forger wants.
        warnings.simplefilter("ignore")
        for name, length in members:
            archive.writestr(zipfile.ZipInfo(name), body[:length])
            body = body[length:]
    return buffer.getvalue()


def split_torch(content: bytes) -> Parts:
    """One of PyTorch's archives with our entry: what the entry says, and the names, lengths and bytes of the others."""
    members, body = split_archive(content)
    head, rest = json.loads(body[: members[0][1]]), body[members[0][1] :]
    return {"head": head, "members": members[1:]}, rest


def join_torch(value: Any, body: bytes) -> bytes:
    """An archive of stored entries whose hashes, where the entry lists them, are made right."""
    head, contents = dict(value["head"]), {}
    for name, length in value["members"]:
        contents[str(name)], body = body[:length], body[length:]
    if isinstance(head.get("sha256"), dict):
        found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        head["sha256"] = {name: found.get(name, old) for name, old in head["sha256"].items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(ENTRY), encode(head))
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def split_gzip(content: bytes) -> Parts:
    """A gzip file: nothing, and what it holds."""
    return None, gzip.decompress(content)


def join_gzip(_: Any, body: bytes) -> bytes:
    """A gzip file with a valid checksum."""
    return gzip.compress(body, mtime=0)


# By the names of ``originals``; a file that is not here has nothing that protects it.
FORGERS: dict[str, tuple[Callable[[bytes], Parts], Callable[[Any, bytes], bytes]]] = {
    "packed": (split_packed, join_packed),
    "packed parts": (split_packed, join_packed),
    "packed int8": (split_packed, join_packed),
    "packed drift": (split_packed, join_packed),
    "packed blocks": (split_packed, join_packed),
    "packed codebook": (split_packed, join_packed),
    "csr": (split_container, join_container),
    "csr int8": (split_container, join_container),
    "csr blocks": (split_container, join_container),
    "nm": (split_container, join_container),
    "checkpoint": (split_container, join_container),
    "tape": (split_container, join_container),
    "snapshot": (split_container, join_container),
    "onnx": (split_sealed, join_sealed),
    "onnx-unpack": (split_sealed, join_sealed),
    "onnx-unpack int8": (split_sealed, join_sealed),
    "onnx-unpack codebook": (split_sealed, join_sealed),
    "onnx-sparse": (split_sealed, join_sealed),
    "onnx-slim": (split_sealed, join_sealed),
    "sparse initializers": (split_sealed, join_sealed),
    "torchscript": (split_torch, join_torch),
    "torch-export": (split_torch, join_torch),
    "npz": (split_archive, join_archive),
    "idx.gz": (split_gzip, join_gzip),
}
