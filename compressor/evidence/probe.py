"""The probe: a run at the moment when something is scored or transformed, as those pieces may see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...errors import UsageError
from ...files import Array
from ...models.dataset import Dataset
from ...models.seeding.record import SeedRecord
from ..counter import Counter
from ..layer_structure import LayerStructure
from ..mask import BoolArray
from ..rule import MaskRule
from ..structure import Channel
from ..training.weights import weight_arrays


@dataclass
class Probe:
    """What evidence, scores and transforms may look at.

    Attributes:
        module: the network, on ``device``; masked weights are zero unless the method freezes them.
        rule: the run's space, structure and allocation.
        masks: the present masks by weight name; empty before the first selection.
        sparsity: the one being reached (by the round under way).
        options: the method's own.
        seed: the run's.
        draw: the number of the round, for streams of random numbers.
        device: where the network is.
        counter: counts operations.
        data: training and test examples, or None.
        tape: reads a recorded state (``initial``, ``step-N``) as arrays by name.
        fresh: draws the whole network again, with a seed for each number given: its state by name.
        examples: draws example inputs for a batch of the given size, on the CPU.
        trained: the space's weights as they were when the last mask was chosen; empty where no mask was.
        evidence: what the last selection gathered, by kind.
        seeds: how the initial values are drawn again, by parameter name, where a seed does it.
        flops: operations that gathering cost, to be charged.
    """

    module: nn.Module
    rule: MaskRule
    masks: Mapping[str, BoolArray]
    sparsity: float
    options: Mapping[str, Any]
    seed: int
    draw: int
    device: torch.device
    counter: Counter
    data: Dataset | None
    tape: Callable[[str], Mapping[str, Array]]
    fresh: Callable[[int], Mapping[str, Array]]
    examples: Callable[[int], tuple[torch.Tensor, ...]]
    trained: Mapping[str, Array] = field(default_factory=dict)
    evidence: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    seeds: Mapping[str, SeedRecord] = field(default_factory=dict)
    flops: int = 0

    @property
    def names(self) -> Sequence[str]:
        """The tensors that may be masked, in order."""
        return self.rule.space.names

    @property
    def unit_axes(self) -> dict[str, int]:
        """The axis of units by tensor name, where the structure removes them as a whole: of outputs, or of inputs."""
        structure, tensors = self.rule.structure, self.rule.space.tensors
        if isinstance(structure, LayerStructure):
            return {t.name: axis for t in tensors if (axis := structure.unit_axis(t)) is not None}
        return {t.name: t.output_axis for t in tensors} if isinstance(structure, Channel) else {}

    @property
    def dataset(self) -> Dataset:
        """The data.

        Raises:
            UsageError: the run has none.
        """
        if self.data is None:
            raise UsageError("this step of the method needs data; name it with data (for example digits or npz:FILE).")
        return self.data

    def weights(self) -> dict[str, Array]:
        """Return the present weights of the space by name; they may share the network's memory, so do not write."""
        return weight_arrays(self.module, list(self.names))

    def recorded(self, label: str) -> dict[str, Array]:
        """Return the weights of the space as the tape holds them under ``label``."""
        state = self.tape(label)
        return {name: state[name] for name in self.names}

    def charge(self, examples: int, passes: float = 1.0) -> None:
        """Count forward and backward passes of the dense network over ``examples`` (``passes`` times)."""
        self.flops += round(self.counter.scoring(examples) * passes)
