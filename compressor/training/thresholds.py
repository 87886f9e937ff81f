"""Thresholds and scales that are trained with the weights: STR, dynamic sparse training's step, structure selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ...files import Array
from ...models.tensors import to_numpy
from ..rule import MaskRule
from .behind import LearnedBehind, WeightsBehind
from .dynamics import FlopCounter, no_cost


class SoftThreshold(LearnedBehind):
    """STR: w' = sign(w) relu(|w| - sigmoid(s)), a trained s for each layer (Kusupati et al. 2020).

    Weight decay pulls s up from its very negative start, and with it the threshold. The final mask keeps the asked
    number of weights, those that exceed their layer's threshold by most (or fall short by least).

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the final one.
        start: first value of s.
        decay: weight decay of s.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        start: float,
        decay: float,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._decay = decay
        self._learned = {
            name: nn.Parameter(torch.tensor(start, device=weight.device)) for name, weight in self._behind.items()
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the network's group and that of the thresholds."""
        return self.groups(self._decay)

    def shown(self, name: str) -> torch.Tensor:
        """Return the soft-thresholded weights."""
        w = self._behind[name]
        threshold = torch.sigmoid(self._learned[name].detach())
        return w.sign() * torch.relu(w.abs() - threshold)

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Give the threshold its gradient; what lies below it gets none."""
        through = gradient * (self._behind[name].abs() > torch.sigmoid(self._learned[name].detach()))
        share = torch.sigmoid(self._learned[name].detach())
        self._learned[name].grad = -(through * self._behind[name].sign()).sum() * share * (1 - share)
        return through

    def advance(self, step: int) -> None:
        """Follow what is not zero."""
        self.masks = {name: self.shown(name) != 0 for name in self._behind}
        self._recount()

    def final_scores(self) -> Mapping[str, Array]:
        """Return by how much each weight exceeds its threshold."""
        return {
            name: to_numpy(w.abs() - torch.sigmoid(self._learned[name].detach())) for name, w in self._behind.items()
        }


class UnitThreshold(LearnedBehind):
    """A trained threshold for each output unit: w' = w * step(|w| - t) (Liu et al. 2020, "Dynamic sparse training").

    The step's derivative is taken as 2 - 4|x| up to 0.4, 0.4 up to 1 and 0 beyond; a penalty ``alpha`` * sum exp(-t)
    raises the thresholds. The final mask keeps the asked number of weights, by |w| - t.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the final one.
        alpha: weight of the penalty.
        flops: counts the operations of an example.
    """

    def __init__(
        self, module: nn.Module, rule: MaskRule, sparsity: float, *, alpha: float, flops: FlopCounter = no_cost
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._alpha = alpha
        axes = {tensor.name: tensor.output_axis for tensor in rule.space.tensors}
        self._learned = {name: nn.Parameter(_units(weight, axes[name])) for name, weight in self._behind.items()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the network's group and that of the thresholds, which do not decay."""
        return self.groups(0.0)

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Give the thresholds their gradients; the weights get theirs through the mask and through the step."""
        w, thresholds = self._behind[name], self._learned[name]
        slope = gradient * w * step_slope(w.abs() - thresholds.detach())
        others = [axis for axis in range(w.dim()) if thresholds.shape[axis] == 1]
        pull = -self._alpha * torch.exp(-thresholds.detach())
        thresholds.grad = pull - (slope.sum(dim=others, keepdim=True) if others else slope)
        return gradient * self.masks[name] + slope * w.sign()

    def advance(self, step: int) -> None:
        """Cut at the thresholds."""
        self.masks = {name: w.abs() >= self._learned[name].detach() for name, w in self._behind.items()}
        self._recount()

    def final_scores(self) -> Mapping[str, Array]:
        """Return by how much each weight exceeds its unit's threshold."""
        return {name: to_numpy(w.abs() - self._learned[name].detach()) for name, w in self._behind.items()}


def step_slope(x: torch.Tensor) -> torch.Tensor:
    """Return the stand-in for the derivative of the unit step (Liu et al. 2020, eq. 4)."""
    size = x.abs()
    return torch.where(size <= 0.4, 2 - 4 * size, torch.where(size <= 1, torch.full_like(x, 0.4), torch.zeros_like(x)))


class ScaledUnits(WeightsBehind):
    """Sparse structure selection: a scale on every output unit, with an L1 penalty (Huang and Wang 2018).

    w' = scale * w. The scales follow the paper's accelerated proximal gradient (APG-NAG, eq. 11-13): a step, soft
    thresholding, momentum. The final mask removes the units of smallest scale; the others' scales are multiplied in.

    Args:
        module: the network.
        rule: space and allocation of a structure of whole units.
        sparsity: the final one.
        penalty: gamma, of the L1 norm of the scales.
        momentum: mu.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        penalty: float,
        momentum: float,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._penalty, self._momentum = penalty, momentum
        axes = {tensor.name: tensor.output_axis for tensor in rule.space.tensors}
        self._scales = {name: _units(weight, axes[name]) + 1 for name, weight in self._behind.items()}
        self._speeds = {name: torch.zeros_like(scale) for name, scale in self._scales.items()}

    def shown(self, name: str) -> torch.Tensor:
        """Return the scaled weights."""
        return self._behind[name] * self._scales[name]

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Move the scales; return the gradient of the unscaled weights."""
        scales = self._scales[name]
        others = [axis for axis in range(gradient.dim()) if scales.shape[axis] == 1]
        slope = gradient * self._behind[name]
        slope = slope.sum(dim=others, keepdim=True) if others else slope
        through = gradient * scales
        rate = self._optimiser.param_groups[0]["lr"] if self._optimiser else 0.0
        scales, self._speeds[name] = proximal_step(
            scales, self._speeds[name], slope, rate, self._penalty, self._momentum
        )
        self._scales[name] = scales
        return through

    def final_scores(self) -> Mapping[str, Array]:
        """Return the scale of each weight's unit."""
        return {
            name: np.ascontiguousarray(to_numpy(scale.abs().expand_as(self._behind[name])))
            for name, scale in self._scales.items()
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return scales and their speeds too."""
        scales = {f"scale/{name}": scale for name, scale in self._scales.items()}
        return super().tensors() | scales | {f"speed/{name}": speed for name, speed in self._speeds.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        for name, scale in self._scales.items():
            self._scales[name] = tensors[f"scale/{name}"].to(scale.device)
            self._speeds[name] = tensors[f"speed/{name}"].to(scale.device)


def proximal_step(
    scales: torch.Tensor, speeds: torch.Tensor, slope: torch.Tensor, rate: float, penalty: float, momentum: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales and speeds after one APG-NAG step.

    ``scales`` are the look-ahead values lambda' = lambda + mu v of the paper, at which the slope was taken.
    """
    z = scales - rate * slope
    shrunk = z.sign() * torch.relu(z.abs() - rate * penalty)
    # v_t = S(z_t) - lambda_{t-1}, and lambda_{t-1} = lambda'_{t-1} - mu v_{t-1}.
    speed = shrunk - scales + momentum * speeds
    return shrunk + momentum * speed, speed


def _units(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Return zeros for each output unit, shaped to be broadcast over the weight."""
    extent = [1] * weight.dim()
    extent[axis] = weight.shape[axis]
    return torch.zeros(extent, device=weight.device, dtype=weight.dtype)
