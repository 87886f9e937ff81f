"""A complete measurement record, made by hand from the types that write it."""

from __future__ import annotations

from typing import Any

from sparsepack.runtimes.measure.record import (
    SCHEMA,
    Accuracy,
    ArtifactRecord,
    Environment,
    Latency,
    LayerTime,
    Measurement,
    Overhead,
    Parity,
    RequirementResult,
    Storage,
    TensorBytes,
    Unavailable,
    to_plain,
)

# A tensor may be called anything; a report must show this and run nothing.
HOSTILE = "<script>alert('x')</script> & | `b`"
LAYERS: list[LayerTime] = [
    {"name": "conv", "operator": "Conv", "ms": 1.5, "share": 0.75},
    {"name": "fc", "operator": "Gemm", "ms": 0.5, "share": 0.25},
]


def artifact(name: str, tensor_bytes: tuple[int, int], value: float, median: float | None) -> ArtifactRecord:
    """Return the record of an artifact of two tensors of 1,000 weights, dense 8,000 bytes."""
    rows = [
        TensorBytes(tensor, [10, 100], 100, size, "gaps, bytes", 0.9 * size)
        for tensor, size in zip(("fc.weight", HOSTILE), tensor_bytes, strict=True)
    ]
    size = sum(tensor_bytes) + 60
    storage = Storage(size, Overhead(50, 0, 10), 8000, 4000, 0.9 * size, 8000 / size, 4000 / size, 200, 2000, 0.9, rows)
    latency: dict[str, Latency | Unavailable] = {"torch-cuda": Unavailable("PyTorch finds no CUDA device")}
    if median is not None:
        latency["onnxruntime-cpu"] = Latency(
            median,
            0.9 * median,
            1.2 * median,
            100,
            10,
            1,
            1,
            5.0,
            10_000_000,
            speedup=2.0 / median,
            speedup_low=1.9 / median,
            speedup_high=2.1 / median,
            baseline_runtime="onnxruntime-cpu",
            layers=LAYERS,
        )
    return ArtifactRecord(
        name,
        f"out/{name}.bin",
        "packed" if median is None else "onnx",
        "ab" * 32,
        storage,
        latency,
        Accuracy("top-1", value, 0.98, 0.98 - value, "torch-cpu"),
        Parity(1e-7, 1e-6, 1.0, 64, "onnxruntime-cpu"),
        None,
        ["a note"],
    )


def record() -> dict[str, Any]:
    """Return a record with three artifacts and a requirement of each outcome, as plain data."""
    environment: Environment = {
        "cpu": "A processor",
        "threads": 1,
        "cores_usable": 4,
        "system": "A system",
        "python": "3.11.7",
        "memory_bytes": 8_000_000_000,
        "instruction_sets": ["avx2"],
        "frequency_governor": None,
        "versions": {"sparsepack": "0.1.0", "torch": None},
    }
    artifacts = [
        artifact("small/packed", (100, 140), 0.975, None),
        artifact("fast/onnx", (400, 300), 0.972, 1.0),
        artifact("poor/onnx", (40, 60), 0.5, 0.5),
    ]
    requirements = [
        RequirementResult("storage.size_ratio>=8", "small/packed", 26.7, True),
        RequirementResult("accuracy.value>=0.9", "poor/onnx", 0.5, False),
        RequirementResult("latency.speedup>=2", "fast/onnx", 2.0, None, "the interval 1.9 to 2.1 straddles 2"),
    ]
    plain: dict[str, Any] = to_plain(Measurement(SCHEMA, environment, artifacts, requirements))
    return plain
