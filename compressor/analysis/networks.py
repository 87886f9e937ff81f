"""The network behind the runs: what it predicts in each round, which weights are alive, what layers can lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...errors import UsageError
from ...files import Array
from ...models.data import load_data
from ...models.source import TorchSource, source_from_record
from ..mask import BoolArray
from ..training.weights import set_state
from .effective import live_weights
from .outputs import class_probabilities, layer_sensitivity
from .runs import History


class Networks:
    """One module that takes the state of any round of any run.

    Attributes:
        data: training and test examples, or None.
    """

    def __init__(self, run: History, model: str | None, data: str) -> None:
        """Build the network and load the data.

        Args:
            run: whose network it is; that of the others is the same.
            model: the user's own model; None for one of the zoo.
            data: a data source, or ``none``.
        """
        source = source_from_record(run.checkpoint.metadata.model, model)
        if not isinstance(source, TorchSource):
            raise UsageError(f"{run.path} was made from an ONNX file, whose predictions are not analysed.")
        self.data = load_data(data)
        if self.data is not None:
            self.data = self.data.fitted(source.record)
        self._source = source
        self._module = source.build()

    def outputs(self, run: History) -> list[Array]:
        """Return the class probabilities of every round on the test split; nothing without data."""
        if self.data is None:
            return []
        found = []
        for each in run.rounds:
            set_state(self._module, each.read())
            found.append(class_probabilities(self._module, self.data))
        return found

    def live(self, masks: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
        """Return which kept weights lead on to an output (see :func:`~.effective.live_weights`)."""
        return live_weights(self._module, masks, self._source.example_inputs(1))

    def sensitivity(
        self, run: History, sparsities: Sequence[float], examples: int
    ) -> dict[str, list[dict[str, float]]]:
        """Return what each layer's sparsity costs the run's result (see :func:`~.outputs.layer_sensitivity`)."""
        if self.data is None:
            raise UsageError("the sensitivity of layers needs data; name it with --data.")
        last = run.rounds[-1]
        set_state(self._module, last.read())
        with torch.no_grad():
            return layer_sensitivity(self._module, last.masks, self.data, sparsities, examples)
