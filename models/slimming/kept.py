"""Which indices of which tensors a slimmed network keeps, as JSON can hold it.

A record maps a tensor's name to one entry an axis: null where everything stays, else the dense extent and the kept
indices as ranges, ``"64: 0-3,7,9-63"``. Names, indices and order are those of the dense network's state_dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError

Flags = npt.NDArray[np.bool_]
Kept = Mapping[str, tuple[Flags | None, ...]]
Record = dict[str, list[str | None]]

_LARGEST = 1 << 28
_ENTRY = re.compile(r"(\d{1,9}): ((?:\d{1,9}(?:-\d{1,9})?)(?:,\d{1,9}(?:-\d{1,9})?)*)")


def to_record(kept: Kept) -> Record:
    """Return what stays as plain data."""
    return {
        name: [None if flags is None else _text(flags) for flags in axes]
        for name, axes in kept.items()
        if any(flags is not None for flags in axes)
    }


def from_record(record: Record) -> dict[str, tuple[Flags | None, ...]]:
    """Return what a record says, checked.

    Raises:
        FileFormatError: an entry is malformed, out of order, or keeps nothing.
    """
    return {name: tuple(None if text is None else _flags(name, text) for text in axes) for name, axes in record.items()}


def compose(first: Kept, second: Kept) -> dict[str, tuple[Flags | None, ...]]:
    """Return what stays when what ``first`` left is slimmed by ``second``, in the dense network's indices."""
    found = {name: tuple(axes) for name, axes in first.items()}
    for name, axes in second.items():
        before = found.get(name, (None,) * len(axes))
        found[name] = tuple(_after(old, new) for old, new in zip(before, axes, strict=True))
    return found


def _after(old: Flags | None, new: Flags | None) -> Flags | None:
    if old is None or new is None:
        return new if old is None else old
    flags = old.copy()
    flags[old] = new
    return flags


def _text(flags: Flags) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    runs = [(int(start), int(end) - 1) for start, end in edges.reshape(-1, 2)]
    return f"{flags.size}: " + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _flags(name: str, text: str) -> Flags:
    match = _ENTRY.fullmatch(text)
    if match is None or int(match[1]) > _LARGEST:
        raise FileFormatError(f"the kept indices of '{name}' are malformed: '{text[:40]}'.")
    flags = np.zeros(int(match[1]), np.bool_)
    last = -1
    for part in match[2].split(","):
        start, _, end = part.partition("-")
        low, high = int(start), int(end or start)
        if not last < low <= high < flags.size:
            raise FileFormatError(f"the kept indices of '{name}' do not rise within its extent {flags.size}.")
        flags[low : high + 1] = True
        last = high
    return flags
