"""Training in a random subspace: the network moves along a few random directions only (Li et al. 2018).

theta = theta_0 + P theta_d, where P has unit columns and theta_d, the only thing that is trained, begins at zero. P is
never built: each tensor has a fast structured matrix of its own (:mod:`..parametrisations.projection`), which this
module computes on the network's device, forwards and transposed, in the same order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ...errors import UnsupportedError
from ...models.seeding.philox_torch import words
from ...models.seeding.rebuild import rebuild
from ...models.seeding.record import PHILOX, SeedRecord
from ...models.tensors import to_numpy
from ..parametrisations import Handover
from ..parametrisations.projection import length_of, parts_of
from .dynamics import Dynamics, FlopCounter, no_cost

_COORDINATES = "coordinates"


class Projection:
    """The random matrix [weights, dimension] of one tensor, as a fast transform.

    Args:
        record: seed and name, of which the signs are drawn.
        weights: of the tensor.
        dimension: of the subspace.
        device: where it computes.
    """

    def __init__(self, record: SeedRecord, weights: int, dimension: int, device: torch.device) -> None:
        self._weights, self._dimension = weights, dimension
        self._length = length_of(weights, dimension)
        drawn = words(record.seed, f"{record.name}/projection", 0, 3 * self._length, device) >> 31
        # One byte a sign: a large network has three times its size of them.
        self._signs = (1 - 2 * drawn).to(torch.int8).reshape(3, self._length)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the matrix times float32 ``coordinates`` [dimension]: float32 [weights]."""
        vector = self._padded(coordinates)
        for signs in self._signs:
            vector = hadamard(vector * signs)
        return (vector * (1.0 / self._length))[: self._weights]

    def transposed(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the transposed matrix times float32 ``gradient`` [weights]: float32 [dimension]."""
        vector = self._padded(gradient)
        for signs in self._signs.flip(0):
            vector = hadamard(vector) * signs
        return (vector * (1.0 / self._length))[: self._dimension]

    def _padded(self, vector: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(vector, (0, self._length - vector.numel()))


def hadamard(vector: torch.Tensor) -> torch.Tensor:
    """Return H times a vector of a power of two entries, in the order of ``parametrisations.projection.hadamard``."""
    result, distance = vector, 1
    while distance < vector.numel():
        pairs = result.view(-1, 2, distance)
        result = torch.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), dim=1)
        distance *= 2
    return result.view(-1)


class Subspace(Dynamics):
    """Training of the coordinates of a random subspace.

    Args:
        module: the network; its parameters are theta_0. Those that require no gradient stay.
        dimension: d, of the subspace.
        seed: the run's; the directions are drawn from streams of their own.
        seeds: by parameter name, what draws theta_0 again; a parameter that is not named, or that is no longer what its
            seed draws, is stored beside the coordinates.
        flops: counts the operations of an example.

    Raises:
        UnsupportedError: a parameter is not float32.
    """

    def __init__(
        self,
        module: nn.Module,
        dimension: int,
        *,
        seed: int,
        seeds: Mapping[str, SeedRecord] | None = None,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, flops)
        self._parameters = dict(super().named_parameters())
        for name, parameter in self._parameters.items():
            if parameter.dtype != torch.float32:
                raise UnsupportedError(
                    f"a random subspace is of float32 parameters, and '{name}' is {parameter.dtype}; convert the model."
                )
        self._seeds = dict(seeds or {})
        self._seed = seed
        self._initial = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        device = next(iter(self._parameters.values())).device
        self._coordinates = nn.Parameter(torch.zeros(dimension, device=device))
        self._projections = {
            name: Projection(self._record(name), parameter.numel(), dimension, device)
            for name, parameter in self._parameters.items()
        }
        total = sum(parameter.numel() for parameter in self._parameters.values())
        # Entries of mean square 1, over all weights: columns of unit length.
        self._scale = 1.0 / math.sqrt(total)
        self.untrained = frozenset(self._parameters)
        self.added = dimension

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the coordinates."""
        return [(_COORDINATES, self._coordinates)]

    def after_backward(self, step: int) -> bool:
        """Turn the gradients of the parameters into those of the coordinates: P transposed times g."""
        gradient = torch.zeros_like(self._coordinates)
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                gradient += self._projections[name].transposed(parameter.grad.reshape(-1))
                parameter.grad = None
        self._coordinates.grad = gradient.mul_(self._scale)
        return True

    def after_step(self, step: int) -> None:
        """Move the network to where the coordinates say."""
        self._show()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the coordinates and the initial parameters."""
        initial = {f"initial/{name}": tensor for name, tensor in self._initial.items()}
        return {_COORDINATES: self._coordinates.detach(), **initial}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back coordinates and initial parameters."""
        with torch.no_grad():
            self._coordinates.copy_(tensors[_COORDINATES])
            for name, initial in self._initial.items():
                initial.copy_(tensors[f"initial/{name}"])
        self._show()

    def finish(self) -> None:
        """Leave no gradient behind."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def handover(self) -> dict[str, Handover]:
        """Return the coordinates, stored once, and of each parameter the seed or the value that it began at."""
        stored = to_numpy(self._stored())
        found: dict[str, Handover] = {}
        for name, initial in self._initial.items():
            array = to_numpy(initial)
            seed = self._seeds.get(name)
            drawn = seed is not None and rebuild(seed, array.shape).tobytes() == array.tobytes()
            parts = parts_of(stored, None if drawn else array)
            owner = next((other for other, made in found.items() if made.parts.keys() == parts.keys()), None)
            found[name] = Handover(
                "projection", parts, seed if drawn else self._record(name), count=stored.size, shares=owner
            )
        return found

    def _record(self, name: str) -> SeedRecord:
        """Return what the directions are drawn by: the parameter's own seed record, or one that only names a stream."""
        return self._seeds.get(name) or SeedRecord(PHILOX, self._seed, name, "constant", 0.0)

    def _stored(self) -> torch.Tensor:
        return self._coordinates.detach() * self._scale

    def _show(self) -> None:
        stored = self._stored()
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                moved = self._projections[name].forward(stored).reshape(parameter.shape)
                torch.add(self._initial[name], moved, out=parameter.data)
