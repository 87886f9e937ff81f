"""``compress report``: an earlier measurement again, as a table or as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, force_option, report_files, report_options


@click.command()
@click.argument("path", type=FILE, metavar="RECORD.json|OUT")
@report_options
@force_option
def report(path: Path, force: bool, **options: Any) -> None:
    """Show a measurement record, or the folder that 'compress run' wrote; measures nothing again."""
    from ..runtimes.report.outputs import check_outputs, read_report, write_outputs
    from ..runtimes.report.table import render

    files = report_files(options)
    check_outputs(files, force)
    found = read_report(path)
    click.echo(write_outputs(found, files) or render(found.record, groups=found.groups))
