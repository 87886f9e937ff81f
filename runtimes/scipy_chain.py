"""Plain chains of linear layers with scipy's sparse matrices: the oracle that shares no code with any framework.

In: a ``csr`` artifact of a network that is a plain chain (see ``models.chain``). It needs neither torch nor onnx; what
it computes is compared with the other runtimes by parity, so that a mistake would have to be made twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileFormatError
from ..files import Array
from .csr_matrices import csr_matrices

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource

Step = Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    # exp of a large positive number overflows; of a negative one it does not.
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1 / (1 + small), small / (1 + small))
    return result


_ACTIVATIONS: dict[str, Step] = {
    "relu": partial(np.maximum, np.float32(0)),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "flatten": lambda x: x.reshape(len(x), -1),
}


class ScipySession:
    """A chain of steps; sparse where the artifact is sparse."""

    fixed_batch: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def run(self, *inputs: Array) -> Array:
        """Return the chain's output for x [batch, ...]."""
        (x,) = inputs
        for step in self._steps:
            x = step(x)
        return x


class ScipyCsr:
    """scipy's CSR matrices, one thread, no framework."""

    name = "scipy-csr-cpu"
    summary = "scipy's sparse CSR matrices on the CPU, one thread, plain chains of linear layers; an independent check."
    formats: tuple[str, ...] = ()
    needs_source = False

    def available(self) -> str | None:
        """Return None: scipy is a dependency of this package."""
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ``csr`` artifacts of chain networks."""
        if artifact.format != "csr":
            return f"it runs the format 'csr', not '{artifact.format}'"
        if artifact.chain is None:
            return "the network is no plain chain of linear layers"
        return None

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> ScipySession:
        """Read the arrays and the list of layers; ``threads`` and ``source`` do not matter.

        Raises:
            FileFormatError: the list names an unknown step or a tensor that is not there.
        """
        from scipy.sparse import csr_matrix

        tensors = artifact.tensors()
        sparse = {
            name: csr_matrix((m.values, m.col_indices, m.crow_indices), shape=m.shape)
            for name, m in csr_matrices(artifact).items()
        }
        steps: list[Step] = []
        for layer in artifact.chain or []:
            if layer["op"] != "linear":
                if layer["op"] not in _ACTIVATIONS:
                    raise FileFormatError(f"{artifact.path}: the chain holds the unknown step '{layer['op']}'.")
                steps.append(_ACTIVATIONS[layer["op"]])
                continue
            missing = [name for name in (layer["weight"], layer["bias"]) if name is not None and name not in tensors]
            if missing:
                raise FileFormatError(f"{artifact.path}: the chain names tensor '{missing[0]}', which is not there.")
            weight = sparse.get(layer["weight"], tensors[layer["weight"]])
            steps.append(_linear(weight, None if layer["bias"] is None else tensors[layer["bias"]]))
        return ScipySession(steps)


def _linear(weight: Any, bias: Array | None) -> Step:
    """Return x -> x W^T + b for a dense or sparse W [outputs, inputs] and x [batch, inputs]."""

    def step(x: Array) -> Array:
        product: Array = (weight @ x.T).T
        return product if bias is None else product + bias

    return step
