"""The conditions a number was taken under: processor, memory, system, versions, threads, frequency governor."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from .record import Environment

_DISTRIBUTIONS = ("sparsepack", "torch", "onnxruntime", "onnx", "numpy", "scipy")
# Only the sets that decide how fast linear algebra runs, in the order in which they appeared.
_INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "asimd",
    "asimddp",
    "sve",
)
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def default_threads() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def current_environment(threads: int) -> Environment:
    """Return the environment block of the record; what cannot be read is null, never a guess.

    Args:
        threads: threads that each run may use.
    """
    fields = _cpuinfo()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": default_threads(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "frequency_governor": _first_line(_GOVERNOR),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "threads": threads,
    }


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's fields of /proc/cpuinfo; empty where there is none."""
    try:
        first = _CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
