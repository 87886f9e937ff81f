"""Forged artifacts with valid checksums: each ends in one FileFormatError, quickly, and before memory is taken."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile.forge import FORGERS, join_container, join_packed, split_container, split_packed
from hostile.fuzz import try_input
from hostile.originals import Original, bounded_memory, read_artifact

from sparsepack.errors import FileFormatError, HashMismatchError
from sparsepack.exporters import open_artifact
from sparsepack.exporters.codecs.deflate import deflate
from sparsepack.exporters.codecs.dictionary import DICTIONARY
from sparsepack.exporters.onnx_seal import KEY, varint


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_artifact(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def reseal(content: bytes) -> bytes:
    """Put the right CRC-32 into a forged csr or nm file."""
    return join_container(*split_container(content))


def entry_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in manifest["tensors"] if entry["name"] == name)


def test_the_forger_can_write_an_honest_file(honest: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(join_packed(*split_packed(honest["packed"])))
    read_artifact(tmp_path / "x")


def strings(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return every place of a string in decoded JSON: what holds it, and its key or index there."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, str):
            yield value, key
        elif isinstance(inner, dict | list):
            yield from strings(inner)


@pytest.mark.parametrize("kind", sorted(set(FORGERS) - {"npz", "idx.gz"}))
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(
    kind: str, originals: dict[str, Original], tmp_path: Path
) -> None:
    # JSON may hold it, a string of Python's too, and nothing can print or write it.
    split, join = FORGERS[kind]
    value, _ = split(originals[kind].content)
    value.pop("members", None)
    # The forger writes these hashes anew.
    hashes = value.get("head", value).get("sha256")
    places = [(holder, key) for holder, key in strings(value) if holder is not hashes]
    assert len(places) >= 5
    for holder, key in places:
        kept, holder[key] = holder[key], "\ud800"
        whole, rest = split(originals[kind].content)
        content = join({**whole, **value} if isinstance(whole, dict) else value, rest)
        found, problem = try_input(originals[kind], content, tmp_path / originals[kind].name)
        assert found, key
        assert problem == "", key
        holder[key] = kept


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
def test_forged_manifests_are_refused(forgery: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    change, text = FORGERIES[forgery]
    manifest, rest = split_packed(honest["packed"])
    change(manifest)
    with bounded_memory():
        assert text in refused(tmp_path / "x", join_packed(manifest, rest))


def test_a_manifest_that_is_a_bomb_is_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    _, rest = split_packed(honest["packed"])
    path = tmp_path / "x"
    assert "manifest is malformed" in refused(path, join_packed(None, rest, deflate(b"[" * 100_000, DICTIONARY)))
    assert "manifest is malformed" in refused(path, join_packed(None, rest, deflate(b"\xff\xfe", DICTIONARY)))
    assert "does not fit into the file" in refused(path, join_packed({}, rest, length=2**31))
    assert "manifest is corrupt" in refused(path, join_packed({}, b"", b"\x07"))
    # A hundred megabytes of spaces in a hundred kilobytes: stopped at the limit.
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([coder.compress(b" " * 10**6) for _ in range(100)]) + coder.flush()
    assert "holds more than" in refused(path, join_packed(None, rest, bomb))


@pytest.mark.parametrize(("entry", "value"), [(2**40, 100), (2**70, 100), (100, 2**70)])
def test_an_entry_cannot_claim_more_than_its_file(entry: int, value: int, tmp_path: Path) -> None:
    path = tmp_path / "claims.onnx"
    inner = b"\x0a" + varint(len(KEY)) + KEY + b"\x12" + varint(value) + b"0" * 64 + b'{"format":"sparsepack.onnx"}'
    path.write_bytes(b"\x72" + varint(entry) + inner + bytes(500))
    with bounded_memory(), pytest.raises(FileFormatError, match="its sparsepack entry claims to end at byte"):
        open_artifact(path)


def test_empty_streams_cannot_ask_for_the_world(tmp_path: Path) -> None:
    """Codecs that store nothing are the cheapest way to promise much: their sum is bounded by the file's size."""
    model = {"inputs": [], "kind": "zoo", "text": "x"}
    nothing = {"kept": 0, "masked": True, "positions": ["none", 0], "values": ["raw", 0]}
    tensors = [{"name": f"t{i}", "shape": [2**22], **nothing} for i in range(40)]
    with bounded_memory():
        text = refused(tmp_path / "x", join_packed({"model": model, "tensors": tensors}, bytes(8 * 40)))
    assert "cannot hold the" in text


@pytest.mark.parametrize("codec", ["gaps", "bitmap-deflate", "channels", "n-of-m", "deflate", "floats", "magnitudes"])
def test_streams_that_inflate_beyond_their_tensor_are_refused(codec: str, tmp_path: Path) -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([coder.compress(bytes(10**6)) for _ in range(200)]) + coder.flush()
    stream = {"gaps": b"\0", "floats": b"\x01\xff\0\0", "magnitudes": bytes(5)}.get(codec, b"") + bomb
    entry: dict[str, Any] = {"name": "t", "shape": [1000, 1000], "values": [codec, len(stream)]}
    if codec in ("gaps", "bitmap-deflate", "channels", "n-of-m"):
        entry |= {"kept": 1000, "masked": True, "positions": [codec, len(stream)], "values": ["raw", 0]}
    content = join_packed({"model": {"inputs": [], "kind": "zoo", "text": "x"}, "tensors": [entry]}, bytes(8) + stream)
    with bounded_memory():
        assert "tensor 't' is corrupt" in refused(tmp_path / "x", content)


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
    format: str, old: bytes, new: bytes, text: str, honest: dict[str, bytes], tmp_path: Path
) -> None:
    content = honest[format]
    (length,) = struct.unpack_from("<Q", content)
    header = content[8 : 8 + length]
    assert old in header
    forged = header.replace(old, new)
    with bounded_memory():
        assert text in refused(tmp_path / "x", reseal(struct.pack("<Q", len(forged)) + forged + content[8 + length :]))


@pytest.mark.parametrize("format", ["packed", "csr", "nm"])
def test_random_forgeries_with_a_valid_checksum_are_refused_or_harmless(
    format: str, honest: dict[str, bytes], tmp_path: Path
) -> None:
    """The decoders behind the checksum meet arbitrary bytes: they raise the one error, or what they decode is right."""
    rng = np.random.default_rng(7)
    content = honest[format]
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
                read_artifact(path)
                decoded = open_artifact(path).tensors()
            except FileFormatError:
                continue
            assert {name: array.tobytes() for name, array in decoded.items()} == expected


def test_a_wrong_hash_is_its_own_error(honest: dict[str, bytes], tmp_path: Path) -> None:
    manifest, rest = split_packed(honest["packed"])
    (tmp_path / "x").write_bytes(join_packed(manifest, b"\0" + rest[1:]))
    with pytest.raises(HashMismatchError, match="tensor 'weight' decodes to other bytes"):
        read_artifact(tmp_path / "x")
