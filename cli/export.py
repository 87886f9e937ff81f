"""``compress export`` and ``compress slim``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, Amount, checkpoint_path, force_option, json_flag, model_option


@click.command()
@click.argument("checkpoint", type=FILE, metavar="RUN|CHECKPOINT|MODEL.onnx")
@click.option("--to", "format_name", required=True, metavar="FORMAT", help="See 'compress formats'.")
@click.option(
    "--values",
    default="fp32",
    show_default=True,
    metavar="KIND",
    help="How values are stored: fp32, fp16, bf16, int8 or codebook:BITS; see 'compress formats'.",
)
@click.option(
    "--finetune-values",
    "finetune_epochs",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="int8, codebook: train scales or codebooks on data, with the codes fixed; says the accuracy before and after.",
)
@click.option("--index-dtype", metavar="TYPE", help="csr: int32, int64 or uint16 column indices.  [default: int32]")
@click.option(
    "--data", metavar="D", help="What --finetune-values trains on, onnx-int8 is calibrated on.  [default: the run's]"
)
@click.option(
    "--slim",
    "ratio",
    type=Amount(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="onnx-slim: also remove this share of every group of coupled units, the weakest first.",
)
@click.option(
    "--target-macs",
    type=Amount(0, min_open=True),
    metavar="SHARE|N",
    help="onnx-slim: remove so many units that this share of the multiply-accumulates is left (up to 1), or N of them.",
)
@click.option(
    "--target-latency",
    metavar="SHARE|MS",
    help="onnx-slim: remove what saves most time until this share of it is left (0.5), or so many milliseconds (20ms); "
    "with --tune or --cost-table.",
)
@click.option(
    "--round-to", type=click.IntRange(min=1), metavar="N", help="With --slim and targets: keep multiples of N units."
)
@click.option(
    "--allow-approximate", is_flag=True, help="onnx-slim: remove what is inexact along padded borders; says the bound."
)
@click.option("--sparse-initializers", is_flag=True, help="onnx: ONNX's own sparse tensors, for tools that read them.")
@click.option(
    "--tune",
    is_flag=True,
    help="onnx-sparse: measure every layer here, dense and sparse, and take the faster; onnx-slim: at several widths.",
)
@click.option(
    "--cost-table",
    type=FILE,
    metavar="FILE",
    help="onnx-sparse, onnx-slim: measured costs that decide; with --tune, where to keep them.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="onnx-sparse, onnx-slim: examples a run to choose for.  [default: 1]"
)
@click.option("--threads", type=click.IntRange(min=1), help="With --tune: threads of a run.  [default: all cores]")
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE", help="The artifact to write.")
@model_option
@json_flag
@force_option
def export(
    checkpoint: Path,
    format_name: str,
    values: str,
    output: Path,
    model: str | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Write a sparse checkpoint as an artifact, or a plain ONNX file as a smaller or faster one.

    A plain ONNX file goes to onnx-slim or, where its weights hold many zeros, to onnx-sparse.
    """
    from ..runtimes.report.export import exported
    from ..runtimes.report.progress import progress_bars

    path = checkpoint if checkpoint.suffix.lower() == ".onnx" else checkpoint_path(checkpoint)
    with progress_bars() as progress:
        text = exported(path, format_name, output, values, model, force, as_json, progress=progress, **options)
    click.echo(text)


@click.command()
@click.argument("checkpoint", type=FILE, metavar="RUN|CHECKPOINT")
@click.option(
    "--allow-approximate", is_flag=True, help="Remove what is inexact along padded borders too; says the bound."
)
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE", help="The smaller checkpoint (.safetensors).")
@model_option
@json_flag
@force_option
def slim(
    checkpoint: Path, output: Path, model: str | None, allow_approximate: bool, as_json: bool, force: bool
) -> None:
    """Cut dead channels, neurons and heads out of a torch network; 'prune FILE' goes on with the smaller one."""
    from ..runtimes.report.slim import slimmed

    click.echo(slimmed(checkpoint_path(checkpoint), output, model, allow_approximate, as_json, force))
