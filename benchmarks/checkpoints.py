"""A checkpoint put together from tensors; what is not said of it is made up."""

from __future__ import annotations

from typing import Any

from sparsepack.compressor.checkpoint import (
    FORMAT,
    VERSION,
    CheckpointMetadata,
    Provenance,
    SparseCheckpoint,
    SparseTensor,
    TrainingCost,
)
from sparsepack.models.source import InputSpec, ModelRecord


def assembled(*tensors: SparseTensor, **changes: Any) -> SparseCheckpoint:
    """Return a checkpoint of tensors (of ``compressor.checkpoint.make_tensor``).

    Args:
        tensors: in state_dict order.
        changes: fields of its metadata.
    """
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "model": ModelRecord("zoo", "lenet-300-100", [InputSpec("input", (1, 28, 28))], {"classes": 10}),
        "recipe": {"method": "magnitude", "sparsity": 0.9},
        "provenance": Provenance({"sparsepack": "0"}, 0, 1, "cpu"),
        "tensors": [tensor.record for tensor in tensors],
        "training": TrainingCost(1000, 20000, 300000),
    }
    return SparseCheckpoint(CheckpointMetadata(**{**fields, **changes}), {t.record.name: t for t in tensors})
