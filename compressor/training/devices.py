"""Where training runs: the device, its precision, and the switches that make equal runs give equal bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import RuntimeUnavailableError, SparsepackError, UnsupportedError


def find_device(name: str, precision: str) -> torch.device:
    """Return the torch device of a recipe.

    Raises:
        RuntimeUnavailableError: ``cuda`` on a machine where torch sees none.
        UnsupportedError: a precision that the device has no fast arithmetic for.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailableError(
            f"device 'cuda' is not available: torch {torch.__version__} sees no CUDA GPU; use 'cpu'."
        )
    if precision == "float16" and name == "cpu":
        raise UnsupportedError("precision 'float16' needs device 'cuda'; on the CPU use 'bfloat16' or 'float32'.")
    if precision == "bfloat16" and name == "cuda" and not torch.cuda.is_bf16_supported():
        raise UnsupportedError("this GPU has no bfloat16 arithmetic; use precision 'float16' or 'float32'.")
    return torch.device(name)


@contextmanager
def deterministic(threads: int, device: torch.device) -> Iterator[None]:
    """Run the body with ``threads`` threads and deterministic algorithms only, then put every switch back.

    The sum order of a parallel reduction depends on the number of threads, so it belongs to the run's provenance.
    """
    if device.type == "cuda":
        # cuBLAS reads this when it first starts; without it, its workspaces make sums depend on timing.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    memory: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        memory.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.get_rng_state(),
    )
    torch.set_num_threads(threads)
    # The same switch as torch.use_deterministic_algorithms, which loads the whole compiler, a second and a half, to
    # tell it as well; nothing is compiled here.
    torch.set_deterministic_debug_mode("error")
    # Filling every fresh tensor would cost a tenth of the training time and hides no race of ours.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        memory.fill_uninitialized_memory = before[2]
        torch.backends.cudnn.benchmark = before[3]
        torch.set_rng_state(before[4])


@contextmanager
def readable_errors(device: torch.device) -> Iterator[None]:
    """Turn what torch says about memory and determinism into one clear line.

    Raises:
        SparsepackError: the device is out of memory.
        UnsupportedError: an operation of the network has no deterministic implementation on this device.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SparsepackError(f"the {device.type} device is out of memory; use a smaller batch_size.") from error
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise UnsupportedError(
            f"the model uses an operation that has no deterministic implementation on {device.type}, so a run could "
            f"not be repeated: {str(error).splitlines()[0]} Replace it, or train on the CPU."
        ) from error
