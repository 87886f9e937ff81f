"""The contract of a runtime: an artifact goes in, a session that answers arrays with an array comes out.

A runtime that cannot run here says why (:meth:`Runtime.available`), and one that cannot run an artifact says why
(:meth:`Runtime.accepts`); nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..files import Array

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource


class Session(Protocol):
    """A network that is loaded and ready to run."""

    @property
    def notes(self) -> Sequence[str]:
        """What the reader of a number must know about it ("1 of 3 linear layers runs sparse"), in sentences."""

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the network takes, or None when it takes any."""

    def run(self, *inputs: Array) -> Array:
        """Return the network's first output for one array per input; every array's first axis is the batch."""


class Runtime(Protocol):
    """Something that can run artifacts on this machine, or says why not."""

    @property
    def name(self) -> str:
        """The name that users type."""

    @property
    def summary(self) -> str:
        """What it runs, and how, in one sentence."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that are meant for this runtime; it measures them unless the user names runtimes."""

    @property
    def needs_source(self) -> bool:
        """Whether it builds the network from its source; the others run what is in the file alone."""

    def available(self) -> str | None:
        """Return None when this runtime works on this machine, otherwise the reason why it does not."""

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None when this runtime can run ``artifact``, otherwise the reason why it cannot."""

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> Session:
        """Load ``artifact``.

        Args:
            artifact: an opened artifact that :meth:`accepts` takes.
            threads: threads that one run may use.
            source: the model source, where the artifact's own record is not enough to build it (a user's factory).

        Raises:
            RuntimeUnavailableError: it turns out that the runtime does not work here.
            FileFormatError: the artifact is damaged.
            ModelError: the model source does not fit the artifact.
        """
