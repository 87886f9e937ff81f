"""``compress analyze``: what sets finished runs of one network apart."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, force_option, json_flag, model_option


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN...")
@click.option("--data", metavar="D", help="What is predicted; none: nothing.  [default: the runs' own]")
@click.option("--reference", metavar="RUN", help="Whose masks the others are compared with.  [default: the first]")
@click.option(
    "--iteration",
    type=click.IntRange(min=0),
    metavar="N",
    help="Round of overlaps, agreement and pictures.  [default: the last in common]",
)
@click.option("--ensemble", "ensembles", multiple=True, metavar="RUN,RUN...", help="Also predict with these together.")
@click.option(
    "--sensitivity", is_flag=True, help="Also measure what the sparsity of each layer costs, on training data."
)
@click.option("--figures", type=FILE, metavar="DIR", help="Draw accuracy, overlap, masks, evolution ... as SVG files.")
@model_option
@json_flag
@force_option
def analyze(
    runs: tuple[Path, ...],
    data: str | None,
    model: str | None,
    reference: str | None,
    iteration: int | None,
    ensembles: tuple[str, ...],
    sensitivity: bool,
    figures: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Compare masks, dead weights, stability and predictions of RUNs (or checkpoints) of one network.

    Runs whose rounds were kept (--option keep_rounds=true) are compared round by round.
    """
    from ..compressor.analysis.study import analyze as analyze_runs
    from ..files import refuse_existing, write_bytes

    # Before anything is computed: whatever figures lie there would be taken for these.
    if figures is not None:
        for path in sorted(figures.glob("*.svg"))[:1]:
            refuse_existing(path, force)
    from ..runtimes.report.analysis_table import analysis_text, named_files
    from ..runtimes.report.json import to_json

    record, opened = analyze_runs(
        runs,
        data=data,
        model=model,
        reference=reference,
        iteration=iteration,
        ensembles=ensembles,
        sensitivity=sensitivity,
    )
    drawn: dict[str, str] = {}
    if figures is not None:
        from ..runtimes.report.analysis_figures import analysis_figures

        drawn = analysis_figures(record, opened)
        for name, figure in drawn.items():
            write_bytes(figures / name, figure.encode())
    click.echo(to_json(record).rstrip() if as_json else analysis_text(record))
    if figures is not None:
        click.echo(named_files(list(drawn), str(figures)), err=as_json)
