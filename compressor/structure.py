"""Structures: which weights stand or fall together, and how a mask of groups becomes a mask of weights.

In: a prunable tensor and its element scores (higher = keep). Out: group scores, and the element mask that a choice of
groups stands for. Everything is pure numpy; selection decides which groups stay.

    element     every weight for itself
    block       RxC weights of the matrix (output units x the rest) stay or go together: block:4x1, block:1x9 ...
    N:M         of every M neighbours along the reduction (input) dimension exactly N stay
    channel     an output filter (convolution), output unit (linear layer) or head as a whole, with whatever of other
                layers is coupled to it
    neuron      the same for linear layers alone
    head        the same for attention heads alone

Those that treat each layer by its kind, without coupling, are in :mod:`sparsepack.compressor.layer_structure`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import UsageError
from ..files import Array
from .mask import BoolArray

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor
    from .block import Block
    from .layer_structure import LayerStructure

STRUCTURES = ("element", "N:M", "block", "channel", "input-channel", "hybrid", "fully-connected")
PARTS = ("channel", "neuron", "head")
_N_OF_M = re.compile(r"(\d{1,3}):(\d{1,3})")


@dataclass(frozen=True)
class Groups:
    """How a structure divides one tensor: ``count`` groups of ``size`` weights each."""

    count: int
    size: int


@dataclass(frozen=True)
class Element:
    """Unstructured: a group is one weight, in row-major order."""

    @property
    def text(self) -> str:
        """The structure as a recipe writes it."""
        return "element"

    @property
    def kind(self) -> str:
        """The entry of :data:`STRUCTURES` that this is."""
        return "element"

    def eligible(self, tensor: PrunableTensor) -> str | None:
        """Return None: every tensor can lose single weights."""
        return None

    def reachable(self, sparsity: float) -> str | None:
        """Return None: every sparsity can be reached."""
        return None

    def groups(self, tensor: PrunableTensor) -> Groups:
        """Return as many groups as the tensor has weights."""
        return Groups(tensor.size, 1)

    def group_scores(self, scores: Array, tensor: PrunableTensor, *, normalise: bool = False) -> Array:
        """Return the scores, flat (a view where possible); a single weight needs no normalising."""
        return scores.reshape(-1)

    def expand(self, group_mask: BoolArray, tensor: PrunableTensor) -> BoolArray:
        """Return the mask in the tensor's shape."""
        return group_mask.reshape(tensor.shape)


@dataclass(frozen=True)
class NofM:
    """Of every ``m`` weights that follow each other along the reduction dimension exactly ``n`` stay.

    The literature has both readings of N:M; this is NVIDIA's and SR-STE's: N nonzeros of M (Zhou et al. 2021). A group
    here is a block, and a group mask has one row a block and one column a place in it.
    """

    n: int
    m: int

    @property
    def text(self) -> str:
        """The structure as a recipe writes it."""
        return f"{self.n}:{self.m}"

    @property
    def kind(self) -> str:
        """The entry of :data:`STRUCTURES` that this is."""
        return "N:M"

    @property
    def sparsity(self) -> float:
        """The only sparsity that the structure has: 1 - N/M."""
        return 1 - self.n / self.m

    def eligible(self, tensor: PrunableTensor) -> str | None:
        """Return None, or why the tensor stays dense: its reduction length is no multiple of M."""
        length = tensor.size // tensor.shape[tensor.output_axis]
        if length % self.m == 0:
            return None
        return f"its reduction length {length} is no multiple of {self.m}"

    def reachable(self, sparsity: float) -> str | None:
        """Return None, or why this is not the structure's sparsity, and which ones the same M offers."""
        if math.isclose(sparsity, self.sparsity, abs_tol=1e-9):
            return None
        possible = ", ".join(f"{1 - n / self.m:.6g} ({n}:{self.m})" for n in range(self.m - 1, 0, -1))
        return (
            f"structure {self.text} keeps {self.n} of every {self.m} weights: its sparsity is {self.sparsity:.6g}, not "
            f"{sparsity:.6g}; with M = {self.m} these are possible: {possible}"
        )

    def groups(self, tensor: PrunableTensor) -> Groups:
        """Return the number of blocks, and M."""
        return Groups(tensor.size // self.m, self.m)

    def group_scores(self, scores: Array, tensor: PrunableTensor, *, normalise: bool = False) -> Array:
        """Return the scores as blocks [count, M]; blocks do not compete with each other, so nothing is normalised."""
        return to_blocks(scores, tensor.output_axis, self.m)

    def expand(self, group_mask: BoolArray, tensor: PrunableTensor) -> BoolArray:
        """Return the mask [count, M] in the tensor's shape."""
        mask: BoolArray = from_blocks(group_mask, tensor.shape, tensor.output_axis)
        return mask


@dataclass(frozen=True)
class Channel:
    """An output filter or output unit: everything that one index of the output axis holds.

    Attributes:
        norm: how element scores become one group score: 1 their sum (for magnitude the L1 norm of Li et al. 2017),
            2 the root of the sum of their squares, ``inf`` their largest, ``-inf`` their smallest (the L-infinity of
            "On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks").
        part: which units of a network: one of :data:`PARTS`; see :mod:`sparsepack.compressor.coupling`.
    """

    norm: float = 1.0
    part: str = "channel"

    @property
    def text(self) -> str:
        """The structure as a recipe writes it."""
        return self.part

    @property
    def kind(self) -> str:
        """The entry of :data:`STRUCTURES` that this is."""
        return "channel"

    def eligible(self, tensor: PrunableTensor) -> str | None:
        """Return None: every tensor has output units (the network's own outputs are kept by the space)."""
        return None

    def reachable(self, sparsity: float) -> str | None:
        """Return None: every sparsity can be approached from above to within one group."""
        return None

    def groups(self, tensor: PrunableTensor) -> Groups:
        """Return the number of output units and the weights that each has."""
        units = tensor.shape[tensor.output_axis]
        return Groups(units, tensor.size // units)

    def group_scores(self, scores: Array, tensor: PrunableTensor, *, normalise: bool = False) -> Array:
        """Return one float64 score for each output unit.

        Args:
            scores: element scores in the tensor's shape.
            tensor: the tensor that they belong to.
            normalise: divide by the group's size, so that groups of different layers can be ranked together: raw norms
                of groups of different size say nothing about each other, and score per weight is what a budget counted
                in weights should buy by.
        """
        rows = np.moveaxis(scores, tensor.output_axis, 0).reshape(scores.shape[tensor.output_axis], -1)
        size = rows.shape[1] if normalise else 1
        result: Array
        if self.norm == 1:
            result = rows.sum(axis=1, dtype=np.float64) / size
        elif self.norm == 2:
            result = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1) / size)
        elif math.isinf(self.norm):
            result = (rows.max(axis=1) if self.norm > 0 else rows.min(axis=1)).astype(np.float64)
        else:
            raise UsageError(f"channel norm {self.norm} is not known; choose 1, 2, inf or -inf.")
        return result

    def expand(self, group_mask: BoolArray, tensor: PrunableTensor) -> BoolArray:
        """Return the mask of output units in the tensor's shape."""
        extent = [1] * len(tensor.shape)
        extent[tensor.output_axis] = -1
        return np.ascontiguousarray(np.broadcast_to(group_mask.reshape(extent), tensor.shape))


