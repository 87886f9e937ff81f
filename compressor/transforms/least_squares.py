"""The last layer in closed form: ridge regression of one-hot labels on what the layers before it compute.

Sources: Huang et al., Extreme Learning Machine, IJCNN 2004; Pao et al., Learning and Generalization Characteristics of
the Random Vector Functional-Link Net, Neurocomputing 1994 (whose last layer sees the inputs too).

The training split is read once, in batches. What is kept of it is the triangular factor of [H 1 Y], so memory is that
of its square, whatever the number of examples, and no condition number is squared as normal equations would.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...errors import UnsupportedError
from ...models.prunable import prunable_tensors
from ...models.tensors import to_numpy
from ..evidence.gradients import scoring_mode
from ..evidence.probe import Probe
from . import Outcome

_BATCH = 256


def least_squares(probe: Probe) -> Outcome:
    """Solve for the last layer; the options ``ridge`` and ``direct_link`` say how.

    Raises:
        UnsupportedError: the last layer is not linear or not what the network returns, or the network has no direct
            link where the method needs one.
    """
    name = prunable_tensors(probe.module)[-1].name
    path = name.rpartition(".")[0]
    layer = probe.module.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise UnsupportedError(
            f"the last layer '{path}' is a {type(layer).__name__}; the closed form is that of a linear layer, so use "
            "another method or a network that ends in one."
        )
    solver = RidgeSolver(layer.in_features, layer.out_features, bias=layer.bias is not None)
    for features, labels in _features(probe, layer, path):
        solver.add(features, nn.functional.one_hot(labels, layer.out_features))
    weight, bias = solver.solve(probe.options["ridge"])
    found = {name: to_numpy(weight.to(layer.weight.dtype))}
    if bias is not None:
        found[f"{path}.bias" if path else "bias"] = to_numpy(bias.to(layer.weight.dtype))
    return Outcome(weights=found, fitted=sum(array.size for array in found.values()))


class RidgeSolver:
    """Least squares of targets on features that arrive in batches, in float64.

    Args:
        features: numbers in a row of H.
        targets: numbers in a row of Y.
        bias: fit an intercept too, which the penalty leaves alone.
    """

    def __init__(self, features: int, targets: int, *, bias: bool) -> None:
        self._features, self._targets, self._bias = features, targets, bias
        width = features + int(bias) + targets
        self._factor = torch.zeros(0, width, dtype=torch.float64)
        self._waiting: list[Tensor] = []

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Take rows of H [N, features] and Y [N, targets]."""
        ones = torch.ones(len(features), int(self._bias), dtype=torch.float64)
        self._waiting.append(torch.cat([features.cpu().double(), ones, targets.cpu().double()], dim=1))
        # A factorisation of as many rows as the factor has is worth its price.
        if sum(map(len, self._waiting)) >= self._factor.shape[1]:
            self._reduce()

    def solve(self, ridge: float) -> tuple[Tensor, Tensor | None]:
        """Return weight [targets, features] and bias [targets] or None, float64; the shortest of equal solutions.

        Args:
            ridge: lambda, the weight of ||beta||^2.
        """
        self._reduce()
        inputs = self._features + int(self._bias)
        left, right = self._factor[:, :inputs], self._factor[:, inputs:]
        if ridge:
            penalty = torch.eye(inputs, dtype=torch.float64)[: self._features] * ridge**0.5
            left = torch.cat([left, penalty])
            right = torch.cat([right, torch.zeros(self._features, self._targets, dtype=torch.float64)])
        beta = torch.linalg.lstsq(left, right, driver="gelsd").solution
        return beta[: self._features].T.contiguous(), beta[self._features] if self._bias else None

    def _reduce(self) -> None:
        if self._waiting:
            self._factor = torch.linalg.qr(torch.cat([self._factor, *self._waiting]), mode="r").R
            self._waiting = []


def _features(probe: Probe, layer: nn.Linear, path: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the last layer receives, and the labels, once for every training example."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, received, returned: seen.append((received[0], returned)))
    batches = probe.dataset.batches("train", _BATCH, shuffle=False, device=probe.device, augment=False)
    try:
        with scoring_mode(probe.module, "eval"), torch.no_grad():
            for inputs, labels in batches:
                seen.clear()
                outputs = probe.module(inputs)
                if len(seen) != 1 or seen[0][0].dim() != 2 or not torch.equal(seen[0][1], outputs):
                    raise UnsupportedError(
                        f"the network does not return what its last layer '{path}' computes, once for each example, so "
                        "there is no closed form for that layer; use another method."
                    )
                received = seen[0][0]
                if probe.options["direct_link"] and not _sees(received, inputs):
                    raise UnsupportedError(
                        f"the last layer '{path}' does not see the network's inputs, and a functional-link net has "
                        "that direct link: let it read torch.cat([hidden, inputs.flatten(1)], 1), as the zoo's 'rvfl' "
                        "does, or use the method elm."
                    )
                probe.charge(len(labels), 1 / 3)
                yield received, labels
    finally:
        hook.remove()


def _sees(features: Tensor, inputs: Tensor) -> bool:
    """Return whether the flattened inputs are the first or the last columns of the features."""
    flat = inputs.flatten(1).to(features.dtype)
    width = flat.shape[1]
    return any(torch.equal(part, flat) for part in (features[:, :width], features[:, -width:]))
