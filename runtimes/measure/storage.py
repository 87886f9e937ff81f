"""The artifact on disk, to the byte: per tensor, the overhead, against the dense, the zipped and the ideal size."""

from __future__ import annotations

from ...errors import FileFormatError
from .record import Overhead, Storage, TensorBytes
from .subject import Subject
from .zipped import distinct, zipped_dense_bytes


def storage(subject: Subject) -> Storage:
    """Account for every byte of an artifact; decodes and checks every tensor.

    Dense and zipped size are the checkpoint's where that is known, so that every format of a network is compared with
    the same; otherwise they are those of the artifact's decoded tensors.

    Raises:
        FileFormatError: the artifact is damaged, or its rows do not add up to its size.
    """
    artifact = subject.artifact
    records = artifact.records()
    rows = artifact.rows()
    overhead = Overhead(**artifact.overhead())
    size = artifact.size
    counted = sum(row.bytes for row in rows) + overhead.header + overhead.graph + overhead.other
    if counted != size:
        raise FileFormatError(
            f"{artifact.path}: {counted} bytes are accounted for, the file has {size}; it is damaged."
        )
    decoded = artifact.tensors()
    state = subject.checkpoint.dense_state() if subject.checkpoint else decoded
    zipped = zipped_dense_bytes(state)
    dense = sum(array.nbytes for array in distinct(state))
    prunable = [row for row in rows if records[row.name].role == "prunable" and records[row.name].alias_of is None]
    total = sum(decoded[row.name].size for row in prunable)
    kept = sum(row.nnz for row in prunable)
    return Storage(
        bytes=size,
        overhead_bytes=overhead,
        dense_bytes=dense,
        zipped_dense_bytes=zipped,
        entropy_bound_bytes=sum(row.bound_bytes for row in rows),
        size_ratio=dense / size,
        size_ratio_zipped=zipped / size,
        nonzero=kept,
        total=total,
        sparsity=1.0 - kept / total if total else 0.0,
        tensors=[
            TensorBytes(row.name, list(row.shape), row.nnz, row.bytes, row.codec, row.bound_bytes) for row in rows
        ],
    )
