"""What ``compress export`` does and says: the artifact written, and for ``onnx-slim`` the account of what went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...exporters import EXPORTERS, needs_source, open_artifact
from ...exporters import export as write_artifact
from .listing import artifact_summary
from .units import human_bytes

if TYPE_CHECKING:
    from ...exporters.slim_account import Account

SLIM = "onnx-slim"


def exported(
    path: Path,
    format: str,
    output: Path,
    values: str,
    model: str | None,
    force: bool,
    as_json: bool,
    *,
    ratio: float | None,
    round_to: int | None,
    allow_approximate: bool,
    sparse_initializers: bool = False,
) -> str:
    """Export a checkpoint, or slim a plain ONNX file, and return what to print.

    Args:
        path: a checkpoint, or an ONNX file.
        format: a key of ``EXPORTERS``.
        output: where to.
        values: how values are stored.
        model: the user's ``--model``.
        force: whether an existing output may be replaced.
        as_json: JSON instead of text.
        ratio: ``--slim``.
        round_to: ``--round-to``.
        allow_approximate: ``--allow-approximate``.
        sparse_initializers: ``--sparse-initializers``.

    Raises:
        UsageError: options that do not go together.
        SparsepackError: whatever reading, exporting and slimming raise.
    """
    from ...compressor.checkpoint import SparseCheckpoint
    from ...models.source import source_from_record

    options = {"--slim": ratio, "--round-to": round_to, "--allow-approximate": allow_approximate}
    source = needs_source(format)
    account = None
    sentences: list[str] = []
    for name, value in options.items():
        if value and format != SLIM:
            raise UsageError(f"{name} goes with --to {SLIM}, not with --to {format}.")
    if sparse_initializers and format != "onnx":
        raise UsageError(f"--sparse-initializers goes with --to onnx, not with --to {format}.")
    if round_to and not ratio:
        raise UsageError("--round-to rounds what --slim keeps; give --slim SHARE as well.")
    if path.suffix.lower() == ".onnx":
        _require_slim(path, format, values, model)
        account = _slim(path, output, force, ratio, round_to, allow_approximate)
    else:
        loaded = SparseCheckpoint.load(path)
        network = source_from_record(loaded.metadata.model, model) if source else None
        if format == SLIM and values in EXPORTERS[SLIM].values:
            account = _slim(loaded, output, force, ratio, round_to, allow_approximate, network)
        elif sparse_initializers and network is not None:
            sentences = _sparsified(loaded, output, values, force, network)
        else:
            write_artifact(loaded, format, output, values=values, source=network, force=force)
    artifact = open_artifact(output)
    if as_json:
        found: dict[str, Any] = {"path": str(output), "format": artifact.format, "bytes": artifact.size}
        if account is not None:
            from ...exporters.onnx_slim import account_plain

            found["account"] = account_plain(account)
        return json.dumps(found, indent=2, sort_keys=True, allow_nan=False)
    if account is None:
        return "\n".join([artifact_summary(artifact), *sentences])
    whole = account.bytes[0] / artifact.size
    summary = f"{output}: {format}, {human_bytes(artifact.size)}, {whole:.2f}x smaller than the whole network's values."
    return "\n".join([*account.lines(), summary])


def _sparsified(loaded: Any, output: Path, values: str, force: bool, source: Any) -> list[str]:
    from ...exporters.onnx_dense import write_onnx_dense
    from ...exporters.sparse_initializers import summary

    return summary(
        write_onnx_dense(loaded, output, source=source, values=values, force=force, sparse_initializers=True)
    )


def _require_slim(path: Path, format: str, values: str, model: str | None) -> None:
    """Refuse what a plain ONNX file cannot become.

    Raises:
        FileFormatError: it is no ONNX file.
        UsageError: another format, other values, or a model are asked for.
    """
    from ...models.onnx_file import OnnxFile

    OnnxFile(path)
    if format != SLIM:
        raise UsageError(
            f"{path} is an ONNX file, which exports to {SLIM} only; for {format} prune it first (compress prune {path} "
            "...) and export the run."
        )
    if values not in EXPORTERS[SLIM].values:
        raise UsageError(f"--to {SLIM} keeps the values as they are; leave --values {values} out.")
    if model is not None:
        raise UsageError(f"--model goes with a checkpoint; {path} is the model itself.")


def _slim(
    what: Any,
    output: Path,
    force: bool,
    ratio: float | None,
    round_to: int | None,
    allow_approximate: bool,
    source: Any = None,
) -> Account:
    from ...exporters.onnx_slim import SlimSettings, slim_checkpoint, slim_file

    settings = SlimSettings(ratio, round_to or 1, allow_approximate)
    if isinstance(what, Path):
        return slim_file(what, output, settings=settings, force=force)
    return slim_checkpoint(what, output, source=source, settings=settings, force=force)
