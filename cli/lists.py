"""``compress methods``, ``runtimes`` and ``formats``: what there is to choose from."""

from __future__ import annotations

import click

from .options import json_flag


@click.command()
@click.argument("name", required=False)
@json_flag
@click.option("--markdown", is_flag=True, help="All of them as a page (docs/methods.md is made with it).")
def methods(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the pruning methods, or describe one."""
    from ..runtimes.report.listing import methods_text
    from ..runtimes.report.methods_page import methods_page

    if markdown:
        click.echo(methods_page(), nl=False)
    else:
        click.echo(methods_text(name, as_json))


@click.command()
@json_flag
def runtimes(as_json: bool) -> None:
    """List the runtimes, and why those that cannot run here cannot."""
    from ..runtimes.report.listing import runtimes_text

    click.echo(runtimes_text(as_json))


@click.command()
@json_flag
def formats(as_json: bool) -> None:
    """List the export formats."""
    from ..runtimes.report.listing import formats_text

    click.echo(formats_text(as_json))
