"""Which report goes where: the kinds of file that a record can be written as, and a job's folder as source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...compressor.grid import groups
from ...compressor.recipe import load_recipe
from ...compressor.run_folder import CHECKPOINT, RECIPE
from ...errors import UsageError
from ...files import path_text, refuse_existing, write_bytes
from ..measure.reading import read_record
from ..measure.record import RECORD
from .csv_file import to_csv
from .json import to_json
from .junit import to_junit
from .markdown import to_markdown
from .page import html_page
from .story import RunStory, run_story

# What stands for standard output.
STANDARD = Path("-")


@dataclass(frozen=True)
class Report:
    """A record and what is known around it.

    Attributes:
        record: a measurement record, as plain data.
        title: of the report.
        runs: how the artifacts came about.
        recipe: the recipe's text, or None.
        command: what gives the same again, or None.
        allow_inconclusive: whether noise may leave a requirement open.
        groups: by run, what it is called together with the runs that differ from it by their seed alone.
    """

    record: Mapping[str, Any]
    title: str = "sparsepack report"
    runs: list[RunStory] = field(default_factory=list)
    recipe: str | None = None
    command: str | None = None
    allow_inconclusive: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)


KINDS: dict[str, Callable[[Report], str]] = {
    "html": lambda report: html_page(
        report.record,
        title=report.title,
        runs=report.runs,
        recipe=report.recipe,
        command=report.command,
        groups=report.groups,
    ),
    "markdown": lambda report: to_markdown(report.record, report.title, report.groups),
    "junit": lambda report: to_junit(report.record, allow_inconclusive=report.allow_inconclusive),
    "csv": lambda report: to_csv(report.record),
    "json": lambda report: to_json(dict(report.record)),
}


def check_outputs(files: Mapping[str, Path | None], force: bool) -> None:
    """Refuse outputs before any work is done for them.

    Raises:
        OutputExistsError: one is there and ``force`` is false.
        UsageError: two of them are the same file, or both standard output.
    """
    wanted = [path for path in files.values() if path is not None]
    if len({path if path == STANDARD else os.path.realpath(path) for path in wanted}) < len(wanted):
        raise UsageError("two reports are to be written to the same place; give each its own file.")
    for path in wanted:
        if path != STANDARD:
            refuse_existing(path, force)


def write_outputs(report: Report, files: Mapping[str, Path | None]) -> str | None:
    """Write a report as every kind that a file is given for.

    Args:
        report: what to write.
        files: by kind, a key of :data:`KINDS`; None for kinds that nobody asked for.

    Returns:
        the text of the kind that is for standard output, or None.
    """
    standard = None
    for kind, path in files.items():
        if path == STANDARD:
            standard = KINDS[kind](report)
        elif path is not None:
            write_bytes(path, KINDS[kind](report).encode())
    return standard


def read_report(path: Path) -> Report:
    """Return the report of a record file, or of the folder that ``compress run`` wrote.

    Raises:
        UsageError: there is neither.
        FileFormatError: the record is damaged or of another version, or a checkpoint is.
    """
    if not path.is_dir():
        return Report(read_record(path), title=path_text(path.stem))
    file = path / RECORD
    if not file.exists():
        raise UsageError(f"{path} holds no {RECORD}; give a folder that 'compress run' finished, or a record file.")
    return job_report(path, read_record(file))


def job_report(out: Path, record: Mapping[str, Any], *, allow_inconclusive: bool = False) -> Report:
    """Return the report of a whole job.

    Args:
        out: its folder.
        record: its measurement record.
        allow_inconclusive: as given to ``compress run``.
    """
    recipe = out / RECIPE
    names = dict.fromkeys(artifact["artifact"].rpartition("/")[0] for artifact in record["artifacts"])
    return Report(
        record,
        title=path_text(out.resolve().name),
        runs=[run_story(out / name) for name in names if (out / name / CHECKPOINT).exists()],
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else None,
        command=f"compress run {RECIPE} -o out" if recipe.exists() else None,
        allow_inconclusive=allow_inconclusive,
        groups=groups(load_recipe(recipe).runs) if recipe.exists() else {},
    )
