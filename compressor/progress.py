"""How a long run tells whoever waits what it is doing; the library itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What the command line's progress bars offer, and anyone else's may."""

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of ``total`` steps (None when the number is not known)."""

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` of the present stage as done."""


class Silent:
    """Progress that nobody watches."""

    def stage(self, title: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""
