"""Which indices of every activation go, found by running the traced network once with marks instead of numbers.

The dense network runs on zeros. Wherever a layer gives outputs that are to be removed, NaN is written into them; views,
sums, pools and activations carry NaN along by themselves, and every layer with weights wipes it out, because it reads
removed inputs no more. What is NaN in an activation is what is removed from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ...errors import UnsupportedError
from .kept import Flags, Kept

_SPATIAL = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MIXING = (*_SPATIAL, nn.Linear, nn.Embedding, nn.RNNBase, nn.MultiheadAttention, nn.LayerNorm)
# Through these a mark goes back to an operand that could not be marked itself, such as the zeros of a padding.
_ELEMENTWISE = ("add", "iadd", "sub", "mul", "imul", "truediv", "relu", "relu_", "gelu", "silu", "add_", "mul_")


class Marks(fx.Interpreter):
    """One run with marks.

    Attributes:
        values: node -> what it gave.
    """

    def __init__(self, traced: fx.GraphModule, kept: Kept) -> None:
        super().__init__(traced)
        self._kept = kept
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and remember its value."""
        result = super().run_node(n)
        self.values[n] = result
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return a tensor of the module as zeros, its removed indices marked."""
        value = super().get_attr(target, args, kwargs)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        marked = torch.zeros_like(value)
        for axis, flags in enumerate(self._kept.get(str(target), ())):
            _mark(marked, axis, flags)
        return marked

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a layer; one that mixes its inputs gives marks of its own, the others pass them on."""
        layer = self.fetch_attr(target)
        if not isinstance(layer, _MIXING):
            return super().call_module(target, args, kwargs)
        wiped = [torch.nan_to_num(a) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
        result = super().call_module(target, tuple(wiped), kwargs)
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            if isinstance(output, Tensor):
                output.zero_()
        axes = self._kept.get(f"{target}.weight", ())
        if axes and isinstance(result, Tensor) and not isinstance(layer, nn.LayerNorm):
            _mark_output(layer, result, axes)
        return result


def _mark_output(layer: nn.Module, output: Tensor, axes: tuple[Flags | None, ...]) -> None:
    if isinstance(layer, _TRANSPOSED):
        flags: Flags | None = axes[1]
        if layer.groups > 1:
            groups: Flags = np.ones(layer.groups, np.bool_)
            if axes[0] is not None:
                groups = np.asarray(axes[0].reshape(layer.groups, -1).any(axis=1), np.bool_)
            inner = np.ones(layer.out_channels // layer.groups, np.bool_) if flags is None else flags
            flags = np.asarray(groups[:, None] & inner[None], np.bool_).reshape(-1)
        _mark(output, output.dim() - len(layer.kernel_size) - 1, flags)
    elif isinstance(layer, _SPATIAL):
        _mark(output, output.dim() - len(layer.kernel_size) - 1, axes[0])
    else:
        _mark(output, output.dim() - 1, axes[1] if isinstance(layer, nn.Embedding) else axes[0])


def _mark(value: Tensor, axis: int, flags: Flags | None) -> None:
    if flags is not None:
        value.index_fill_(axis, torch.from_numpy(np.flatnonzero(~flags)), float("nan"))


def find_marks(traced: fx.GraphModule, kept: Kept, inputs: tuple[Tensor, ...]) -> dict[fx.Node, Any]:
    """Return what every node of a traced network gives, removed indices as NaN.

    Args:
        traced: the dense network, in eval mode.
        kept: what stays of its tensors.
        inputs: example inputs, batch axis first.
    """
    marks = Marks(traced, kept)
    with torch.no_grad():
        marks.run(*(torch.zeros_like(x) if x.is_floating_point() else x for x in inputs))
    for node in reversed(traced.graph.nodes):
        value = marks.values.get(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(value, Tensor) or not (
            name in _ELEMENTWISE or isinstance(layer, nn.ReLU | nn.GELU | nn.SiLU)
        ):
            continue
        for operand in node.all_input_nodes:
            other = marks.values.get(operand)
            if isinstance(other, Tensor) and other.shape == value.shape and other.is_floating_point():
                other.masked_fill_(torch.isnan(value), float("nan"))
    return marks.values


def kept_along(node: fx.Node, value: Tensor) -> list[Flags | None]:
    """Return for each axis of an activation which indices stay, or None where all do.

    Raises:
        UnsupportedError: what goes is no set of whole slices.
    """
    if not value.is_floating_point():
        return [None] * value.dim()
    gone = torch.isnan(value).numpy()
    if not gone.any():
        return [None] * value.dim()
    axes: list[Flags | None] = []
    rest = np.zeros(gone.shape, np.bool_)
    for axis in range(gone.ndim):
        others = tuple(a for a in range(gone.ndim) if a != axis)
        whole = np.asarray(gone.all(axis=others), np.bool_)
        axes.append(np.logical_not(whole) if whole.any() else None)
        rest |= np.expand_dims(whole, others)
    if (rest != gone).any() or gone.all():
        raise UnsupportedError(
            f"what remains of '{node.name}' is no block of whole channels or heads, so the torch module cannot be "
            "slimmed; --to onnx-slim can."
        )
    return axes
