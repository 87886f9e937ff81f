"""``compress run``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, force_option

# What a job writes beside measurement.json: a page to look at, a comment for a pull request, cases for a build server.
REPORTS = {"html": "report.html", "markdown": "report.md", "junit": "report.xml"}


@click.command(name="run")
@click.argument("recipe", type=FILE)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT", help="Folder for checkpoints, artifacts and records."
)
@click.option(
    "--require",
    multiple=True,
    metavar="EXPR",
    help="'accuracy.value>=0.9', beside the recipe's own requirements; unmet gives exit code 1; may be repeated.",
)
@click.option("--allow-inconclusive", is_flag=True, help="A requirement that the noise leaves open is no failure.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs under way at once; the results do not depend on it.  [default: cores over the recipe's threads]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Predict bytes, multiply-adds and latency before the training, into OUT/prediction.json; a later run reports "
    "what came of them.",
)
@force_option
def run_recipe(
    recipe: Path,
    output: Path,
    require: tuple[str, ...],
    allow_inconclusive: bool,
    jobs: int | None,
    dry_run: bool,
    force: bool,
) -> int:
    """Prune, export and measure as RECIPE says; exit 1 when one of its requirements is not met.

    Killed at any moment, the same command goes on where it stopped; what is finished is not done again when only what
    is measured or required has changed.
    """
    from msgspec.structs import replace

    from ..compressor.recipe import load_recipe
    from ..runtimes.job import run as run_job
    from ..runtimes.measure.environment import default_threads
    from ..runtimes.measure.gates import verdict
    from ..runtimes.report.job_table import JobTable
    from ..runtimes.report.outputs import job_report, write_outputs
    from ..runtimes.report.table import render

    loaded = load_recipe(recipe)
    if require:
        wanted = replace(loaded.measure, require=[*loaded.measure.require, *require])
        loaded = replace(loaded, measure=wanted)
    if dry_run:
        from ..runtimes.job_prediction import predict
        from ..runtimes.report.prediction import prediction_text

        click.echo(prediction_text(predict(loaded, output)))
        return 0
    # A recipe that does not say how many threads it wants has all cores for each of its runs.
    at_once = jobs or max(1, default_threads() // (loaded.threads or default_threads()))
    with JobTable([run.name for run in loaded.runs]).shown() as progress:
        record = run_job(loaded, output, force=force, progress=progress, jobs=at_once)
    report = job_report(output, record, allow_inconclusive=allow_inconclusive)
    write_outputs(report, {kind: output / name for kind, name in REPORTS.items()})
    click.echo(render(record, summary=True, groups=report.groups))
    click.echo(f"report: {output / REPORTS['html']}")
    return 0 if verdict(record, allow_inconclusive) else 1
