"""The command ``compress``: parse, call, print.

Exit codes: 0 all well; 1 something failed, or a requirement is not met; 2 the command line or the recipe is wrong;
130 interrupted (what was done is kept, the same command goes on). Results go to standard output, progress and errors
to standard error. Frameworks are imported inside the commands, so that ``compress --help`` costs nothing.
"""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__
from .errors import SparsepackError, UsageError

_FILE = click.Path(path_type=Path)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; no user mistake shows a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    usual = warnings.formatwarning
    warnings.formatwarning = _warning_line
    try:
        return _run(arguments)
    finally:
        warnings.formatwarning = usual


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"compress: warning: {message}\n"


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = commands.main(
            args=None if arguments is None else list(arguments), prog_name="compress", standalone_mode=False
        )
    except click.exceptions.Abort:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SparsepackError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again when it closes standard output.
        sys.stdout = None
        return 0
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EACCES,
            errno.EROFS,
            errno.EDQUOT,
            errno.EFBIG,
            errno.ENOENT,
            errno.EISDIR,
            errno.ENOTDIR,
        ):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}.", 1)
    except MemoryError:
        return _fail("out of memory; use a smaller model or batch, or a machine with more memory.", 1)
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    click.echo(f"compress: error: {message}", err=True)
    return code


def _interrupted() -> int:
    click.echo("compress: interrupted; finished work is kept, the same command goes on from it.", err=True)
    return 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="compress")
def commands() -> None:
    """Prune a network, write it small, measure it honestly.

    prune -> export -> measure, or all three from a recipe with run.
    """


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


_model_option = click.option(
    "--model", metavar="MODEL", help="The user's own model (file.py:factory) that the file came from."
)
_force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
_json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
_threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to use (recorded).  [default: all cores]"
)


@commands.command()
@click.argument("model", required=False)
@click.option(
    "--data", metavar="D", help="digits, npz:FILE, idx:DIR, cifar10:DIR, folder:DIR, file.py:factory or none."
)
@click.option("--method", metavar="NAME", help="See 'compress methods'.")
@click.option("--sparsity", type=float, metavar="S", help="Share of prunable weights to remove, 0 <= S < 1.")
@click.option("--structure", metavar="KIND", help="element, N:M (2:4), channel, neuron or head.")
@click.option("--saliency", metavar="NAME", help="What ranks coupled channels, neurons or heads: l1, l2, taylor ...")
@click.option("--aggregation", metavar="NAME", help="Of the layers of a coupled unit: sum, mean, l2 or max.")
@click.option("--round-to", type=click.IntRange(min=1), metavar="N", help="Keep multiples of N coupled units.")
@click.option("--allocation", metavar="NAME", help="global, uniform, erdos-renyi or erdos-renyi-kernel.")
@click.option("--schedule", metavar="NAME", help="one-shot, iterative or gradual.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of an iterative schedule.")
@click.option("--init", metavar="NAME", help="Draw the weights from the seed by this initialiser.")
@click.option("--generator", metavar="NAME", help="philox4x32-10 or keyed-product.")
@click.option("--weights", type=_FILE, metavar="FILE", help="safetensors for a factory's model.")
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
@_threads_option
@click.option("--recipe", type=_FILE, metavar="FILE", help="A recipe with one run; options given here win over it.")
@click.option("-o", "--output", type=_FILE, required=True, metavar="RUN", help="Folder for the run.")
@_force_option
def prune(model: str | None, recipe: Path | None, output: Path, force: bool, **options: Any) -> None:
    """Prune MODEL (a zoo name, file.py:factory, package.module:factory, model.onnx, a checkpoint) into RUN.

    An interrupted run goes on where it stopped when the same command is given again.
    """
    from .compressor.pipeline import prune as run_pipeline
    from .compressor.recipe import single_run
    from .runtimes.report.progress import progress_bars

    request = single_run(recipe, model, **options)
    with progress_bars() as progress:
        checkpoint = run_pipeline(request, output, force=force, progress=progress)
    from .runtimes.report.listing import checkpoint_summary

    click.echo(checkpoint_summary(checkpoint, output))


