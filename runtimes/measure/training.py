"""What the weights cost: counted by the compressor; seconds from the run's log, where it is known."""

from __future__ import annotations

from pathlib import Path

from ...compressor.run_folder import read_log
from .record import Training
from .subject import Subject

LOG = "log.jsonl"


def training(subject: Subject) -> Training | None:
    """Return the training cost, or None when neither the artifact nor its checkpoint knows it."""
    cost = subject.checkpoint.metadata.training if subject.checkpoint else subject.artifact.training
    if cost is None:
        return None
    seconds = logged_seconds(subject.checkpoint_path.parent / LOG) if subject.checkpoint_path else None
    return Training(cost.trained_parameters, cost.mask_search_flops, cost.training_flops, seconds)


def logged_seconds(log: Path) -> float | None:
    """Return the seconds that the log's stages took together, or None when there is no log."""
    stages = (event for event in read_log(log) if event.get("event") == "stage")
    seconds = [event["seconds"] for event in stages if isinstance(event.get("seconds"), int | float)]
    return float(sum(seconds)) if seconds else None
