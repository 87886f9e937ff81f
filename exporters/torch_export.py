"""``torch-export``: the network as a ``torch.export`` program, which PyTorch, AOTInductor and ExecuTorch take."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from ..compressor.checkpoint import SparseCheckpoint
    from ..models.source import ModelSource

# Source lines and the paths that they lie at: nothing that computing needs.
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")
_GUARDS = "guards_code"


def write_torch_export(checkpoint: SparseCheckpoint, path: Path, *, source: ModelSource, force: bool = False) -> None:
    """Write a checkpoint as an exported program with dense values; see :func:`.torch_archive.write_torch_archive`."""
    from .torch_archive import TORCH_EXPORT, write_torch_archive

    write_torch_archive(checkpoint, path, TORCH_EXPORT, exported, source=source, force=force)


def exported(module: nn.Module, examples: tuple[Any, ...]) -> dict[str, bytes]:
    """Export a module in evaluation mode, for any batch size.

    Raises:
        ModelError: it cannot be exported.
    """
    import torch

    from ..models.graph.lowering import quiet_exporter

    stream = io.BytesIO()
    batch = torch.export.Dim("batch")
    with quiet_exporter():
        try:
            program = torch.export.export(
                module, examples, dynamic_shapes=tuple({0: batch} for _ in examples), strict=False
            )
            torch.export.save(program, stream)
        except (RuntimeError, ValueError, AssertionError, torch._dynamo.exc.UserError) as error:
            raise ModelError(f"the model cannot be exported by torch.export: {_first_line(error)}") from error
    with zipfile.ZipFile(stream) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    programs = [name for name in entries if name.endswith("/model.json")]
    return {**entries, **{name: _without_notes(entries[name]) for name in programs}}


def _without_notes(content: bytes) -> bytes:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            # PyTorch would compile the guards as Python; they say what the symbols of the sizes say already.
            return {k: [] if k == _GUARDS else strip(inner) for k, inner in value.items() if k not in _NOTES}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(strip(json.loads(content)), separators=(",", ":")).encode()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')}." if lines else type(error).__name__
