"""Options and arguments that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError

# What cannot be read is told by who reads it, in one line.
FILE = click.Path(path_type=Path, readable=False)


class Amount(click.FloatRange):
    """A finite number in a range; click's own lets NaN pass, which is on no side of any bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; see :class:`click.ParamType`."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"'{value}' is no finite number.", param, ctx)
        return number


class NumberList(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1, with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers; see :class:`click.ParamType`."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"'{value}' is no list of whole numbers from 1, as in 1,8,64.", param, ctx)
        return tuple(int(part) for part in parts)


model_option = click.option(
    "--model", metavar="MODEL", help="The user's own model (file.py:factory) that the file came from."
)
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to use (recorded).  [default: all cores]"
)

_REPORTS = {
    "html": "Write the report as one HTML page.",
    "markdown": "Write it as Markdown, fit for a comment on a pull request.",
    "junit": "Write the requirements as JUnit XML.",
    "csv": "Write a line per artifact and runtime.",
    "json": "Write the measurement record.",
}


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--html``, ``--markdown``, ``--junit``, ``--csv`` and ``--json``."""
    for kind, words in reversed(_REPORTS.items()):
        text = f"{words}  ['-': standard output]"
        command = click.option(f"--{kind}", f"{kind}_file", type=FILE, metavar="FILE", help=text)(command)
    return command


def report_files(options: dict[str, Any]) -> dict[str, Path | None]:
    """Take the files that :func:`report_options` were given out of a command's options, by kind."""
    return {kind: options.pop(f"{kind}_file") for kind in _REPORTS}


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
