"""``compress prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, force_option, threads_option


@click.command()
@click.argument("model", required=False)
@click.option(
    "--data", metavar="D", help="digits, npz:FILE, idx:DIR, cifar10:DIR, folder:DIR, file.py:factory or none."
)
@click.option("--method", metavar="NAME", help="See 'compress methods'.")
@click.option("--sparsity", type=float, metavar="S", help="Share of prunable weights to remove, 0 <= S < 1.")
@click.option(
    "--structure", metavar="KIND", help="element, N:M (2:4), block:RxC, channel, neuron, head, input-channel ..."
)
@click.option("--saliency", metavar="NAME", help="What ranks coupled channels, neurons or heads: l1, l2, taylor ...")
@click.option("--aggregation", metavar="NAME", help="Of the layers of a coupled unit: sum, mean, l2 or max.")
@click.option("--round-to", type=click.IntRange(min=1), metavar="N", help="Keep multiples of N coupled units.")
@click.option("--allocation", metavar="NAME", help="global, uniform, erdos-renyi or erdos-renyi-kernel.")
@click.option("--schedule", metavar="NAME", help="one-shot, iterative or gradual.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of an iterative schedule.")
@click.option("--init", metavar="NAME", help="Draw the weights from the seed by this initialiser.")
@click.option("--generator", metavar="NAME", help="philox4x32-10 or keyed-product.")
@click.option("--weights", type=FILE, metavar="FILE", help="safetensors for a factory's model.")
@click.option("--epochs", type=click.IntRange(min=0), help="Epochs of training.")
@click.option("--fine-tune-epochs", type=click.IntRange(min=0), help="Epochs of training after the mask is known.")
@click.option("--optimiser", metavar="NAME", help="sgd, adam or adamw.")
@click.option("--learning-rate", type=float, metavar="X", help="Peak learning rate.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples a step.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Never prune tensors of this name; may be repeated.")
@click.option("--keep-alive", is_flag=True, help="Keep at least one weight in every layer.")
@click.option(
    "--option", "method_options", multiple=True, metavar="KEY=VALUE", help="An option of the method; may be repeated."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of everything random.  [default: 0]")
@click.option("--device", metavar="NAME", help="cpu or cuda.  [default: cpu]")
@threads_option
@click.option("--recipe", type=FILE, metavar="FILE", help="A recipe with one run; options given here win over it.")
@click.option("-o", "--output", type=FILE, metavar="RUN", help="Folder for the run.")
@click.option(
    "--dry-run", is_flag=True, help="Predict bytes, multiply-adds and latency before the training; write nothing."
)
@force_option
def prune(
    model: str | None, recipe: Path | None, output: Path | None, force: bool, dry_run: bool, **options: Any
) -> None:
    """Prune MODEL (a zoo name, file.py:factory, package.module:factory, model.pt, model.onnx, a checkpoint) into RUN.

    An interrupted run goes on where it stopped when the same command is given again.
    """
    if dry_run:
        from ..compressor.recipe import single_run
        from ..runtimes.rehearsal import rehearse
        from ..runtimes.report.prediction import prediction_text

        click.echo(prediction_text({"": rehearse(single_run(recipe, model, **options), threads=options["threads"])}))
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    from ..compressor.pipeline import prune as run_pipeline
    from ..compressor.recipe import single_run
    from ..runtimes.report.progress import progress_bars

    request = single_run(recipe, model, **options)
    with progress_bars() as progress:
        checkpoint = run_pipeline(request, output, force=force, progress=progress)
    from ..runtimes.report.listing import checkpoint_summary

    click.echo(checkpoint_summary(checkpoint, output))
