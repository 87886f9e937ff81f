"""PyTorch with dense weights: the artifact's decoded tensors in the module that its model record names.

This is also the reference that parity is measured against, fed with the checkpoint's own tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ModelError, UnsupportedError
from ..exporters.artifact import TRANSFORMED
from ..files import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..compressor.checkpoint import SparseCheckpoint
    from ..exporters.artifact import Artifact
    from ..models.source import ModelRecord, TorchSource


class TorchSession:
    """A module in evaluation mode; arrays go in and come out on the host, whatever the device."""

    fixed_batch: int | None = None

    def __init__(
        self, module: Callable[..., object], device: str, notes: tuple[str, ...] = (), half: bool = False
    ) -> None:
        self._module = module
        self._device = device
        self._half = half
        self.notes = notes

    def run(self, *inputs: Array) -> Array:
        """Return the module's output, or the first of its outputs, as a float32 (or integer) array.

        Raises:
            UnsupportedError: the module does not compute on these inputs.
        """
        import torch

        tensors = [torch.from_numpy(array).to(self._device) for array in inputs]
        if self._half:
            tensors = [tensor.half() if tensor.is_floating_point() else tensor for tensor in tensors]
        with torch.inference_mode():
            try:
                output = first_output(self._module(*tensors))
            except RuntimeError as error:
                raise UnsupportedError(f"PyTorch cannot run it: {first_line(error)}.") from error
        result: Array = (output.float() if output.is_floating_point() else output).cpu().numpy()
        return result


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without a full stop."""
    return str(error).strip().partition("\n")[0].removesuffix(".")


def first_output(output: object) -> Tensor:
    """Return the first tensor of what a module gave back: a tensor, a sequence or a mapping.

    Raises:
        ModelError: there is no tensor in it.
    """
    import torch

    while not isinstance(output, torch.Tensor):
        if isinstance(output, Mapping) and output:
            output = next(iter(output.values()))
        elif isinstance(output, list | tuple) and output:
            output = output[0]
        else:
            raise ModelError(f"the model returned a {type(output).__name__}; expected a tensor, or several in order.")
    return output


def refuses_model(record: ModelRecord | None) -> str | None:
    """Return why PyTorch cannot build the recorded model, or None when it can (or can with the user's ``--model``)."""
    if record is None:
        return "the file does not say which model it is"
    if record.kind == "onnx":
        return "its model came from an ONNX file, which PyTorch cannot build"
    return None


def module_of(artifact: Artifact, source: TorchSource) -> nn.Module:
    """Return the source's module with an artifact's tensors; raises as :func:`module_with`."""
    return module_with(source, state_of(artifact), partial=artifact.is_graph)


def module_with(source: TorchSource, tensors: Mapping[str, Array], *, partial: bool = False) -> nn.Module:
    """Return the source's module in evaluation mode with every parameter and buffer replaced by ``tensors``.

    Args:
        source: builds the module.
        tensors: by state_dict name.
        partial: whether others stay as the source builds them: a graph lists no tensor that it does without, nor
            whole numbers and tables that went into its constants.

    Raises:
        ModelError: a tensor is missing, has another shape, or is unknown to the module.
    """
    import torch

    from ..models.tensors import to_torch

    module = source.build()
    state = module.state_dict()
    unknown = [name for name in tensors if name not in state]
    if unknown:
        raise ModelError(f"the model '{source.record.text}' has no tensor '{unknown[0]}'; it is another model.")
    # Tied weights have several names and one storage; a graph carries only one of the names.
    given = {state[name].data_ptr() for name in tensors}
    with torch.no_grad():
        for name, target in state.items():
            if name not in tensors:
                # The other exception is a counter of training steps, which is not part of the network's function.
                if partial or target.data_ptr() in given or name.endswith("num_batches_tracked"):
                    continue
                raise ModelError(
                    f"the artifact holds no tensor '{name}', which the model '{source.record.text}' needs."
                )
            if tuple(target.shape) != tuple(tensors[name].shape):
                raise ModelError(
                    f"tensor '{name}' has shape {tuple(tensors[name].shape)} in the artifact and "
                    f"{tuple(target.shape)} in the model '{source.record.text}'; it is another model."
                )
            target.copy_(to_torch(tensors[name]))
    return module.eval()


def source_of(artifact: Artifact, source: TorchSource | None) -> TorchSource:
    """Return ``source``, or the one that the artifact's own record names.

    Raises:
        UnsupportedError: the record names none that PyTorch can build.
        ModelError: it names a user's factory, which only the user may name again (``--model``).
    """
    from ..models.source import TorchSource, source_from_record

    if source is not None:
        return source
    record = artifact.model
    reason = refuses_model(record)
    found = source_from_record(record, None) if record is not None and reason is None else None
    if not isinstance(found, TorchSource):
        raise UnsupportedError(f"{artifact.path} cannot be run by PyTorch: {reason or 'its source is no module'}.")
    return found


def state_of(artifact: Artifact) -> dict[str, Array]:
    """Return the tensors that belong to the network's state: a graph may hold constants besides, which are left out."""
    tensors = artifact.tensors()
    if artifact.metadata is None:
        return tensors
    listed = {entry.name for entry in artifact.metadata.tensors}
    return {name: tensor for name, tensor in tensors.items() if name in listed}


@dataclass(frozen=True)
class TorchDense:
    """PyTorch eager on one device."""

    name: str
    device: str
    summary: str
    formats: tuple[str, ...] = ()
    needs_source: ClassVar[bool] = True

    def available(self) -> str | None:
        """Return why there is no such device, or None when there is."""
        missing = cuda_missing()
        return None if self.device == "cpu" else missing

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for every artifact whose model PyTorch can build, with layers of that model's size."""
        if artifact.format in TRANSFORMED:
            return "its layers are not those of the model that PyTorch builds"
        return refuses_model(artifact.model)

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> TorchSession:
        """Decode the artifact into its module."""
        return _session(module_of(artifact, source_of(artifact, source)), threads, self.device)


def reference_session(
    source: TorchSource, artifact: Artifact, checkpoint: SparseCheckpoint | None, *, threads: int
) -> TorchSession:
    """Return what an artifact is compared with: its checkpoint's tensors, or its own, run dense by PyTorch."""
    if checkpoint is not None:
        return dense_session(source, checkpoint.dense_state(), threads=threads)
    return _session(module_of(artifact, source), threads, "cpu")


def dense_session(source: TorchSource, tensors: Mapping[str, Array], *, threads: int) -> TorchSession:
    """Return a session of the source's module with these dense tensors."""
    return _session(module_with(source, tensors), threads, "cpu")


def _session(module: nn.Module, threads: int, device: str) -> TorchSession:
    import torch

    torch.set_num_threads(threads)
    return TorchSession(module.to(device), device)


def cuda_missing() -> str | None:
    """Return why PyTorch has no CUDA device here, or None when it has one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"the installed PyTorch {torch.__version__} is built without CUDA"
    return f"PyTorch {torch.__version__} finds no CUDA device"
