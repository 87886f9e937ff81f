"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError

FILE = click.Path(path_type=Path)

model_option = click.option(
    "--model", metavar="MODEL", help="The user's own model (file.py:factory) that the file came from."
)
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to use (recorded).  [default: all cores]"
)


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