Structure: TypeAlias = "Element | NofM | Block | Channel | LayerStructure"


def parse_structure(text: str) -> Structure:
    """Return the structure that a recipe names.

    Args:
        text: ``element``, ``channel``, ``neuron``, ``head``, ``input-channel``, ``hybrid``, ``fully-connected``, two
            numbers such as ``2:4`` (keep 2 of every 4), or the rows and columns of a block such as ``block:4x1``.

    Raises:
        UsageError: the text names no structure.
    """
    if text == "element":
        return Element()
    if text in PARTS:
        return Channel(part=text)
    # These are made of the structures above.
    from .block import parse_block
    from .layer_structure import LAYER_STRUCTURES

    if text in LAYER_STRUCTURES:
        return LAYER_STRUCTURES[text]
    if block := parse_block(text):
        return block
    if found := n_of_m_of(text):
        return found
    if _N_OF_M.fullmatch(text) is None:
        raise UsageError(
            f"unknown structure '{text}'. Choose from: element, N:M (for example 2:4), block:RxC (for example "
            f"block:4x1), {', '.join((*PARTS, *LAYER_STRUCTURES))}."
        )
    raise UsageError(f"structure '{text}' keeps N of every M weights and needs 1 <= N < M (for example 2:4).")


def n_of_m_of(text: str) -> NofM | None:
    """Return the N:M structure that a text names; None for any other."""
    match = _N_OF_M.fullmatch(text)
    structure = None if match is None else NofM(int(match[1]), int(match[2]))
    return structure if structure is not None and 1 <= structure.n < structure.m else None


def recorded_structure(text: str) -> str:
    """Return the structure that a mask itself has.

    Those of channels, neurons and heads are all of output units; one that treats layers by their kind says nothing of a
    single mask.
    """
    if text in PARTS:
        return "channel"
    return "element" if text in ("hybrid", "fully-connected") else text


def to_blocks(array: Array, output_axis: int, m: int) -> Array:
    """Return ``array`` as [blocks, m]: output units outermost, then the reduction dimension in blocks of ``m``.

    A linear weight's reduction runs along its inputs; a convolution's [O, I, kH, kW] is taken as (O, kH, kW, I), the
    order in which channels-last kernels multiply. A view where the memory layout allows it.

    Args:
        array: a weight or anything in its shape; the reduction length is a multiple of ``m``.
        output_axis: the axis of the output units (0 in torch, 1 for an ONNX MatMul [K, N]).
        m: block length.
    """
    blocks: Array = np.transpose(array, _axes(array.ndim, output_axis)).reshape(-1, m)
    return blocks


def from_blocks(blocks: Array, shape: tuple[int, ...], output_axis: int) -> Array:
    """Return what :func:`to_blocks` made blocks of, in its own ``shape``; the same dtype, contiguous."""
    axes = _axes(len(shape), output_axis)
    permuted = blocks.reshape([shape[axis] for axis in axes])
    return np.ascontiguousarray(np.transpose(permuted, np.argsort(axes)))


def _axes(dimensions: int, output_axis: int) -> list[int]:
    rest = [axis for axis in range(dimensions) if axis != output_axis]
    # rest[0] is the input axis; kernel axes go before it.
    return [output_axis, *rest[1:], *rest[:1]]
