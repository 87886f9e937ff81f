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
        ModelError: it cannot be traced, or has a name that PyTorch does not read again.
    """
    import torch

    foreign = next((name for name in module.state_dict() if not name.isascii()), None)
    if foreign is not None:
        raise ModelError(
            f"tensor '{foreign}' has a name that TorchScript writes and cannot read again; name its layer in ASCII, or "
            "export to another format."
        )
    place = _reads_values(module, examples)
    if place is not None:
        warnings.warn(
            f"the network decides by values of its tensors {place}, as an 'if' on one does; the traced program keeps "
            "what was decided for the example inputs, whatever it is given.",
            stacklevel=2,
        )
    token = f"{_TOKEN}{next(_numbers):06d}"
    stream = io.BytesIO()
    with quiet_torchscript(), warnings.catch_warnings():
        # Advice on single lines of the traced code; that the file computes the same is checked by 'verify'.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # untyped in torch
        try:
            # Untyped in torch. Not strict: a network may return a dict, whose keys are the same each time.
            program = torch.jit.trace(  # type: ignore[no-untyped-call]
                _renamed(module, token), examples, check_trace=False, strict=False
            )
            torch.jit.save(program, stream)
        except RuntimeError as error:
            raise ModelError(f"the model cannot be traced as TorchScript: {_first_line(error)}") from error
    with zipfile.ZipFile(stream) as archive:
        # The number only kept this trace apart from others in the process.
        return {name: archive.read(name).replace(token.encode(), _TOKEN.encode()) for name in archive.namelist()}


def _reads_values(module: nn.Module, examples: tuple[Any, ...]) -> str | None:
    """Return where a network turns a tensor's value into a number of Python's, ``(net.py, line 12)``; None if nowhere.

    Sizes are numbers anyway while nothing traces, so that only what depends on values is found.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from ..models.factory import blame

    class Found(Exception):  # noqa: N818 - no error, and never seen outside
        pass

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                raise Found
            return func(*args, **(kwargs or {}))

    try:
        with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]  # untyped in torch
            module(*examples)
    except Found as found:
        return blame(found)
    return None


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
