"""Kronecker factors of a layer's Fisher matrix (K-FAC; Martens and Grosse 2015, Grosse and Martens 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...errors import UnsupportedError
from ...files import Array
from ...models.class_scores import class_scores
from ...models.tensors import to_numpy
from .gradients import scoring_mode
from .layers import Product, watching
from .probe import Probe
from .stream import batches_of, draw_labels


def kronecker_factors(probe: Probe) -> dict[str, Array]:
    """Return ``NAME/A`` = E[a a^T] and ``NAME/S`` = E[s s^T] for every weight, in the order of its own axes.

    ``a`` are a layer's inputs, ``s`` the gradients of one example's loss with respect to its outputs. A convolution
    sums over its positions: A over an example's patches, S as the mean over positions. The labels are drawn from the
    network's predictions (option ``labels``: ``model``) or are the data's (``data``).

    Raises:
        UnsupportedError: a grouped convolution, whose groups share no factor; or a weight that the loss does not reach.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    parameters = dict(probe.module.named_parameters())
    examples = 0

    def add(key: str, rows: torch.Tensor, scale: float) -> None:
        gram = rows.T @ rows * scale
        sums[key] = sums[key] + gram if key in sums else gram

    def sink(product: Product) -> None:
        weight = parameters[product.name]
        if product.units != slice(0, weight.shape[0]) or not product.output.requires_grad:
            raise UnsupportedError(
                f"'{product.name}' multiplies its output units by different inputs (groups), so it has no single pair "
                "of Kronecker factors; exclude it."
            )
        batch = examples_in_batch
        # Rows of a batch: the loss is the sum over examples, so each row's gradient is that of its example.
        add(f"{product.name}/A", _own_order(product.inputs.to(torch.float32), weight), 1.0 / batch)
        counts[product.name] = counts.get(product.name, 0) + 1

        def hook(gradient: torch.Tensor) -> None:
            rows = product.rows(gradient)
            add(f"{product.name}/S", rows, 1.0 / len(rows))

        product.output.register_hook(hook)  # type: ignore[no-untyped-call]  # untyped in torch

    batches = 0
    with scoring_mode(probe.module, "eval"):
        for inputs, labels in batches_of(probe, probe.options["batches"], probe.options["batch_size"]):
            examples_in_batch = len(labels)
            with watching(probe.module, probe.names, sink):
                outputs = class_scores(probe.module(inputs))
            targets = labels
            if probe.options["labels"] == "model":
                targets = draw_labels(outputs, probe.seed, f"labels/{probe.draw}/{batches}")
            torch.autograd.backward(F.cross_entropy(outputs, targets, reduction="sum"))
            batches += 1
            examples += len(labels)
    probe.module.zero_grad(set_to_none=True)
    probe.charge(examples)
    for name in probe.names:
        if f"{name}/S" not in sums:
            raise UnsupportedError(f"no gradient reaches '{name}', so its curvature is unknown; exclude it.")
    return {key: to_numpy(total / batches) for key, total in sums.items()}


def _own_order(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return rows [n, kernel positions * channels] with the channels outermost, as the weight's own axes have them."""
    if weight.dim() == 2:
        return rows
    return rows.reshape(len(rows), -1, weight.shape[1]).transpose(1, 2).reshape(len(rows), -1)