@commands.command()
@click.argument("checkpoint", type=_FILE, metavar="RUN|CHECKPOINT|MODEL.onnx")
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
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="onnx-slim: also remove this share of every group of coupled units, the weakest first.",
)
@click.option(
    "--target-macs",
    type=click.FloatRange(0, min_open=True),
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
    type=_FILE,
    metavar="FILE",
    help="onnx-sparse, onnx-slim: measured costs that decide; with --tune, where to keep them.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="onnx-sparse, onnx-slim: examples a run to choose for.  [default: 1]"
)
@click.option("--threads", type=click.IntRange(min=1), help="With --tune: threads of a run.  [default: all cores]")
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE", help="The artifact to write.")
@_model_option
@_json_flag
@_force_option
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
    from .runtimes.report.export import exported
    from .runtimes.report.progress import progress_bars

    path = checkpoint if checkpoint.suffix.lower() == ".onnx" else checkpoint_path(checkpoint)
    with progress_bars() as progress:
        text = exported(path, format_name, output, values, model, force, as_json, progress=progress, **options)
    click.echo(text)


@commands.command()
@click.argument("checkpoint", type=_FILE, metavar="RUN|CHECKPOINT")
@click.option(
    "--allow-approximate", is_flag=True, help="Remove what is inexact along padded borders too; says the bound."
)
@click.option(
    "-o", "--output", type=_FILE, required=True, metavar="FILE", help="The smaller checkpoint (.safetensors)."
)
@_model_option
@_json_flag
@_force_option
def slim(
    checkpoint: Path, output: Path, model: str | None, allow_approximate: bool, as_json: bool, force: bool
) -> None:
    """Cut dead channels, neurons and heads out of a torch network; 'prune FILE' goes on with the smaller one."""
    from .runtimes.report.slim import slimmed

    click.echo(slimmed(checkpoint_path(checkpoint), output, model, allow_approximate, as_json, force))


def checkpoint_path(path: Path) -> Path:
    """Return the checkpoint file of a RUN folder, or ``path`` itself when it is a file.

    Raises:
        UsageError: neither is there.
    """
    file = path / "checkpoint.safetensors" if path.is_dir() else path
    if not file.exists():
        raise UsageError(
            f"no checkpoint at {path}; give a folder that 'compress prune' finished, or its checkpoint file."
        )
    return file


