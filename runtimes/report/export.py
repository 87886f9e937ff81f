"""What ``compress export`` does and says: the artifact, and the account of what went or of what runs sparse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...exporters import EXPORTERS, check_values, needs_source, open_artifact
from ...exporters import export as write_artifact
from ...exporters.onnx_slim import SlimSettings
from ...exporters.torch_archive import FORMATS as TORCH_FORMATS
from ..measure.environment import default_threads
from ..measure.inputs import calibration
from .listing import artifact_summary
from .units import human_bytes, percent

if TYPE_CHECKING:
    from ...compressor.checkpoint import SparseCheckpoint
    from ...compressor.progress import Progress
    from ...exporters.finetune import FineTuned
    from ...exporters.slim_account import Account
    from ...exporters.sparse_graph.choose import Measure

SLIM, SPARSE, INT8 = "onnx-slim", "onnx-sparse", "onnx-int8"
# What a plain ONNX file, without a checkpoint, can become.
FROM_FILE = (SLIM, SPARSE)
_SLIM_FIRST = (
    "; a torch network becomes smaller by 'compress prune --structure channel', then 'compress slim', whose file every "
    "format takes."
)


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
    target_macs: float | None,
    target_latency: str | None,
    round_to: int | None,
    allow_approximate: bool,
    sparse_initializers: bool = False,
    tune: bool = False,
    cost_table: Path | None = None,
    threads: int | None = None,
    batch: int | None = None,
    index_dtype: str | None = None,
    finetune_epochs: int | None = None,
    data: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Export a checkpoint or a plain ONNX file, and return what to print.

    Args:
        path: a checkpoint, or an ONNX file.
        format: a key of ``EXPORTERS``.
        output: where to.
        values: how values are stored.
        model: the user's ``--model``.
        force: whether an existing output may be replaced.
        as_json: JSON instead of text.
        ratio: ``--slim``.
        target_macs: ``--target-macs``.
        target_latency: ``--target-latency``.
        round_to: ``--round-to``.
        allow_approximate: ``--allow-approximate``.
        sparse_initializers: ``--sparse-initializers``.
        tune: ``--tune``: measure what decides which layers run sparse, or how wide they become.
        cost_table: ``--cost-table``: measured costs; with ``tune``, where to keep them.
        threads: ``--threads`` of the measuring.
        batch: ``--batch`` that the choice is for.
        index_dtype: ``--index-dtype``.
        finetune_epochs: ``--finetune-values``.
        data: ``--data`` to fine-tune or to calibrate on; None: the run's.
        progress: told of the measuring.

    Raises:
        UsageError: options that do not go together.
        SparsepackError: whatever reading, exporting and slimming raise.
    """
    from ...compressor.checkpoint import SparseCheckpoint
    from ...models.source import source_from_record

    own: dict[str | tuple[str, ...], dict[str, Any]] = {
        "csr": {"--index-dtype": index_dtype},
        SLIM: {
            "--slim": ratio,
            "--target-macs": target_macs,
            "--target-latency": target_latency,
            "--round-to": round_to,
            "--allow-approximate": allow_approximate,
        },
        "onnx": {"--sparse-initializers": sparse_initializers},
        (SPARSE, SLIM): {"--tune": tune, "--cost-table": cost_table, "--batch": batch},
    }
    source = needs_source(format)
    for owner, options in own.items():
        owners = (owner,) if isinstance(owner, str) else owner
        for name, value in options.items():
            if value and format not in owners:
                way = _SLIM_FIRST if format in TORCH_FORMATS and SLIM in owners else "."
                raise UsageError(f"{name} goes with --to {' or '.join(owners)}, not with --to {format}{way}")
    if threads and not tune:
        raise UsageError("--threads is for measuring; give --tune as well.")
    measure: Measure | None = None
    if format == SPARSE:
        from ..tune import cost_source

        measure = cost_source(cost_table, tune=tune, threads=threads or default_threads(), progress=progress)
    account = None
    sentences: list[str] = []
    network: Any = None
    if path.suffix.lower() == ".onnx":
        _require_from_file(path, format, values, model)
        what: Any = path
    else:
        # Networks larger than memory go through tensor by tensor where the format allows it.
        what = SparseCheckpoint.load(path) if source or finetune_epochs else SparseCheckpoint.open(path)
        network = source_from_record(what.metadata.model, model) if source else None
    check_values(format, values)
    if not isinstance(what, Path):
        sentences += _materialised(what, format)
    if data and not finetune_epochs and format != INT8:
        raise UsageError(
            f"--data is what --finetune-values trains on and what {INT8} is calibrated on; give one of them as well."
        )
    tuned: FineTuned | None = None
    if finetune_epochs:
        if isinstance(what, Path):
            raise UsageError("--finetune-values trains a checkpoint's weights; prune the ONNX file's network first.")
        tuned = _fine_tuned(what, values, model, data, finetune_epochs, progress)
        what = tuned.checkpoint
        sentences.append(_accuracies(tuned))
    if format == SLIM:
        from .slimming import slim_settings

        settings = slim_settings(
            ratio=ratio,
            target_macs=target_macs,
            target_latency=target_latency,
            round_to=round_to,
            allow_approximate=allow_approximate,
            tune=tune,
            cost_table=cost_table,
            threads=threads,
            batch=batch,
            progress=progress,
        )
        account = _slim(what, output, force, settings, network)
    elif format == SPARSE:
        _sparse(what, output, force, values, measure, batch or 1, network)
    elif sparse_initializers:
        sentences = _sparsified(what, output, values, force, network)
    elif index_dtype:
        from ...exporters.csr import write_csr

        write_csr(what, output, values=values, force=force, index_dtype=index_dtype)
    else:
        examples = None
        if format == INT8:
            examples = calibration(_data(what, data), what.metadata.model, allow_import=data is not None)
        write_artifact(what, format, output, values=values, source=network, force=force, calibration=examples)
    artifact = open_artifact(output)
    if as_json:
        found: dict[str, Any] = {"path": str(output), "format": artifact.format, "bytes": artifact.size}
        if tuned is not None:
            found["accuracy"] = {"before": tuned.before, "coded": tuned.coded, "after": tuned.after}
        if account is not None:
            from ...exporters.onnx_slim import account_plain

            found["account"] = account_plain(account)
        return json.dumps(found, indent=2, sort_keys=True, allow_nan=False)
    if account is None:
        return "\n".join([artifact_summary(artifact), *sentences])
    whole = account.bytes[0] / artifact.size
    summary = f"{output}: {format}, {human_bytes(artifact.size)}, {whole:.2f}x smaller than the whole network's values."
    return "\n".join([*account.lines(), summary])


