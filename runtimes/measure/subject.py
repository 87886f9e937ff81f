"""One artifact while it is measured: opened once, its sessions loaded once each and shared by all measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...compressor.checkpoint import SparseCheckpoint
from ...errors import SparsepackError, UnsupportedError
from ...exporters import open_artifact
from ...exporters.artifact import TRANSFORMED
from ...files import Array
from ...models.source import ModelRecord
from .. import RUNTIMES
from ..base import Session
from ..torch_dense import reference_session, source_of
from .inputs import example_inputs, input_specs
from .memory import Failure, Footprint, footprint
from .sources import typed_source

if TYPE_CHECKING:
    from ...models.source import InputSpec, TorchSource

REFERENCE = "torch-cpu"
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
        self,
        path: Path,
        name: str,
        *,
        threads: int,
        model: str | None = None,
        checkpoint: Path | None = None,
        proven: set[str] | None = None,
    ) -> None:
        """Open the artifact.

        Args:
            path: of its file.
            name: what tables and requirements call it.
            threads: of a run.
            model: the user's ``--model``.
            checkpoint: the checkpoint file it came from, when the caller knows it.
            proven: models of users whose code has run on PyTorch in a process of its own; shared by the artifacts of a
                measurement, so that it is tried once.

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
        self._tried: dict[str, str | None] = {}
        self._proven = set() if proven is None else proven
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
        if self._tried.get(runtime) is not None:
            return self._tried[runtime]
        chosen = RUNTIMES[runtime]
        return chosen.available() or chosen.accepts(self.artifact)

    def cold(self, runtime: str, batch: int = 1) -> Footprint | Failure:
        """Load it on ``runtime`` and run it once, in a process of its own; what fails there is never loaded here."""
        found = footprint(self.artifact.path, runtime, threads=self._threads, batch=batch, model=self.model)
        self._tried[runtime] = found.reason if isinstance(found, Failure) else None
        if runtime == REFERENCE and self.model is not None and isinstance(found, Footprint):
            self._proven.add(self.model)
        return found

    def _untried_refusal(self, runtime: str) -> str | None:
        """Return :meth:`refusal`, after trying it in a process of its own where nothing else did before."""
        refusal = self.refusal(runtime)
        if refusal is None and runtime not in self._tried and runtime not in self._sessions:
            self.cold(runtime)
        return refusal or self._tried.get(runtime)

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
        chosen = RUNTIMES[runtime]
        source = typed_source(self.artifact.model, self.model) if chosen.needs_source else None
        return chosen.load(self.artifact, threads=threads or self._threads, source=source)

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
            reason = self._untried_refusal(runtime)
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
        # The user's own code is about to run.
        if self.model is not None and self.model not in self._proven and self.artifact.format not in TRANSFORMED:
            reason = self._untried_refusal(REFERENCE)
            if reason is not None:
                raise UnsupportedError(f"the reference is PyTorch, and there {reason}.")
        return reference_session(self.source(), self.artifact, self.checkpoint, threads=self._threads)

    def mismatch(self, other: Subject) -> str | None:
        """Return why a baseline is of another network (inputs of other shape or dtype), or None when it is not."""
        mine, theirs = (_signature(subject.specs()) for subject in (self, other))
        if mine == theirs:
            return None
        return (
            f"the baseline {other.name} takes inputs {theirs} and {self.name} takes {mine}; "
            "give a baseline of the same network."
        )


def _signature(specs: Sequence[InputSpec]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(spec.shape), spec.dtype) for spec in specs]
