"""Running artifacts: the table of runtimes, and around it measuring (``measure``), reports (``report``), whole jobs.

The table holds every runtime of this release whether or not it works on this machine; ask it with
:meth:`~sparsepack.runtimes.base.Runtime.available`. Importing the table imports no framework.
"""

from __future__ import annotations

from ..errors import RuntimeUnavailableError, unknown_name
from .base import Runtime, Session
from .onnx_session import OnnxRuntime
from .onnx_sparse import OnnxRuntimeSparse
from .onnxruntime_web import OnnxRuntimeWeb
from .openvino_cpu import OpenVino
from .scipy_chain import ScipyCsr
from .torch_dense import TorchDense
from .torch_programs import TORCH_EXPORT_CPU, TORCHSCRIPT_CPU, TorchCompiled
from .torch_semi_structured import TorchSemiStructured
from .torch_sparse import TorchSparseCsr

_TABLE: tuple[Runtime, ...] = (
    OnnxRuntime("onnxruntime-cpu", ("CPUExecutionProvider",), "ONNX Runtime on the CPU; skips no zeros of its own."),
    OnnxRuntimeSparse(),
    TorchDense("torch-cpu", "cpu", "PyTorch on the CPU with the decoded dense weights; every format."),
    TorchCompiled(),
    TORCHSCRIPT_CPU,
    TORCH_EXPORT_CPU,
    TorchSparseCsr(),
    ScipyCsr(),
    OpenVino(),
    OnnxRuntimeWeb(),
    OnnxRuntime("onnxruntime-cuda", ("CUDAExecutionProvider",), "ONNX Runtime on a CUDA device."),
    OnnxRuntime(
        "onnxruntime-tensorrt",
        ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
        "TensorRT on a CUDA device, through ONNX Runtime; builds its engine while it loads.",
        needs="onnxruntime-gpu and needs a CUDA device and the libraries of TensorRT",
    ),
    TorchDense("torch-cuda", "cuda", "PyTorch on a CUDA device with the decoded dense weights; every format."),
    TorchSemiStructured(),
)
RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _TABLE}


def find_runtime(name: str) -> Runtime:
    """Return the runtime of that name.

    Raises:
        UnknownNameError: there is none; the near miss is suggested.
    """
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    return RUNTIMES[name]


def require_available(runtime: Runtime) -> None:
    """Raise :class:`~sparsepack.errors.RuntimeUnavailableError` with the reason when ``runtime`` cannot run here."""
    reason = runtime.available()
    if reason is not None:
        raise RuntimeUnavailableError(f"the runtime {runtime.name} cannot run here: {reason}.")


__all__ = ["RUNTIMES", "Runtime", "Session", "find_runtime", "require_available"]
