"""One artifact while it is measured: opened once, its sessions loaded once each and shared by all measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...compressor.checkpoint import SparseCheckpoint
from ...errors import SparsepackError, UnsupportedError, UsageError
from ...exporters import open_artifact
from ...exporters.artifact import TRANSFORMED
from ...files import Array
from ...models.source import ModelRecord
from .. import RUNTIMES
from ..base import Session
from ..torch_dense import dense_session, source_of, state_of
from .inputs import example_inputs, input_specs
from .sources import typed_source

if TYPE_CHECKING:
    from ...models.source import InputSpec, TorchSource

CPU_ORDER = ("onnxruntime-cpu", "onnxruntime-sparse-cpu", "torchscript-cpu", "torch-export-cpu", "torch-cpu")


class Subject:
    """An artifact with its sessions.

    Attributes:
        name: what tables and requirements call it.
        artifact: the opened artifact.
        checkpoint_path: the checkpoint file it came from, when the caller knows it.
        model: the user's ``--model``.
    """

    def __init__(
        self, path: Path, name: str, *, threads: int, model: str | None = None, checkpoint: Path | None = None
    ) -> None:
        """Open the artifact.

        Raises:
            FileFormatError: it is unreadable, damaged or of another kind.
        """
        self.name = name
        self.artifact = open_artifact(path)
        self.checkpoint_path = checkpoint
        self.model = model
        self._threads = threads
        self._checkpoint: SparseCheckpoint | None = None
        self._sessions: dict[str, Session] = {}
        self._numbers: dict[str, float] = {}
        self._distrusted: dict[str, str] = {}
        self._source: TorchSource | None = None

    @property
    def checkpoint(self) -> SparseCheckpoint | None:
        """The checkpoint it came from, when the caller knows it.

        Raises:
            FileFormatError: it is unreadable, damaged or of another kind.
        """
        if self._checkpoint is None and self.checkpoint_path is not None:
            self._checkpoint = SparseCheckpoint.load(self.checkpoint_path)
        return self._checkpoint

    def specs(self) -> list[InputSpec]:
        """Return the network's inputs."""
        return input_specs(self.artifact)

    def model_record(self) -> ModelRecord:
        """Return the model source's record; for a foreign ONNX file one that says what its graph says."""
        return self.artifact.model or ModelRecord("onnx", str(self.artifact.path), self.specs())

    def source(self) -> TorchSource:
        """Return the model source.

        Raises:
            SparsepackError: PyTorch cannot build it, or it is a user's factory and no ``--model`` was typed.
        """
        if self._source is None:
            self._source = source_of(self.artifact, typed_source(self.artifact.model, self.model))
        return self._source

    def refusal(self, runtime: str) -> str | None:
        """Return why ``runtime`` cannot run this artifact here, or None when it can."""
        if runtime in self._distrusted:
            return self._distrusted[runtime]
        chosen = RUNTIMES[runtime]
        return chosen.available() or chosen.accepts(self.artifact)

    def distrust(self, runtime: str, reason: str) -> None:
        """Never load it on ``runtime`` from now on: it failed, crashed or hung there in a process of its own."""
        self._distrusted[runtime] = reason

    def session(self, runtime: str) -> Session:
        """Return the session on ``runtime``, loading it the first time.

        Raises:
            SparsepackError: it cannot be loaded.
        """
        if runtime not in self._sessions:
            self._sessions[runtime] = self.fresh_session(runtime)
        return self._sessions[runtime]

    def fresh_session(self, runtime: str, threads: int | None = None) -> Session:
        """Load the artifact on ``runtime`` once more, where ``threads`` are given with so many.

        Raises:
            SparsepackError: it cannot be loaded.
        """
        source = typed_source(self.artifact.model, self.model)
        return RUNTIMES[runtime].load(self.artifact, threads=threads or self._threads, source=source)

    def inputs(self, session: Session, batch: int) -> tuple[Array, ...]:
        """Return inputs to time a session with; a network of fixed batch size gets that size."""
        return example_inputs(self.artifact, session, batch)

    def loaded(self) -> dict[str, Session]:
        """Return the sessions loaded so far, by runtime."""
        return dict(self._sessions)

    def remember(self, what: str, compute: Callable[[], float]) -> float:
        """Return a number about this artifact, computed the first time it is asked for."""
        if what not in self._numbers:
            self._numbers[what] = compute()
        return self._numbers[what]

    def forget(self) -> None:
        """Free the memory of sessions and checkpoint; either is loaded again when it is asked for."""
        self._sessions.clear()
        self._checkpoint = None

    def any_cpu_session(self) -> tuple[str, Session]:
        """Return a session for questions of accuracy: the format's own runtime on the CPU, else PyTorch.

        Raises:
            SparsepackError: no runtime on the CPU can run it; the last one's reason.
        """
        reasons = []
        for runtime in CPU_ORDER:
            reason = self.refusal(runtime)
            if reason is None:
                return runtime, self.session(runtime)
            reasons.append(reason)
        raise SparsepackError(f"no runtime on the CPU can run it: {reasons[-1]}.")

    def reference(self) -> Session:
        """Return the reference: the checkpoint's tensors (or the artifact's own, decoded) run dense by PyTorch.

        Raises:
            SparsepackError: PyTorch cannot build the model, or it is a slimmed one and its checkpoint is not known.
        """
        if self.artifact.format in TRANSFORMED and self.checkpoint is None:
            what = "slimmed" if self.artifact.format == "onnx-slim" else "quantised"
            raise UnsupportedError(f"a {what} graph has no reference but its checkpoint; give it as --against RUN")
        tensors = self.checkpoint.dense_state() if self.checkpoint else state_of(self.artifact)
        return dense_session(self.source(), tensors, threads=self._threads)

    def require_same_inputs(self, other: Subject) -> None:
        """Refuse a baseline that takes other inputs.

        Raises:
            UsageError: shapes or dtypes differ.
        """
        mine, theirs = (_signature(subject.specs()) for subject in (self, other))
        if mine != theirs:
            raise UsageError(
                f"the baseline {other.name} takes inputs {theirs} and {self.name} takes {mine}; "
                "give a baseline of the same network."
            )


def _signature(specs: Sequence[InputSpec]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(spec.shape), spec.dtype) for spec in specs]
