"""Files that one process holds at a time; the system lets go of them when the process ends, however it ends."""

from __future__ import annotations

import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def try_hold(stream: IO[bytes]) -> bool:
    """Hold an open file until it is closed; return False, at once, when another process holds it."""
    try:
        _lock(stream.fileno())
    except OSError:
        return False
    return True
