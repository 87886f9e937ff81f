"""``compress inspect`` and ``compress verify``: what is in a file, and whether it is sound."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, checkpoint_path, json_flag, model_option


@click.command()
@click.argument("path", type=FILE, metavar="FILE|RUN")
@json_flag
def inspect(path: Path, as_json: bool) -> None:
    """Show what is inside a checkpoint or artifact, tensor by tensor; the rows add up to the file."""
    from ..runtimes.report.listing import inspection

    click.echo(inspection(checkpoint_path(path) if path.is_dir() else path, as_json))


@click.command()
@click.argument("path", type=FILE, metavar="FILE|RUN")
@click.option("--against", type=FILE, metavar="RUN", help="Compare with this run's checkpoint, bit for bit.")
@model_option
@json_flag
def verify(path: Path, against: Path | None, model: str | None, as_json: bool) -> int:
    """Check hashes, decoding and (for graphs and programs) parity; exit 1 when anything differs."""
    from ..runtimes.report.listing import findings_text
    from ..runtimes.verify import verify as verify_file

    file = checkpoint_path(path) if path.is_dir() else path
    findings = verify_file(file, against=checkpoint_path(against) if against else None, model=model)
    click.echo(findings_text(file, findings, as_json))
    return 1 if any(not finding.ok for finding in findings) else 0
