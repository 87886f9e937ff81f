"""Scoring ResNet-50 at initialisation against the bare passes that a criterion needs.

SNIP: a forward and a backward pass. GraSP: for both halves of the examples a gradient and a Hessian-vector product.
SynFlow: a forward and a backward pass of one input in float64, once a round. Our side includes scores and selection.
On two quiet cores this takes about seven minutes, four of them SynFlow's; ``--only`` takes one criterion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from record import arguments, paired_ratio, summary, write
from torch import nn

from sparsepack.compressor.masked_network import MaskedNetwork
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.training.weights import set_state, state_arrays
from sparsepack.files import Array
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.source import TorchSource, load_source

CPU = torch.device("cpu")


class Nowhere:
    """A tape that nothing here reads."""

    def record(self, label: str, state: Mapping[str, Array]) -> None:
        """Forget a state."""

    def read(self, label: str) -> Mapping[str, Array]:
        """Return nothing."""
        return {}


def images(examples: int) -> Dataset:
    """Return Gaussian images, one of each of so many classes."""
    drawn = np.random.default_rng(0).standard_normal((examples, 3, 224, 224)).astype(np.float32)
    return make_dataset("noise", drawn, np.arange(examples), drawn[:1], np.arange(1))


def ours(method: str, data: Dataset, **options: Any) -> tuple[MaskedNetwork, Callable[[], None]]:
    """Return a masked network, and what carries out every stage of its plan before the training."""
    source = load_source("resnet-50", options={"input_shape": [3, 224, 224], "classes": data.classes})
    assert isinstance(source, TorchSource)
    recipe = single_run(
        None,
        "resnet-50",
        method=method,
        # Only its presence is looked at; the images are the ones above.
        data="digits",
        sparsity=0.9,
        epochs=0,
        method_options=tuple(f"{key}={value}" for key, value in options.items()),
    )
    network = MaskedNetwork(recipe, source.build(), source.record, source.example_inputs, data, Nowhere(), CPU)

    def run() -> None:
        for stage in network.plan:
            network.carry_out(stage)

    return network, run


def gradient(module: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, graph: bool = False) -> Any:
    """Return the gradients of the cross-entropy."""
    return torch.autograd.grad(F.cross_entropy(module(inputs), labels), list(module.parameters()), create_graph=graph)


def bare_grasp(module: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Two gradients and two Hessian-vector products."""
    halves = [(inputs[part::2], labels[part::2]) for part in (0, 1)]
    first = [gradient(module, *half) for half in halves]
    total = [a + b for a, b in zip(*first, strict=True)]
    for half in halves:
        inner = sum((a * b).sum() for a, b in zip(total, gradient(module, *half, graph=True), strict=True))
        torch.autograd.grad(inner, list(module.parameters()))


def bare_synflow(module: nn.Module, rounds: int) -> None:
    """A forward and a backward pass a round."""
    for _ in range(rounds):
        total = module(torch.ones(1, 3, 224, 224, dtype=torch.float64)).sum()
        torch.autograd.grad(total, list(module.parameters()))


def timed(
    network: MaskedNetwork, run: Callable[[], None], bare: Callable[[], None], runs: int, warmup: int = 1
) -> dict[str, Any]:
    """Time both in turn; the network is put back to its start, off the clock, before each of our runs."""
    start = {name: array.copy() for name, array in state_arrays(network.module).items()}
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(warmup + runs):
        network.masks = {}
        set_state(network.module, start)
        for name, task in (("ours", run), ("bare", bare)):
            begin = time.perf_counter()
            task()
            if turn >= warmup:
                times[name].append(time.perf_counter() - begin)
    return {
        "ours": summary(times["ours"]),
        "bare": summary(times["bare"]),
        "ratio": paired_ratio(times["ours"], times["bare"]),
    }


def main() -> None:
    """Measure and write the record."""
    given = arguments(__doc__, runs=3, examples=8, rounds=100, threads=1, only="")
    torch.set_num_threads(given.threads)
    data = images(given.examples)
    inputs, labels = next(data.batches("train", given.examples))
    figures: dict[str, Any] = {"examples": given.examples, "rounds": given.rounds, "threads": given.threads}
    plain = ours("snip", data)[0].module
    if given.only in ("", "snip"):
        network, run = ours("snip", data, batch_size=given.examples)
        figures["snip"] = timed(network, run, lambda: gradient(plain.eval(), inputs, labels), given.runs)
    if given.only in ("", "grasp"):
        network, run = ours("grasp", data, examples_per_class=1)
        figures["grasp"] = timed(network, run, lambda: bare_grasp(plain.train(), inputs, labels), given.runs)
    if given.only in ("", "synflow"):
        network, run = ours("synflow", data, rounds=given.rounds)
        double = plain.double().eval()
        # A hundred rounds in a row need no warm-up.
        figures["synflow"] = timed(
            network, run, lambda: bare_synflow(double, given.rounds), max(1, given.runs // 2), warmup=0
        )
    write(given.json, figures)


if __name__ == "__main__":
    main()