def _materialised(checkpoint: SparseCheckpoint, format: str) -> list[str]:
    """Return what it costs that a format stores values where a method trained something else."""
    from ...exporters.manifest_checks import PARAMETRISATIONS
    from ...exporters.materialise import materialisation

    if format == "packed":
        return []
    if format == "onnx-unpack":
        from ...exporters.unpacking.reduced import REDUCED

        note = materialisation(checkpoint, (*PARAMETRISATIONS, *REDUCED))
    else:
        note = materialisation(checkpoint)
    return [f"note: {note}"] if note else []


def _fine_tuned(
    loaded: SparseCheckpoint, values: str, model: str | None, data: str | None, epochs: int, progress: Progress | None
) -> FineTuned:
    from ...exporters.finetune import finetune_values
    from ...models.data import load_data
    from ...models.source import source_from_record

    named = _data(loaded, data)
    return finetune_values(
        loaded,
        values,
        source=source_from_record(loaded.metadata.model, model),
        # A user's own code runs only when the user names it, never because a file does.
        data=load_data(named, allow_import=data is not None),
        epochs=epochs,
        threads=default_threads(),
        progress=progress,
    )


def _accuracies(tuned: FineTuned) -> str:
    if tuned.before is None or tuned.coded is None or tuned.after is None:
        return f"values fine-tuned for {tuned.epochs} epochs; there are no test examples to say what it brought."
    stages = f"{percent(tuned.before)} before coding, {percent(tuned.coded)} coded"
    return f"test accuracy: {stages}, {percent(tuned.after)} after {tuned.epochs} epochs of fine-tuning."


def _data(loaded: SparseCheckpoint, data: str | None) -> str:
    """Return the data that was typed, else the run's."""
    recorded = loaded.metadata.recipe.get("data")
    return data or (recorded if isinstance(recorded, str) else "none")


def _sparsified(loaded: Any, output: Path, values: str, force: bool, source: Any) -> list[str]:
    from ...exporters.onnx_dense import write_onnx_dense
    from ...exporters.sparse_initializers import summary

    return summary(
        write_onnx_dense(loaded, output, source=source, values=values, force=force, sparse_initializers=True)
    )


def _require_from_file(path: Path, format: str, values: str, model: str | None) -> None:
    """Refuse what a plain ONNX file cannot become.

    Raises:
        FileFormatError: it is no ONNX file.
        UsageError: another format, other values, or a model are asked for.
    """
    from ...models.onnx_file import OnnxFile

    OnnxFile(path)
    if format not in FROM_FILE:
        raise UsageError(
            f"{path} is an ONNX file, which exports to {' and '.join(FROM_FILE)} only; for {format} prune it first "
            f"(compress prune {path} ...) and export the run."
        )
    if format == SLIM and values not in EXPORTERS[SLIM].values:
        raise UsageError(f"--to {SLIM} keeps the values as they are; leave --values {values} out.")
    if model is not None:
        raise UsageError(f"--model goes with a checkpoint; {path} is the model itself.")


def _sparse(
    what: Any, output: Path, force: bool, values: str, measure: Measure | None, batch: int, source: Any = None
) -> None:
    from ...exporters.onnx_sparse import sparse_file, write_onnx_sparse

    if isinstance(what, Path):
        sparse_file(what, output, values=values, force=force, measure=measure, batch=batch)
    else:
        write_onnx_sparse(what, output, source=source, values=values, force=force, measure=measure, batch=batch)


def _slim(what: Any, output: Path, force: bool, settings: SlimSettings, source: Any = None) -> Account:
    from ...exporters.onnx_slim import slim_checkpoint, slim_file

    if isinstance(what, Path):
        return slim_file(what, output, settings=settings, force=force)
    return slim_checkpoint(what, output, source=source, settings=settings, force=force)
