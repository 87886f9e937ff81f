"""A fixed budget of the fuzzer, and proof that it can fail."""

from pathlib import Path

import numpy as np
from hostile.fuzz import fuzz, hostile_input, try_input
from hostile.originals import Original

INPUTS = 4_000


def test_no_input_crashes_hangs_or_takes_more_than_its_memory(originals: dict[str, Original]) -> None:
    outcome = fuzz(INPUTS, files=originals)
    assert outcome.failures == []
    assert sum(outcome.refused.values()) + sum(outcome.read.values()) == INPUTS
    for kind in originals:
        # Hostile enough to be refused, and not so crude that no input comes past the checksums.
        assert outcome.refused[kind] > outcome.read[kind] > 0, kind


def test_inputs_are_those_of_their_number(originals: dict[str, Original]) -> None:
    for index in range(200):
        kind, content = hostile_input(originals, 3, index)
        assert (kind, content) == hostile_input(originals, 3, index)
    assert len({hostile_input(originals, 3, index)[1] for index in range(0, 2000, 20)}) > 90


def read_badly(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    if content == b"crash":
        return {"": bytes([content[99]])}
    return {"": np.zeros(2**50, np.uint8).tobytes()}


def test_a_reader_that_crashes_or_asks_for_the_world_is_a_failure(tmp_path: Path) -> None:
    original = Original(b"", "file", read_badly)
    assert "IndexError" in try_input(original, b"crash", tmp_path / "file")[1]
    assert "more memory than its bound" in try_input(original, b"world", tmp_path / "file")[1]
