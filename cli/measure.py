"""``compress measure``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from .options import (
    FILE,
    Amount,
    NumberList,
    checkpoint_path,
    force_option,
    model_option,
    report_files,
    report_options,
    threads_option,
)


@click.command()
@click.argument("artifacts", nargs=-1, required=True, type=FILE, metavar="ARTIFACT...")
@click.option(
    "--baseline", type=FILE, metavar="ARTIFACT|RECORD.json", help="What speed and accuracy are compared with."
)
@click.option(
    "--baseline-runtime",
    default="onnxruntime-cpu",
    show_default=True,
    metavar="NAME",
    help="For a baseline that the artifact's runtime cannot load.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="See 'compress runtimes'; may be repeated.  [default: all that fit]",
)
@click.option("--data", metavar="D", help="Measure accuracy and parity on this data.")
@click.option("--against", type=FILE, metavar="RUN", help="The run that the artifacts came from, for parity.")
@click.option(
    "--require",
    multiple=True,
    metavar="EXPR",
    help="'storage.size_ratio>=8'; unmet gives exit code 1; may be repeated.",
)
@click.option("--allow-inconclusive", is_flag=True, help="A requirement that the noise leaves open is no failure.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Examples a run.")
@click.option("--per-layer", is_flag=True, help="Also time every node of the graph, on ONNX Runtime.")
@click.option("--self-check", is_flag=True, help="Also time each artifact against itself: must come out as 1.00.")
@click.option(
    "--batches",
    type=NumberList(),
    default=(),
    metavar="N,N...",
    help="Also time these batch sizes, as in 1,8,64.",
)
@click.option("--throughput", is_flag=True, help="Also count what as many sessions as threads deliver together.")
@click.option(
    "--time-budget",
    type=Amount(min=0.05),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Timing of one pair; three times as long where noise leaves the interval wider than 4 %.",
)
@threads_option
@model_option
@report_options
@force_option
@click.pass_obj
def measure(
    typed: list[str],
    /,
    artifacts: tuple[Path, ...],
    runtimes: tuple[str, ...],
    require: tuple[str, ...],
    against: Path | None,
    allow_inconclusive: bool,
    force: bool,
    **options: Any,
) -> int:
    """Measure storage, latency, memory, accuracy and parity of ARTIFACTs, and gate on the result."""
    from ..files import path_text
    from ..runtimes.measure import measure as measure_artifacts
    from ..runtimes.measure.gates import verdict
    from ..runtimes.measure.record import NO_COMPARISON
    from ..runtimes.report.outputs import Report, check_outputs, write_outputs
    from ..runtimes.report.progress import progress_bars
    from ..runtimes.report.story import run_story
    from ..runtimes.report.table import render

    files = report_files(options)
    check_outputs(files, force)
    with progress_bars() as progress:
        record = measure_artifacts(
            list(artifacts),
            against=checkpoint_path(against) if against else None,
            runtimes=list(runtimes),
            require=list(require),
            progress=progress,
            **options,
        )
    report = Report(
        record,
        runs=[run_story(against)] if against is not None and against.is_dir() else [],
        command=path_text(shlex.join(["compress", *typed])),
        allow_inconclusive=allow_inconclusive,
    )
    click.echo(write_outputs(report, files) or render(record))
    apart = [
        f"{artifact['artifact']}: {note}"
        for artifact in record["artifacts"]
        for note in artifact["notes"]
        if note.startswith(NO_COMPARISON)
    ]
    for line in apart:
        click.echo(f"compress: error: {line}", err=True)
    return 0 if verdict(record, allow_inconclusive) and not apart else 1
