"""What finding a mask and training cost in operations, and how large the sparse network is by RigL's rule.

One multiply-add counts as two FLOPs; biases, activations and normalisation are not counted. A weight that is zero costs
nothing in whatever it takes part in (Evci et al. 2020, appendix): these are the operations that a method asks for, not
those that dense kernels on masked weights carry out. Below, f_D and f_S are the forward FLOPs of one sample through the
dense and the sparse network; a training step is a forward pass, the gradients of the activations, and the gradients of
the weights, and what differs between methods is which of the three is sparse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import UnsupportedError

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor


def forward_flops(tensors: Iterable[PrunableTensor], kept: Mapping[str, int] | None = None) -> int:
    """Return the FLOPs of one sample's forward pass.

    Args:
        tensors: every prunable tensor of the network, those left dense too.
        kept: weights kept, by name; a tensor without an entry is dense. None: all dense.

    Raises:
        UnsupportedError: the multiply-adds of a tensor were not counted.
    """
    total = 0
    for tensor in tensors:
        if tensor.macs is None:
            raise UnsupportedError(f"the multiply-adds of '{tensor.name}' are not known, so no cost can be given.")
        stays = tensor.size if kept is None else kept.get(tensor.name, tensor.size)
        # Every weight takes part in the same number of multiply-adds, so the division leaves no rest.
        total += 2 * tensor.macs * stays // tensor.size
    return total


def masked_step_flops(forward: int) -> int:
    """Return a step of dense training (given f_D), of a static mask or of SET (given f_S): 3 f."""
    return 3 * forward


def exchange_step_flops(dense: int, sparse: int) -> int:
    """Return a step of RigL that exchanges connections: 2 f_S + f_D, since every weight's gradient is looked at."""
    return 2 * sparse + dense


def rigl_average_flops(dense: int, sparse: int, update_interval: int) -> float:
    """Return RigL's average step as the paper states it: (3 f_S dT + 2 f_S + f_D) / (dT + 1)."""
    plain = masked_step_flops(sparse) * update_interval
    return (plain + exchange_step_flops(dense, sparse)) / (update_interval + 1)


def sparse_momentum_step_flops(dense: int, sparse: int) -> int:
    """Return a step of sparse momentum (SNFS), whose momentum needs the gradient of every weight: 2 f_S + f_D."""
    return 2 * sparse + dense


def selected_step_flops(dense: int, sparse: int) -> int:
    """Return a step that trains a score for every weight (edge-popup): 2 f_S + f_D.

    Only the kept weights compute, yet every score, kept or not, has a gradient.
    """
    return 2 * sparse + dense


def frozen_step_flops(dense: int, sparse: int) -> int:
    """Return a step over frozen weights (FreezeNet): 2 f_D + f_S.

    Frozen weights are not zero: forward pass and activation gradients are dense, only weight gradients are saved.
    """
    return 2 * dense + sparse


def scoring_flops(dense: int, samples: int) -> int:
    """Return what a gradient score (SNIP) costs: forward and both gradients of the dense network on every sample."""
    return masked_step_flops(dense) * samples


def network_bytes(tensors: Iterable[PrunableTensor], kept: Mapping[str, int]) -> float:
    """Return the size of a sparse network by the rule of the RigL paper (its table of ResNet-50 sizes).

    Every kept weight takes 32 bits, every sparse tensor one bit an entry for its mask, every output unit 32 bits for
    its bias. This is their accounting, for comparison; what an artifact takes is measured on the file.

    Args:
        tensors: every prunable tensor of the network.
        kept: weights kept, by name; a tensor without an entry is dense.
    """
    bits = 0
    for tensor in tensors:
        stays = kept.get(tensor.name, tensor.size)
        bits += 32 * stays + 32 * tensor.shape[tensor.output_axis]
        bits += tensor.size if stays < tensor.size else 0
    return bits / 8
