"""How the runs of a job came about: training curves from their logs, masks and densities from their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compressor.checkpoint import SparseCheckpoint, SparseTensor
from ...compressor.run_folder import CHECKPOINT, LOG, read_log
from ...files import Array

# Pixels of a mask's picture; a larger mask is averaged into that many.
_HEIGHT, _WIDTH = 96, 160
# Pictures a run: the largest tensors come first.
_PICTURES = 24


@dataclass(frozen=True)
class MaskPicture:
    """One mask to look at.

    Attributes:
        name: the tensor's.
        density: share of kept weights.
        levels: [height, width], uint8: share of kept weights per pixel, 255 all; rows are output units.
    """

    name: str
    density: float
    levels: Array


@dataclass(frozen=True)
class RunStory:
    """One run.

    Attributes:
        name: its folder's.
        losses: (epoch, training loss), epochs counted through all of its trainings.
        stages: (title, seconds, test accuracy or None) of its trainings.
        masks: of its prunable tensors, at most 24, in the network's order.
        left_out: how many masks have no picture.
        warnings: what the checkpoint tells.
    """

    name: str
    losses: list[tuple[float, float]]
    stages: list[tuple[str, float, float | None]]
    masks: list[MaskPicture]
    left_out: int
    warnings: list[str]


def run_story(folder: Path) -> RunStory:
    """Read a run's folder.

    Raises:
        FileFormatError: its checkpoint is damaged.
    """
    events = read_log(folder / LOG)
    epochs = [event for event in events if event.get("event") == "epoch" and _is_number(event.get("loss"))]
    stages = [
        (str(event.get("stage")), float(event["seconds"]), event.get("accuracy"))
        for event in events
        if event.get("event") == "stage" and _is_number(event.get("seconds"))
    ]
    checkpoint = SparseCheckpoint.open(folder / CHECKPOINT)
    names = [
        record.name
        for record in checkpoint.metadata.tensors
        if record.masked and record.role == "prunable" and record.alias_of is None
    ]
    sizes = {record.name: int(np.prod(record.shape)) for record in checkpoint.metadata.tensors}
    chosen = set(sorted(names, key=lambda name: -sizes[name])[:_PICTURES])
    return RunStory(
        folder.name,
        [(float(number + 1), float(event["loss"])) for number, event in enumerate(epochs)],
        stages,
        [mask_picture(checkpoint.tensors[name]) for name in names if name in chosen],
        len(names) - len(chosen),
        list(checkpoint.metadata.warnings),
    )


def mask_picture(tensor: SparseTensor) -> MaskPicture:
    """Return a mask as a picture: rows are output units, columns the weights of one."""
    mask = np.ones(tensor.record.shape, np.bool_) if tensor.mask is None else tensor.mask
    axis = min(tensor.record.output_axis, max(0, mask.ndim - 1))
    rows = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis] if mask.ndim else 1, -1)
    return MaskPicture(tensor.record.name, float(rows.mean()) if rows.size else 0.0, levels(rows))


def levels(rows: Array, height: int = _HEIGHT, width: int = _WIDTH) -> Array:
    """Return a bool matrix as grey levels, averaged over equal blocks where it is larger than the picture.

    Args:
        rows: [n, m], bool.
        height: largest number of lines.
        width: largest number of columns.

    Returns:
        [<= height, <= width], uint8, at least one pixel.
    """
    if rows.size == 0:
        return np.zeros((1, 1), np.uint8)
    shares: Array = rows.astype(np.float32)
    for axis, most in ((0, height), (1, width)):
        extent = shares.shape[axis]
        if extent > most:
            starts = np.arange(most) * extent // most
            counts = np.diff(np.append(starts, extent)).astype(np.float32)
            sums = np.add.reduceat(shares, starts, axis=axis)
            shares = sums / (counts[:, None] if axis == 0 else counts[None, :])
    return np.round(255 * shares).astype(np.uint8)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