@commands.command()
@click.argument("artifacts", nargs=-1, required=True, type=_FILE, metavar="ARTIFACT...")
@click.option(
    "--baseline", type=_FILE, metavar="ARTIFACT|RECORD.json", help="What speed and accuracy are compared with."
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
@click.option("--against", type=_FILE, metavar="RUN", help="The run that the artifacts came from, for parity.")
@click.option(
    "--require",
    multiple=True,
    metavar="EXPR",
    help="'storage.size_ratio>=8'; unmet gives exit code 1; may be repeated.",
)
@click.option("--allow-inconclusive", is_flag=True, help="A requirement that the noise leaves open is no failure.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Examples a run.")
@click.option("--per-layer", is_flag=True, help="Also time every node of the graph, on ONNX Runtime.")
@click.option(
    "--time-budget",
    type=click.FloatRange(min=0.05),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Timing of one pair.",
)
@_threads_option
@_model_option
@click.option(
    "--json", "json_file", type=_FILE, metavar="FILE", help="Write the measurement record ('-' for standard output)."
)
@_force_option
def measure(
    artifacts: tuple[Path, ...],
    runtimes: tuple[str, ...],
    require: tuple[str, ...],
    against: Path | None,
    json_file: Path | None,
    allow_inconclusive: bool,
    force: bool,
    **options: Any,
) -> int:
    """Measure storage, latency, memory, accuracy and parity of ARTIFACTs, and gate on the result."""
    from .runtimes.measure import measure as measure_artifacts
    from .runtimes.measure.gates import verdict
    from .runtimes.report.progress import progress_bars

    if json_file is not None and str(json_file) != "-":
        from .files import refuse_existing

        refuse_existing(json_file, force)
    with progress_bars() as progress:
        record = measure_artifacts(
            list(artifacts),
            against=checkpoint_path(against) if against else None,
            runtimes=list(runtimes),
            require=list(require),
            progress=progress,
            **options,
        )
    _print_record(record, json_file)
    return 0 if verdict(record, allow_inconclusive) else 1


def _print_record(record: dict[str, Any], json_file: Path | None) -> None:
    from .files import write_bytes
    from .runtimes.report.json import to_json
    from .runtimes.report.table import render

    if str(json_file) == "-":
        click.echo(to_json(record))
        return
    if json_file is not None:
        write_bytes(json_file, to_json(record).encode())
    click.echo(render(record))


@commands.command(name="run")
@click.argument("recipe", type=_FILE)
@click.option(
    "-o", "--output", type=_FILE, required=True, metavar="OUT", help="Folder for checkpoints, artifacts and records."
)
@click.option("--allow-inconclusive", is_flag=True, help="A requirement that the noise leaves open is no failure.")
@_force_option
def run_recipe(recipe: Path, output: Path, allow_inconclusive: bool, force: bool) -> int:
    """Prune, export and measure as RECIPE says; exit 1 when one of its requirements is not met.

    Killed at any moment, the same command goes on where it stopped.
    """
    from .compressor.recipe import load_recipe
    from .runtimes.job import run as run_job
    from .runtimes.measure.gates import verdict
    from .runtimes.report.progress import progress_bars
    from .runtimes.report.table import render

    with progress_bars() as progress:
        record = run_job(load_recipe(recipe), output, force=force, progress=progress)
    click.echo(render(record, summary=True))
    return 0 if verdict(record, allow_inconclusive) else 1


@commands.command()
@click.argument("path", type=_FILE, metavar="FILE|RUN")
@_json_flag
def inspect(path: Path, as_json: bool) -> None:
    """Show what is inside a checkpoint or artifact, tensor by tensor; the rows add up to the file."""
    from .runtimes.report.listing import inspection

    click.echo(inspection(checkpoint_path(path) if path.is_dir() else path, as_json))


@commands.command()
@click.argument("path", type=_FILE, metavar="FILE")
@click.option("--against", type=_FILE, metavar="RUN", help="Compare with this run's checkpoint, bit for bit.")
@_model_option
@_json_flag
def verify(path: Path, against: Path | None, model: str | None, as_json: bool) -> int:
    """Check hashes, decoding and (for ONNX) parity; exit 1 when anything differs."""
    from .runtimes.report.listing import findings_text
    from .runtimes.verify import verify as verify_file

    findings = verify_file(path, against=checkpoint_path(against) if against else None, model=model)
    click.echo(findings_text(path, findings, as_json))
    return 1 if any(not finding.ok for finding in findings) else 0


@commands.command()
@click.argument("name", required=False)
@_json_flag
@click.option("--markdown", is_flag=True, help="All of them as a page (docs/methods.md is made with it).")
def methods(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the pruning methods, or describe one."""
    from .runtimes.report.listing import methods_text
    from .runtimes.report.methods_page import methods_page

    if markdown:
        click.echo(methods_page(), nl=False)
    else:
        click.echo(methods_text(name, as_json))


@commands.command()
@_json_flag
def runtimes(as_json: bool) -> None:
    """List the runtimes, and why those that cannot run here cannot."""
    from .runtimes.report.listing import runtimes_text

    click.echo(runtimes_text(as_json))


@commands.command()
@_json_flag
def formats(as_json: bool) -> None:
    """List the export formats."""
    from .runtimes.report.listing import formats_text

    click.echo(formats_text(as_json))


if __name__ == "__main__":
    main()
