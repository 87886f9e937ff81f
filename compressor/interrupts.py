"""Ctrl-C between two steps instead of in the middle of one, so that what was done can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether the user has asked to stop.

    Attributes:
        pending: True once Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.pending = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            # The second time the user means now.
            raise KeyboardInterrupt
        self.pending = True


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Yield an :class:`Interrupts` that collects the first Ctrl-C of the body; a second one raises at once.

    Signals reach the main thread only; elsewhere, or where the caller has its own handler, nothing changes.
    """
    interrupts = Interrupts()
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts._handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
