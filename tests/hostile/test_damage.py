"""Every reader against its file cut at every byte, and with one bit flipped at every byte (archives: at some bytes)."""

from pathlib import Path

import pytest
from hostile.originals import Original, bounded_memory

from sparsepack.errors import SparsepackError

KINDS = [
    "packed",
    "packed int8",
    "packed codebook",
    "packed drift",
    "packed blocks",
    "csr blocks",
    "csr",
    "csr int8",
    "packed parts",
    "nm",
    "checkpoint",
    "onnx",
    "onnx-unpack",
    "onnx-unpack int8",
    "onnx-unpack codebook",
    "onnx-sparse",
    "onnx-slim",
    "torchscript",
    "torch-export",
    "sparse initializers",
    "foreign ONNX",
    "tape",
    "snapshot",
    "npz",
    "idx",
    "idx.gz",
]


def refusal(original: Original, content: bytes, path: Path) -> str | None:
    """Return what a reader said, or None when it read what was in the original."""
    path.write_bytes(content)
    try:
        decoded = original.read(path)
    except SparsepackError as error:
        return str(error)
    # What is not covered by any hash may change names and notes, not numbers.
    assert sorted(decoded.values()) == sorted(original.read(write(path, original)).values())
    return None


def write(path: Path, original: Original) -> Path:
    path.write_bytes(original.content)
    return path


def test_every_original_is_listed_and_read(originals: dict[str, Original], tmp_path: Path) -> None:
    assert sorted(originals) == sorted(KINDS)
    for original in originals.values():
        assert original.read(write(tmp_path / original.name, original))


@pytest.mark.parametrize("kind", KINDS)
def test_files_cut_at_every_byte_are_refused(kind: str, originals: dict[str, Original], tmp_path: Path) -> None:
    original = originals[kind]
    path = tmp_path / original.name
    with bounded_memory():
        for length in range(0, len(original.content), original.step):
            text = refusal(original, original.content[:length], path)
            # A model without a hash may end after any of its fields.
            assert text or kind == "foreign ONNX", length
            assert "\n" not in (text or "")


# Unsealed: pixels of an image may be anything.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("foreign ONNX", "idx")])
def test_one_bit_flipped_at_every_byte_is_refused_or_harmless(
    kind: str, originals: dict[str, Original], tmp_path: Path
) -> None:
    original = originals[kind]
    path = tmp_path / original.name
    with bounded_memory():
        for position in range(0, len(original.content), original.step):
            flipped = bytearray(original.content)
            flipped[position] ^= 1 << (position * 5 % 8)
            text = refusal(original, bytes(flipped), path)
            assert text or not original.sealed, position
            assert "\n" not in (text or "")


def test_bytes_behind_the_end_are_refused(originals: dict[str, Original], tmp_path: Path) -> None:
    for kind, original in originals.items():
        if original.sealed or kind in ("checkpoint", "tape", "snapshot", "idx"):
            assert refusal(original, original.content + b"\0", tmp_path / original.name), kind
