"""docs/FORMAT.md tells the truth: its dump is a packed file, a reader written from its text alone agrees with ours."""

import json
import re
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.codecs import CODECS, CODED, SEEDED
from sparsepack.exporters.codecs.dictionary import DICTIONARY
from sparsepack.files import Array

DOCUMENT = (Path(__file__).parents[1] / "docs" / "FORMAT.md").read_text()
EXPECTED = {
    "fc.weight": {3: 0.31, 9: -0.42, 28: 0.77, 41: 1.13, 42: -0.58, 60: 0.64, 77: -1.21, 95: 0.49},
    "fc.bias": {0: 0.25, 1: -1.5, 2: 0.1},
}


def dumped() -> bytes:
    content = bytearray()
    for offset, row in re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)$", DOCUMENT, re.MULTILINE):
        assert int(offset, 16) == len(content)
        content += bytes.fromhex(row)
    return bytes(content)


def expected(name: str, shape: tuple[int, ...]) -> Array:
    dense = np.zeros(shape, np.float32)
    for position, value in EXPECTED[name].items():
        dense.flat[position] = value
    return dense


def test_the_dump_is_a_file_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "x.spk"
    path.write_bytes(dumped())
    artifact = open_artifact(path)
    assert artifact.format == "packed"
    assert [row.codec for row in artifact.rows()] == ["gaps + floats", "raw"]
    for name, shape in (("fc.weight", (4, 25)), ("fc.bias", (4,))):
        np.testing.assert_array_equal(artifact.tensor(name), expected(name, shape))


def inflate_prefix(data: bytes, dictionary: bytes = b"") -> tuple[bytes, bytes]:
    decoder = zlib.decompressobj(-15, zdict=dictionary) if dictionary else zlib.decompressobj(-15)
    return decoder.decompress(data), decoder.unused_data


