"""The progress of a job as one live table on standard error: a line per run under way, and how many are done.

Nothing is shown when standard error is no terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class _Line:
    stage: str = "waiting"
    total: int | None = None
    steps: int = 0


class RunProgress:
    """What one run reports to."""

    def __init__(self, table: JobTable, name: str) -> None:
        self._table = table
        self._name = name

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of ``total`` steps (None when the number is not known)."""
        self._table.lines[self._name] = _Line(title, total)
        self._table.refresh()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` of the present stage as done."""
        self._table.lines.setdefault(self._name, _Line()).steps += steps
        self._table.refresh()


class JobTable:
    """The progress of a whole job.

    Args:
        runs: names of all runs.

    Attributes:
        lines: the runs under way.
        finished: how many are done.
        failed: names of those that failed.
        stage_title: what the job as a whole is doing, once its runs are done.
    """

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = list(runs)
        self.lines: dict[str, _Line] = {}
        self.finished = 0
        self.failed: list[str] = []
        self.stage_title = ""
        self._live: Any = None

    def run(self, name: str) -> RunProgress:
        """Return what the run of that name reports to."""
        return RunProgress(self, name)

    def done(self, name: str, *, failed: bool = False) -> None:
        """Tell that a run is finished, or that it failed."""
        self.lines.pop(name, None)
        if failed:
            self.failed.append(name)
        else:
            self.finished += 1
        self.refresh()

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of the job itself (measuring)."""
        self.stage_title = title
        self.refresh()

    def advance(self, steps: int = 1) -> None:
        """Count steps of the job itself; they are not shown."""

    def render(self) -> Any:
        """Return the table as it stands."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for side in ("left", "left", "right"):
            table.add_column(justify="right" if side == "right" else "left", no_wrap=True)
        table.add_column(width=30)
        for name, line in self.lines.items():
            counted = f"{line.steps}/{line.total}" if line.total else ""
            bar = ProgressBar(total=line.total or 1, completed=line.steps, width=30) if line.total else ""
            table.add_row(name, line.stage, counted, bar)
        without = f", failed: {', '.join(self.failed)}" if self.failed else ""
        table.add_row(f"{self.finished} of {len(self.runs)} runs done{without}", self.stage_title)
        return table

    def refresh(self) -> None:
        """Show what changed; at most some times a second."""
        if self._live is not None:
            self._live.update(self.render())

    @contextmanager
    def shown(self) -> Iterator[JobTable]:
        """Show the table while the job runs, and clear it at the end, whatever happens."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(self.render(), console=Console(stderr=True), transient=True, refresh_per_second=8) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None
