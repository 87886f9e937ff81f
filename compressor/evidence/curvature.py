"""Curvature and Taylor terms: what second-order and unit-wise first-order scores look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import UnsupportedError
from ...files import Array
from ...models.tensors import to_numpy
from ..scores.units import per_unit, square_of_sum
from .probe import Probe
from .stream import Gradients, gradients_of_batches, gradients_of_labels, hessian_products


def curvature(probe: Probe) -> dict[str, Array]:
    """Return the diagonal of the curvature by the option ``curvature``, from ``samples`` examples.

    ``fisher`` is the mean of squared gradients of single examples (not the square of a batch's mean gradient, which is
    another thing); ``gauss-newton`` the same with labels drawn from the network; ``expected`` the same with every
    label, weighted by the network's probability of it; ``hessian`` Hutchinson's estimate E[z * H z] with random
    signs z.
    """
    count, kind = probe.options["samples"], probe.options["curvature"]
    sums: Gradients = {}
    if kind == "hessian":
        size = min(count, 64)
        rounds = -(-count // size)
        vectors = [f"hutchinson/{probe.draw}/{number}" for number in range(rounds)]
        for v, _, hv in hessian_products(probe, batches=rounds, batch_size=size, mode="eval", vectors=vectors):
            _add(sums, {name: v[name] * hv[name] for name in v})
        return _means(sums, rounds, probe)
    if kind == "expected":
        for gradients in gradients_of_labels(probe, examples=count):
            _add(sums, {name: g.square() for name, g in gradients.items()})
        return _means(sums, count, probe)
    for gradients in gradients_of_batches(probe, batches=count, batch_size=1, sampled=kind == "gauss-newton"):
        _add(sums, {name: g.square() for name, g in gradients.items()})
    return _means(sums, count, probe)


def gradient_samples(probe: Probe) -> dict[str, Array]:
    """Return ``samples`` gradients, each of ``batch_size`` examples, as [N, *shape] by name.

    The method is made of these N gradients: they take N times the memory of the weights, less than the blocks of the
    inverse Fisher matrix that they stand for.
    """
    found: dict[str, list[Array]] = {}
    count, size = probe.options["samples"], probe.options["batch_size"]
    for gradients in gradients_of_batches(probe, batches=count, batch_size=size):
        for name, gradient in gradients.items():
            found.setdefault(name, []).append(to_numpy(gradient))
    return {name: np.stack(rows) for name, rows in found.items()}


def taylor_terms(probe: Probe) -> dict[str, Array]:
    """Return the mean over batches of (sum over a unit of g w)**2, each weight holding its share of its unit's."""
    stream = gradients_of_batches(
        probe,
        batches=probe.options["batches"],
        batch_size=probe.options["batch_size"],
        mode=probe.options["mode"],
    )
    weights = dict(probe.module.named_parameters())
    return _mean_of_squares(probe, ({n: g * weights[n].detach() for n, g in found.items()} for found in stream))


def taylor_second_order_terms(probe: Probe) -> dict[str, Array]:
    """Return the same with the second-order term: (sum over a unit of g w - 1/2 w (H w))**2."""
    batches = probe.options["batches"]
    products = hessian_products(
        probe,
        batches=batches,
        batch_size=probe.options["batch_size"],
        mode=probe.options["mode"],
        vectors=["weights"] * batches,
    )
    return _mean_of_squares(probe, ({n: g[n] * w[n] - 0.5 * w[n] * hw[n] for n in w} for w, g, hw in products))


def _mean_of_squares(probe: Probe, terms: Iterable[Gradients]) -> dict[str, Array]:
    axes = probe.unit_axes
    sums: dict[str, Array] = {}
    for found in terms:
        for name, array in per_unit({n: to_numpy(t) for n, t in found.items()}, axes, square_of_sum).items():
            if name in sums:
                sums[name] += array
            else:
                sums[name] = array
    weights = probe.weights()
    _refuse_nothing(sums)
    count = probe.options["batches"]
    return {name: sums[name] / count if name in sums else np.zeros(w.shape) for name, w in weights.items()}


def _add(sums: Gradients, terms: Gradients) -> None:
    for name, term in terms.items():
        if name in sums:
            sums[name] += term
        else:
            sums[name] = term


def _means(sums: Gradients, count: int, probe: Probe) -> dict[str, Array]:
    _refuse_nothing(sums)
    return {
        name: to_numpy(sums[name] / count) if name in sums else np.zeros(w.shape, np.float32)
        for name, w in probe.weights().items()
    }


def _refuse_nothing(sums: Mapping[str, object]) -> None:
    if not sums:
        raise UnsupportedError("no gradient reaches any prunable weight, so nothing can be ranked.")
