"""Hostile artifacts: cut, flipped, forged. Each ends in one FileFormatError, quickly, and before memory is taken."""

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError, HashMismatchError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.codecs.deflate import deflate, inflate
from sparsepack.exporters.codecs.dictionary import DICTIONARY
from sparsepack.files import METADATA_KEY, canonical_json
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import load_source

Build = Callable[..., SparseCheckpoint]
FORMATS = ["packed", "csr", "nm", "onnx"]
# Far below what any forged count asks for, far above what reading a file of two kilobytes needs.
MEMORY = 16 * 2**20

FACTORY = """
from torch import nn


def build():
    import torch
    return nn.Linear(16, 6), torch.zeros(1, 16)
"""


@pytest.fixture(scope="module")
def originals(checkpoint_of: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small artifact a format: a masked tensor, a frozen one, a whole one, a tied name."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, 16)).astype(np.float32)
    mask = np.tile([True, False, False, True], 24).reshape(6, 16)
    seed = SeedRecord("keyed-product", 0, "frozen", "uniform", 0.25)
    masked = make_tensor("weight", dense, mask=mask, record={"structure": "2:4", "role": "prunable"})
    frozen = make_tensor("frozen", dense, mask=dense > 1, record={"parametrisation": "frozen", "seed": seed})
    bias = make_tensor("bias", dense[0, :6].copy())
    tied = make_tensor("tied", dense, record={"alias_of": "weight"})
    (folder / "network.py").write_text(FACTORY)
    source = load_source(f"{folder / 'network.py'}:build", allow_import=True)
    checkpoints = {
        "packed": checkpoint_of(masked, frozen, bias, tied),
        "csr": checkpoint_of(masked, frozen, bias, tied),
        "nm": checkpoint_of(masked, bias, tied),
        "onnx": checkpoint_of(masked, bias, model=source.record),
    }
    files = {}
    for format, checkpoint in checkpoints.items():
        export(checkpoint, format, folder / format, source=source)
        files[format] = (folder / format).read_bytes()
    return files


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


def read_all(path: Path) -> None:
    artifact = open_artifact(path)
    artifact.verify()
    artifact.rows()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_all(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("format", FORMATS)
def test_files_cut_at_every_byte_are_refused(format: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    content = originals[format]
    with bounded_memory():
        for length in range(len(content)):
            refused(tmp_path / "x", content[:length])
        refused(tmp_path / "x", content + b"\0")


@pytest.mark.parametrize("format", FORMATS)
def test_one_bit_flipped_at_every_byte_is_refused(format: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    content = originals[format]
    with bounded_memory():
        for position in range(len(content)):
            flipped = bytearray(content)
            flipped[position] ^= 1 << (position * 5 % 8)
            refused(tmp_path / "x", bytes(flipped))


def split_packed(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return manifest, and what follows it (hashes and streams)."""
    (header,) = struct.unpack_from("<Q", content)
    _, length = struct.unpack_from("<II", content, 8 + header)
    begin = 8 + header + 8
    manifest = json.loads(inflate(content[begin : begin + length], 10**6, DICTIONARY))
    return manifest, content[begin + length :]


def join_packed(manifest: Any, rest: bytes, compressed: bytes | None = None, length: int | None = None) -> bytes:
    """A packed file with a valid checksum around anything."""
    compressed = deflate(canonical_json(manifest), DICTIONARY) if compressed is None else compressed
    body = struct.pack("<I", len(compressed) if length is None else length) + compressed + rest
    blob = struct.pack("<I", zlib.crc32(body)) + body
    metadata = canonical_json({"format": "sparsepack.packed", "version": 1}).decode()
    entry = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [0, len(blob)]}
    header = json.dumps({"__metadata__": {METADATA_KEY: metadata}, "packed": entry}).encode()
    return struct.pack("<Q", len(header)) + header + blob


def entry_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in manifest["tensors"] if entry["name"] == name)


def test_the_forger_can_write_an_honest_file(originals: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(join_packed(*split_packed(originals["packed"])))
    read_all(tmp_path / "x")


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "petabytes": (lambda m: entry_of(m, "bias").update(shape=[2**20, 2**30]), "cannot hold the"),
    "overflow": (lambda m: entry_of(m, "bias").update(shape=[2**40, 2**40]), "impossible shape"),
    "hidden overflow": (lambda m: entry_of(m, "bias").update(shape=[0, 2**62, 2**62]), "impossible shape"),
    "negative": (lambda m: entry_of(m, "bias").update(shape=[-6]), "impossible shape"),
    "fraction": (lambda m: entry_of(m, "bias").update(shape=[1.5]), "malformed"),
    "axes": (lambda m: entry_of(m, "bias").update(shape=[1] * 40), "impossible shape"),
    "axis": (lambda m: entry_of(m, "weight").update(output_axis=2), "has no axis 2"),
    "kept": (lambda m: entry_of(m, "weight").update(kept=97), "keeps 97 of 96"),
    "kept less": (lambda m: entry_of(m, "weight").update(kept=47), "is corrupt"),
    "kept missing": (lambda m: entry_of(m, "weight").pop("kept"), "keeps None of 96"),
    "twice": (lambda m: m["tensors"].append(entry_of(m, "bias")), "listed twice"),
    "dtype": (lambda m: entry_of(m, "bias").update(dtype="object"), "unknown dtype 'object'"),
    "longer": (lambda m: entry_of(m, "bias").update(dtype="float64"), "tensor 'bias' is corrupt"),
    "alias of nothing": (lambda m: entry_of(m, "tied").update(alias_of="nobody"), "alias of 'nobody'"),
    "alias of itself": (lambda m: entry_of(m, "tied").update(alias_of="tied"), "alias of 'tied'"),
    "alias of another": (lambda m: entry_of(m, "tied").update(alias_of="bias"), "alias of 'bias'"),
    "codec": (lambda m: entry_of(m, "bias").update(values=["zstd", 9]), "unknown value codec 'zstd'"),
    "position codec": (lambda m: entry_of(m, "weight").update(positions=["coo", 9]), "unknown position codec 'coo'"),
    "no values": (lambda m: entry_of(m, "bias").pop("values"), "unknown value codec"),
    "mask without positions": (lambda m: entry_of(m, "weight").pop("positions"), "a mask without positions"),
    "negative stream": (lambda m: entry_of(m, "bias").update(values=["raw", -24]), "negative length"),
    "longer stream": (lambda m: entry_of(m, "bias").update(values=["raw", 2**50]), "its streams take"),
    "shorter stream": (lambda m: entry_of(m, "bias").update(values=["raw", 3]), "its streams take"),
    "seeded": (lambda m: entry_of(m, "bias").update(values=["seeded", 0]), "no seed that draws"),
    "no seeding": (lambda m: m.pop("seeding"), "decodes to other bytes"),
    "generator": (lambda m: m["seeding"].__setitem__(0, "dice"), "unknown generator 'dice'"),
    "initialiser": (lambda m: m["seeding"].__setitem__(1, "orthogonal"), "which no seed rebuilds"),
    "seed": (lambda m: m["seeding"].__setitem__(2, 2**40), "outside 32 bits"),
    "bound": (lambda m: entry_of(m, "frozen").update(seed={"bound": 1e300}), "no finite float32"),
    "parametrisation": (lambda m: entry_of(m, "frozen").update(parametrisation="magic"), "unknown parametrisation"),
    "frozen without mask": (lambda m: entry_of(m, "bias").update(parametrisation="frozen"), "but has no mask"),
    "selected": (lambda m: entry_of(m, "frozen").update(parametrisation="selected"), "selected, but stores values"),
    "structure": (lambda m: entry_of(m, "weight").update(structure="4:2"), "unknown structure '4:2'"),
    "unknown field": (lambda m: m.update(later=1), "malformed"),
    "no tensors": (lambda m: m.pop("tensors"), "malformed"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_manifests_are_refused(forgery: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    change, text = FORGERIES[forgery]
    manifest, rest = split_packed(originals["packed"])
    change(manifest)
    with bounded_memory():
        assert text in refused(tmp_path / "x", join_packed(manifest, rest))


def test_a_manifest_that_is_a_bomb_is_refused(originals: dict[str, bytes], tmp_path: Path) -> None:
    _, rest = split_packed(originals["packed"])
    path = tmp_path / "x"
    assert "manifest is malformed" in refused(path, join_packed(None, rest, deflate(b"[" * 100_000, DICTIONARY)))
    assert "manifest is malformed" in refused(path, join_packed(None, rest, deflate(b"\xff\xfe", DICTIONARY)))
    assert "does not fit into the file" in refused(path, join_packed({}, rest, length=2**31))
    assert "manifest is corrupt" in refused(path, join_packed({}, b"", b"\x07"))
    # A hundred megabytes of spaces in a hundred kilobytes: stopped at the limit.
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([coder.compress(b" " * 10**6) for _ in range(100)]) + coder.flush()
    assert "holds more than" in refused(path, join_packed(None, rest, bomb))


def test_empty_streams_cannot_ask_for_the_world(tmp_path: Path) -> None:
    """Codecs that store nothing are the cheapest way to promise much: their sum is bounded by the file's size."""
    model = {"inputs": [], "kind": "zoo", "text": "x"}
    nothing = {"kept": 0, "masked": True, "positions": ["none", 0], "values": ["raw", 0]}
    tensors = [{"name": f"t{i}", "shape": [2**22], **nothing} for i in range(40)]
    with bounded_memory():
        text = refused(tmp_path / "x", join_packed({"model": model, "tensors": tensors}, bytes(8 * 40)))
    assert "cannot hold the" in text


@pytest.mark.parametrize("codec", ["gaps", "bitmap-deflate", "channels", "n-of-m", "deflate", "floats"])
def test_streams_that_inflate_beyond_their_tensor_are_refused(codec: str, tmp_path: Path) -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([coder.compress(bytes(10**6)) for _ in range(200)]) + coder.flush()
    stream = {"gaps": b"\0", "floats": b"\x01\xff\0\0"}.get(codec, b"") + bomb
    entry: dict[str, Any] = {"name": "t", "shape": [1000, 1000], "values": [codec, len(stream)]}
    if codec in ("gaps", "bitmap-deflate", "channels", "n-of-m"):
        entry |= {"kept": 1000, "masked": True, "positions": [codec, len(stream)], "values": ["raw", 0]}
    content = join_packed({"model": {"inputs": [], "kind": "zoo", "text": "x"}, "tensors": [entry]}, bytes(8) + stream)
    with bounded_memory():
        assert "tensor 't' is corrupt" in refused(tmp_path / "x", content)


def reseal(content: bytes) -> bytes:
    """Put the right CRC-32 into a forged csr or nm file."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"][METADATA_KEY])
    metadata["crc32"] = zlib.crc32(content[8 + length :], zlib.crc32(canonical_json(metadata["manifest"])))
    header["__metadata__"][METADATA_KEY] = canonical_json(metadata).decode()
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


@pytest.mark.parametrize("format", ["csr", "nm"])
@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b'\\"kept\\":48', b'\\"kept\\":47', ""),
        (b'\\"shape\\":[6]', b'\\"shape\\":[7]', "array 'bias' should be float32 of shape (7,)"),
        (b'\\"shape\\":[6]', b'\\"shape\\":[1099511627776,1024]', "cannot hold the"),
        (b'\\"name\\":\\"bias\\"', b'\\"name\\":\\"bier\\"', "is missing or belongs to no tensor"),
        (b'\\"tensors\\"', b'\\"sensors\\"', "malformed"),
        (b'\\"structure\\":\\"2:4\\"', b'\\"structure\\":\\"4:2\\"', "unknown structure '4:2'"),
    ],
)
def test_forged_arrays_are_refused(
    format: str, old: bytes, new: bytes, text: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    content = originals[format]
    (length,) = struct.unpack_from("<Q", content)
    header = content[8 : 8 + length]
    assert old in header
    forged = header.replace(old, new)
    with bounded_memory():
        assert text in refused(tmp_path / "x", reseal(struct.pack("<Q", len(forged)) + forged + content[8 + length :]))


@pytest.mark.parametrize("format", ["packed", "csr", "nm"])
def test_random_forgeries_with_a_valid_checksum_are_refused_or_harmless(
    format: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    """The decoders behind the checksum meet arbitrary bytes: they raise the one error, or what they decode is right."""
    rng = np.random.default_rng(7)
    content = originals[format]
    path = tmp_path / "x"
    (tmp_path / "original").write_bytes(content)
    expected = {name: array.tobytes() for name, array in open_artifact(tmp_path / "original").tensors().items()}
    with bounded_memory():
        for _ in range(600):
            if format == "packed":
                manifest, rest = split_packed(content)
                forged = bytearray(rest)
            else:
                (length,) = struct.unpack_from("<Q", content)
                forged = bytearray(content[8 + length :])
            for _ in range(int(rng.integers(1, 4))):
                forged[int(rng.integers(len(forged)))] = int(rng.integers(256))
            if format == "packed":
                path.write_bytes(join_packed(manifest, bytes(forged)))
            else:
                path.write_bytes(reseal(content[: 8 + length] + bytes(forged)))
            try:
                read_all(path)
                decoded = open_artifact(path).tensors()
            except FileFormatError:
                continue
            assert {name: array.tobytes() for name, array in decoded.items()} == expected


def test_a_wrong_hash_is_its_own_error(originals: dict[str, bytes], tmp_path: Path) -> None:
    manifest, rest = split_packed(originals["packed"])
    (tmp_path / "x").write_bytes(join_packed(manifest, b"\0" + rest[1:]))
    with pytest.raises(HashMismatchError, match="tensor 'weight' decodes to other bytes"):
        read_all(tmp_path / "x")