def read_packed(content: bytes) -> dict[str, Array]:
    """A second reader, from the document's sentences alone: slow and plain; few of the codecs."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["sparsepack"]) == {"format": "sparsepack.packed", "version": 1}
    blob = content[8 + length :]
    checksum, size = struct.unpack_from("<II", blob)
    assert zlib.crc32(blob[4:]) == checksum
    dictionary = "".join(re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)[-1].splitlines())
    manifest = json.loads(inflate_prefix(blob[8 : 8 + size], dictionary.encode())[0])
    rest = blob[8 + size :]
    tensors = [entry for entry in manifest["tensors"] if "alias_of" not in entry]
    digests, rest = rest[: 8 * len(tensors)], rest[8 * len(tensors) :]
    decoded = {}
    for row, entry in enumerate(tensors):
        dense = np.zeros(int(np.prod(entry["shape"])), np.float32)
        kept = list(range(dense.size))
        if entry.get("masked"):
            codec, size = entry["positions"]
            assert codec == "gaps"
            kept = read_gaps(rest[:size], entry["kept"], dense.size)
            rest = rest[size:]
        codec, size = entry["values"]
        stream, rest = rest[:size], rest[size:]
        dense[kept] = READERS[codec](stream, len(kept))
        assert sha256(dense.tobytes()).digest()[:8] == digests[8 * row : 8 * row + 8]
        decoded[entry["name"]] = dense.reshape(entry["shape"])
    assert not rest
    return decoded


def read_gaps(stream: bytes, kept: int, total: int) -> list[int]:
    shift, inverted = stream[0] & 63, stream[0] >> 7
    count = total - kept if inverted else kept
    low = (count * shift + 7) // 8
    remainders = int.from_bytes(stream[1 : 1 + low], "little")
    quotients = inflate_prefix(stream[1 + low :])[0]
    listed: list[int] = []
    position, skipped = -1, 0
    for quotient in quotients:
        skipped += quotient
        if quotient != 255:
            remainder = (remainders >> (shift * len(listed))) & ((1 << shift) - 1)
            position += (skipped << shift) + remainder + 1
            listed.append(position)
            skipped = 0
    return [p for p in range(total) if p not in set(listed)] if inverted else listed


def read_floats(stream: bytes, count: int) -> Array:
    sharing, alphabet = {p: (p, a) for p, a in zip([1, 2, 3, 4, 5, 8], [256, 16, 6, 4, 3, 2], strict=True)}[
        stream[0] & 15
    ]
    largest, rest = int.from_bytes(stream[2:4], "little"), stream[4:]
    size = -(-count // sharing)
    plain, rest = inflate_prefix(rest) if stream[1] & 128 else (rest[:size], rest[size:])
    distances = [byte // alphabet**place % alphabet for byte in plain for place in range(sharing)][:count]
    for index, distance in enumerate(distances):
        if distance == alphabet - 1:
            distances[index], rest = distance + rest[0], rest[1:]
    tops = [0] * count
    for plane in (2, 1, 0):
        numbers, rest = inflate_prefix(rest) if stream[1] >> plane & 1 else (rest[:count], rest[count:])
        order = sorted(range(count), key=lambda i: distances[i]) if plane == 2 and stream[0] & 128 else range(count)
        for number, index in zip(numbers, order, strict=True):
            tops[index] |= number << (8 * plane)
    words = [
        (top >> 23) << 31 | (largest - d) << 23 | top & (2**23 - 1) for top, d in zip(tops, distances, strict=True)
    ]
    assert not rest
    return np.array(words, np.uint32).view(np.float32)


def read_magnitudes(stream: bytes, count: int) -> Array:
    shift, base = stream[0], int.from_bytes(stream[1:5], "little")
    symbols, rest = inflate_prefix(stream[5:])
    distances = []
    for symbol in symbols:
        if symbol == 255:
            symbol += int.from_bytes(rest[:4], "little")
            rest = rest[4:]
        distances.append(symbol << shift)
    planes, width = divmod(shift + 1, 8)
    highest = int.from_bytes(rest[planes * count :], "little")
    words = []
    for index, distance in enumerate(distances):
        tail = int.from_bytes(rest[index : planes * count : count], "little")
        tail |= (highest >> (width * index) & ((1 << width) - 1)) << (8 * planes)
        words.append((tail >> shift) << 31 | base + distance + (tail & ((1 << shift) - 1)))
    return np.array(words, np.uint32).view(np.float32)


def read_raw(stream: bytes, count: int) -> Array:
    assert len(stream) == 4 * count
    return np.frombuffer(stream, "<f4")


READERS = {"floats": read_floats, "magnitudes": read_magnitudes, "raw": read_raw}


def test_a_reader_written_from_the_text_reads_the_dump() -> None:
    decoded = read_packed(dumped())
    for name, array in decoded.items():
        np.testing.assert_array_equal(array, expected(name, array.shape))


def test_a_reader_written_from_the_text_reads_what_we_write(
    checkpoint_of: Callable[..., SparseCheckpoint], tmp_path: Path
) -> None:
    codecs: set[str] = set()
    for sparsity, scale in ((0.97, 1.0), (0.8, 30.0), (0.7, 1e-20), (0.2, 0.01)):
        weights = np.random.default_rng(4).standard_t(3, (60, 80)).astype(np.float32) * np.float32(scale)
        mask = np.abs(weights) >= np.quantile(np.abs(weights), sparsity)
        tensors = [make_tensor("w", weights, mask=mask), make_tensor("b", weights[0].copy())]
        artifact = export(checkpoint_of(*tensors), "packed", tmp_path / f"{sparsity}.spk")
        codecs.update(part for row in artifact.rows() for part in row.codec.split(" + "))
        decoded = read_packed(artifact.path.read_bytes())
        for tensor in tensors:
            assert decoded[tensor.record.name].tobytes() == tensor.dense().tobytes()
    assert codecs == {"gaps", "floats", "magnitudes"}


def test_the_printed_dictionary_and_codecs_are_the_real_ones() -> None:
    printed = "".join(re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)[-1].splitlines())
    assert printed.encode() == DICTIONARY
    assert f"{len(DICTIONARY)} bytes" in DOCUMENT
    for codec in (*CODECS, *CODED, SEEDED):
        assert f"`{codec}`" in DOCUMENT


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_the_examples_run(checkpoint_of: Callable[..., SparseCheckpoint], tmp_path: Path) -> None:
    weights = np.random.default_rng(4).normal(size=(300, 784)).astype(np.float32)
    tensor = make_tensor("fc1.weight", weights, mask=weights > 1)
    path = tmp_path / "x.safetensors"
    export(checkpoint_of(tensor), "csr", path)
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(examples) == 2
    names: dict[str, object] = {"path": path}
    for example in examples:
        exec(example, names)  # noqa: S102  # the document's own code
    # Made by the page's code.
    np.testing.assert_array_equal(names["matrix"].toarray(), tensor.dense())  # type: ignore[attr-defined]
    np.testing.assert_array_equal(names["weight"].to_dense().numpy(), tensor.dense())  # type: ignore[attr-defined]
