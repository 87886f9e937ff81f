"""What ``compress slim`` does and says: the smaller checkpoint, and the account of what went."""

from __future__ import annotations

import json
from pathlib import Path

from ...compressor.checkpoint import SparseCheckpoint
from ...errors import UsageError
from ...exporters.module_slim import write_slimmed
from ...exporters.onnx_slim import account_plain
from .units import human_bytes


def slimmed(path: Path, output: Path, model: str | None, approximate: bool, as_json: bool, force: bool) -> str:
    """Slim a checkpoint's network and return what to print.

    Args:
        path: a checkpoint.
        output: where the smaller one goes.
        model: the user's ``--model``.
        approximate: ``--allow-approximate``.
        as_json: JSON instead of text.
        force: whether an existing output may be replaced.

    Raises:
        UsageError: an output that could not be named as a model again.
        SparsepackError: whatever reading and slimming raise.
    """
    if output.suffix.lower() != ".safetensors":
        raise UsageError(
            f"{output}: the smaller checkpoint is a model to go on with; name it {output.stem}.safetensors."
        )
    account = write_slimmed(SparseCheckpoint.load(path), output, model=model, approximate=approximate, force=force)
    size = output.stat().st_size
    if as_json:
        found = {"path": str(output), "bytes": size, "account": account_plain(account)}
        return json.dumps(found, indent=2, sort_keys=True, allow_nan=False)
    named = f"{model} --weights {output}" if model else str(output)
    return "\n".join([*account.lines(), f"{output}: {human_bytes(size)}; 'compress prune {named}' goes on with it."])
