"""What every test shares: no property test is a timed test, and small checkpoints made by hand."""

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from checkpoints import assembled
from hypothesis import settings

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.runtimes.native import library_path, unavailable

settings.register_profile("sparsepack", deadline=None)
settings.load_profile("sparsepack")

# A shell starts its background jobs with Ctrl-C ignored, which they hand on to all that they start; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def exporter_reads_its_operators_once() -> None:
    """Half of exporting a small network is PyTorch parsing the five hundred operators that it can write, every time."""
    from torch.onnx._internal import _lazy_import

    # Private, so it may be gone in another release; the tests are slower then.
    apis: Any = getattr(_lazy_import, "onnxscript_apis", None)
    if apis is not None:
        apis.get_torchlib_ops = cache(lambda: apis.__getattr__("get_torchlib_ops")())


@pytest.fixture(scope="session")
def checkpoint_of() -> Callable[..., SparseCheckpoint]:
    """A function that puts tensors (of ``compressor.checkpoint.make_tensor``) together to a checkpoint."""
    return assembled


@pytest.fixture(scope="session")
def operators() -> Path:
    """The native operators' library; the test is skipped where it was not built, and fails where it had to be."""
    reason = unavailable()
    if reason is not None:
        if os.environ.get("SPARSEPACK_REQUIRE_NATIVE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return library_path()
