"""What a loss on labels needs of a network: one tensor of class scores."""

from __future__ import annotations

from torch import Tensor

from ..errors import UnsupportedError


def class_scores(output: object) -> Tensor:
    """Return a network's output when it holds class scores: one float tensor [examples, classes].

    Raises:
        UnsupportedError: it is a mapping, a sequence, or a tensor of another shape or type.
    """
    if isinstance(output, Tensor) and output.dim() == 2 and output.is_floating_point():
        return output
    found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise UnsupportedError(
        f"the model returned {found.removeprefix('torch.')}; training, and scores that come from its loss, need class "
        "scores, float [examples, classes]. Let the factory return a module whose forward gives them, or choose a "
        "method that needs no labels and no training (--epochs 0)."
    )
