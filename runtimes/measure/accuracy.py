"""Accuracy: top-1 on the data's test split, through whatever runtime runs the artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError, UnsupportedError
from ..base import Session
from .inputs import held_out
from .running import run_all

if TYPE_CHECKING:
    from ...models.data import Dataset

METRIC = "top-1"


def top1(session: Session, data: Dataset) -> float:
    """Return the share of test examples whose largest output is their label.

    Raises:
        DataError: the network does not answer with one score per class.
        UnsupportedError: its scores are not finite.
    """
    inputs, labels = held_out(data)
    scores = run_all(session, (inputs,))
    if scores.ndim != 2 or scores.shape[1] < data.classes:
        raise DataError(
            f"the network answers with shape {scores.shape[1:]} per example; accuracy on {data.name} needs "
            f"{data.classes} scores, one a class."
        )
    if not np.isfinite(scores).all():
        raise UnsupportedError("the network's outputs hold NaN or infinity.")
    return float(np.mean(scores.argmax(axis=1) == labels))
