"""PyTorch's programs on the CPU: TorchScript and torch.export files as they are, and others through torch.compile.

TorchScript and exported programs hold their own tensors and layers, so no model source is needed to run them.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import FileFormatError
from ..exporters.artifact import TRANSFORMED
from ..exporters.torch_archive import TORCH_EXPORT, TORCHSCRIPT
from .torch_dense import TorchSession, first_line, module_of, refuses_model, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource


@dataclass(frozen=True)
class TorchProgram:
    """PyTorch on the CPU with a program from a file of one format."""

    name: str
    summary: str
    format: str
    read: Callable[[str], Callable[..., object]]
    needs_source: ClassVar[bool] = False

    @property
    def formats(self) -> tuple[str, ...]:
        """The one format; see :class:`~sparsepack.runtimes.base.Runtime`."""
        return (self.format,)

    def available(self) -> str | None:
        """Return None: PyTorch's CPU kernels are always there."""
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for artifacts of the format."""
        return (
            None if artifact.format == self.format else f"it runs the format '{self.format}', not '{artifact.format}'"
        )

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> TorchSession:
        """Load the program; ``source`` is not needed."""
        import torch

        torch.set_num_threads(threads)
        try:
            program = self.read(str(artifact.path))
        except (RuntimeError, ValueError, OSError) as error:
            raise FileFormatError(f"{artifact.path}: PyTorch cannot load it: {first_line(error)}.") from error
        return TorchSession(program, "cpu")


def read_torchscript(path: str) -> Callable[..., object]:
    """Return the program of a TorchScript file."""
    import torch

    from ..exporters.torchscript import quiet_torchscript

    with quiet_torchscript():
        # Untyped in torch.
        program: Callable[..., object] = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return program


def read_exported(path: str) -> Callable[..., object]:
    """Return the program of a torch.export file; one that holds anything but a network is refused."""
    import torch

    from ..exporters.torch_export_checks import check_torch_export
    from ..models.graph.lowering import quiet_exporter

    check_torch_export(Path(path))
    with quiet_exporter():
        program: Callable[..., object] = torch.export.load(path).module()
    return program


@dataclass(frozen=True)
class TorchCompiled:
    """PyTorch on the CPU with the decoded dense weights, compiled by torch.compile."""

    name: str = "torch-compiled-cpu"
    summary: str = "PyTorch on the CPU through torch.compile, with the decoded dense weights; loading compiles."
    # Compiling takes seconds to minutes, so it is measured when it is named.
    formats: tuple[str, ...] = ()
    needs_source: ClassVar[bool] = True

    def available(self) -> str | None:
        """Return why torch.compile cannot compile here, or None when it can."""
        import sysconfig

        if shutil.which("c++") is None and shutil.which("g++") is None and shutil.which("clang++") is None:
            return "torch.compile needs a C++ compiler, and none of c++, g++ and clang++ is on the path"
        if sys.platform.startswith("linux") and not _headers(sysconfig.get_path("include")):
            return f"torch.compile needs the headers of Python {sys.version_info[0]}.{sys.version_info[1]} (Python.h)"
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for every artifact whose model PyTorch can build, with layers of that model's size."""
        if artifact.format in TRANSFORMED:
            return "its layers are not those of the model that PyTorch builds"
        return refuses_model(artifact.model)

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> TorchSession:
        """Build the module, compile it and run it once, because PyTorch compiles for the shapes of a first run."""
        import torch

        from ..exporters.torchscript import quiet_torchscript

        torch.set_num_threads(threads)
        found = source_of(artifact, source)
        module = module_of(artifact, found)
        # The compiler's own modules use what PyTorch has deprecated.
        with quiet_torchscript():
            session = TorchSession(torch.compile(module), "cpu")
            session.run(*(tensor.numpy() for tensor in found.example_inputs(1)))
        return session


def _headers(folder: str | None) -> bool:
    from pathlib import Path

    return folder is not None and (Path(folder) / "Python.h").is_file()


TORCHSCRIPT_CPU = TorchProgram(
    "torchscript-cpu", "PyTorch on the CPU with a TorchScript program.", TORCHSCRIPT, read_torchscript
)
TORCH_EXPORT_CPU = TorchProgram(
    "torch-export-cpu", "PyTorch on the CPU with a torch.export program.", TORCH_EXPORT, read_exported
)
