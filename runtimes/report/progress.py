"""Progress bars on standard error; silent when it is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """One bar at a time, created when a stage announces itself and closed when the next one does.

    The library calls :meth:`stage` and :meth:`advance` (see ``compressor.pipeline``) and knows nothing of terminals.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of ``total`` steps (None when the number is not known)."""
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(total=total, desc=title, file=sys.stderr, disable=None, leave=False, dynamic_ncols=True)

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` of the present stage as done."""
        if self._bar is not None:
            self._bar.update(steps)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a :class:`Progress` and clear the line at the end, whatever happens."""
    progress = Progress()
    try:
        yield progress
    finally:
        progress.close()
