"""``torchscript``: the network traced by ``torch.jit``, for C++ programs and services that load TorchScript."""

from __future__ import annotations

import copy
import io
import itertools
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from ..compressor.checkpoint import SparseCheckpoint
    from ..models.source import ModelSource

_TOKEN = "SparsepackNetwork"  # noqa: S105 - the beginning of a class name
_numbers = itertools.count()


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silence PyTorch's advice to leave TorchScript: who asks for this format has programs that load it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)
        yield


def write_torchscript(checkpoint: SparseCheckpoint, path: Path, *, source: ModelSource, force: bool = False) -> None:
    """Write a checkpoint as TorchScript with dense values; see :func:`.torch_archive.write_torch_archive`."""
    from .torch_archive import TORCHSCRIPT, write_torch_archive

    write_torch_archive(checkpoint, path, TORCHSCRIPT, traced, source=source, force=force)


def traced(module: nn.Module, examples: tuple[Any, ...]) -> dict[str, bytes]:
    """Trace a module in evaluation mode; the same module gives the same entries, however often and wherever.

    Raises:
        ModelError: it cannot be traced.
    """
    import torch

    token = f"{_TOKEN}{next(_numbers):06d}"
    stream = io.BytesIO()
    with quiet_torchscript(), warnings.catch_warnings():
        # Advice on single lines of the traced code; that the file computes the same is checked by 'verify'.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # untyped in torch
        try:
            # Untyped in torch.
            program = torch.jit.trace(_renamed(module, token), examples, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(program, stream)
        except RuntimeError as error:
            raise ModelError(f"the model cannot be traced as TorchScript: {_first_line(error)}") from error
    with zipfile.ZipFile(stream) as archive:
        # The number only kept this trace apart from others in the process.
        return {name: archive.read(name).replace(token.encode(), _TOKEN.encode()) for name in archive.namelist()}


def _renamed(module: nn.Module, token: str) -> nn.Module:
    """Return a copy whose every part has a class of its own, because PyTorch numbers classes that share a name.

    The numbers depend on what the process traced before, and the names on where a user's file lies.
    """
    copied = copy.deepcopy(module)
    for number, part in enumerate(copied.modules()):
        kind = type(part)
        part.__class__ = type(f"{token}Layer{number}", (kind,), {"__module__": "sparsepack"})
    return copied


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')}." if lines else type(error).__name__
