"""Structures of single layers: input units, single weights, or neither, by the kind of layer; nothing is coupled.

    input-channel     everything that one input channel (convolution) or input feature (linear layer) is multiplied with
    hybrid            input channels of convolutions, single weights of the other layers
    fully-connected   single weights of the layers that are no convolution; convolutions stay dense

Source: On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..files import Array
from .mask import BoolArray
from .structure import Channel, Element, Groups

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor


@dataclass(frozen=True)
class LayerStructure:
    """What stands or falls together in a convolution, and in any other layer.

    Attributes:
        text: the structure as a recipe writes it.
        convolutions: ``input-channel``, or None: they stay dense.
        others: ``input-channel`` or ``element``.
    """

    text: str
    convolutions: str | None
    others: str

    @property
    def kind(self) -> str:
        """The entry of :data:`sparsepack.compressor.structure.STRUCTURES` that this is."""
        return self.text

    def eligible(self, tensor: PrunableTensor) -> str | None:
        """Return None, or why the tensor stays dense."""
        return "it is a convolution, and the others alone are pruned" if self._unit(tensor) is None else None

    def reachable(self, sparsity: float) -> str | None:
        """Return None: every sparsity can be approached from above to within one group."""
        return None

    def unit_axis(self, tensor: PrunableTensor) -> int | None:
        """Return the input axis where input units stand or fall as a whole; None where weights stand alone."""
        return 1 - tensor.output_axis if self._unit(tensor) == "input-channel" else None

    def groups(self, tensor: PrunableTensor) -> Groups:
        """Return the number of input units or weights, and the weights that each has."""
        form, turned = self._form(tensor)
        return form.groups(turned)

    def group_scores(self, scores: Array, tensor: PrunableTensor, *, normalise: bool = False) -> Array:
        """Return the sum of each input unit's scores (float64), or the scores of single weights, flat.

        Args:
            scores: element scores, or a mask, in the tensor's shape.
            tensor: the tensor that they belong to.
            normalise: divide sums by the group's size.
        """
        form, turned = self._form(tensor)
        return form.group_scores(scores, turned, normalise=normalise)

    def expand(self, group_mask: BoolArray, tensor: PrunableTensor) -> BoolArray:
        """Return the mask in the tensor's shape."""
        form, turned = self._form(tensor)
        return form.expand(group_mask, turned)

    def _unit(self, tensor: PrunableTensor) -> str | None:
        return self.convolutions if tensor.kind == "conv" else self.others

    def _form(self, tensor: PrunableTensor) -> tuple[Channel | Element, PrunableTensor]:
        axis = self.unit_axis(tensor)
        # An input unit is to the input axis what a channel is to the output axis.
        return (Element(), tensor) if axis is None else (Channel(), replace(tensor, output_axis=axis))


LAYER_STRUCTURES: dict[str, LayerStructure] = {
    form.text: form
    for form in (
        LayerStructure("input-channel", "input-channel", "input-channel"),
        LayerStructure("hybrid", "input-channel", "element"),
        LayerStructure("fully-connected", None, "element"),
    )
}
