"""What sparse training costs through our trainer, against a plain hand-written PyTorch loop on the dense network.

Both do the same work: the same batches of the same size in the same order, the same optimiser, loss and learning rate
schedule. Targets: a static mask at most 1.10x, RigL, SET and SNFS at most 1.20x, edge-popup at most 1.50x.
LeNet-300-100 sees 28x28 images and exchanges every 100 steps (the paper's default); ResNet-20 sees 32x32 images and
exchanges ten times as often, so that a short run pays for several (SET and SNFS: once an epoch by default). The data is
random: only time is measured. One more figure is what a mask update of ResNet-50 takes; target: under a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from record import arguments, interleaved, paired_ratio, summary, write

from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import random
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.dynamic_sparse.sparse_evolution import SparseEvolution
from sparsepack.compressor.training.dynamic_sparse.sparse_momentum import SparseMomentum
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.rigl import RigL
from sparsepack.compressor.training.sparse_selection.edge_popup import EdgePopup
from sparsepack.compressor.training.static import StaticMask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.models.dataset import Dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import InputSpec
from sparsepack.models.zoo import ZOO

METHODS = ("static mask", "rigl", "set", "snfs", "edge-popup")


class Quiet:
    """A watch that looks at nothing."""

    def after_step(self, trainer: Trainer) -> None:
        """Do nothing."""

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        """Do nothing."""


def plain_loop(module: torch.nn.Module, data: Dataset, settings: TrainSettings) -> None:
    """Train as a user would write it: a loader over tensors, SGD, a cosine schedule, one step a batch."""
    inputs, labels = data.test()  # both splits of this data set are the same, and this one is ready
    optimiser = torch.optim.SGD(
        module.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    steps = data.steps(settings.batch_size) * settings.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    module.train()
    for _ in range(settings.epochs):
        for part in torch.split(torch.randperm(len(labels)), settings.batch_size):
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(module(inputs[part]), labels[part]))
            optimiser.step()
            schedule.step()


def random_data(shape: tuple[int, ...], examples: int) -> Dataset:
    """Return float images and labels that mean nothing."""
    random_numbers = np.random.default_rng(0)
    inputs = random_numbers.standard_normal((examples, *shape), dtype=np.float32)
    labels = random_numbers.integers(0, 10, examples)
    return Dataset("random", inputs, labels, inputs, labels, 10, InputSpec("input", shape))


def dynamics_of(module: torch.nn.Module, method: str, every: int, steps: int) -> Dynamics:
    """Return a method's dynamics at 90 % sparsity: Erdos-Renyi-kernel, uniform for edge-popup."""
    space = make_space(prunable_tensors(module), Element())
    if method == "edge-popup":
        return EdgePopup(module, MaskRule(space, Element(), "uniform"), 0.9, seed=0)
    rule = MaskRule(space, Element(), "erdos-renyi-kernel")
    scores = random({tensor.name: tensor.shape for tensor in space.tensors}, seed=0)
    masks = {name: torch.from_numpy(mask) for name, mask in rule.select(scores, 0.9).items()}
    if method == "static mask":
        return StaticMask(module, masks)
    if method == "set":
        return SparseEvolution(module, masks, fraction=0.3, every=every, end=steps, by_sign=False, seed=0)
    if method == "snfs":
        return SparseMomentum(module, masks, rate=0.5, every=every, total_steps=steps, smoothing=0.99)
    return RigL(module, masks, drop_fraction=0.3, end=steps, every=every)


def ours(module: torch.nn.Module, data: Dataset, settings: TrainSettings, method: str, every: int) -> None:
    """Train with our trainer."""
    steps = data.steps(settings.batch_size) * settings.epochs
    dynamics = dynamics_of(module, method, every, steps)
    Trainer(module, data, settings, dynamics, seed=0, device=torch.device("cpu")).run(Quiet())


def compare(
    name: str, shape: tuple[int, ...], examples: int, *, epochs: int, every: int, rounds: int
) -> dict[str, object]:
    """Time the loops in turn on fresh networks; the methods that move masks do so every so many steps."""
    data = random_data(shape, examples)
    settings = TrainSettings(epochs=epochs, batch_size=64, learning_rate=0.01)
    fresh: Callable[[], torch.nn.Module] = lambda: ZOO[name].build(shape, 10)[0]  # noqa: E731 - a local shorthand
    tasks = {"plain loop": lambda: plain_loop(fresh(), data, settings)}
    for method in METHODS:
        tasks[method] = partial(lambda method: ours(fresh(), data, settings, method, every), method)
    times = interleaved(tasks, runs=rounds)
    figures: dict[str, object] = {task: summary(seconds) for task, seconds in times.items()}
    return figures | {f"{method} / plain loop": paired_ratio(times[method], times["plain loop"]) for method in METHODS}


def mask_updates(rounds: int) -> dict[str, object]:
    """Time one mask update of ResNet-50 by each method that moves masks, with random gradients."""
    tasks: dict[str, Callable[[], object]] = {}
    for method in METHODS[1:]:
        module = ZOO["resnet-50"].build((3, 224, 224), 1000)[0]
        dynamics = dynamics_of(module, method, 100, 10_000)
        dynamics.attach(torch.optim.SGD(dynamics.parameter_groups(), lr=0.01))
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        if isinstance(dynamics, RigL):
            tasks[method] = partial(dynamics.exchange, 0.3, 100)
        elif isinstance(dynamics, SparseEvolution):
            tasks[method] = partial(dynamics.exchange, 100)
        elif isinstance(dynamics, SparseMomentum):
            dynamics.after_backward(0)
            tasks[method] = partial(dynamics.exchange, 0.5)
        elif isinstance(dynamics, EdgePopup):
            tasks[method] = dynamics.choose
    return {method: summary(seconds) for method, seconds in interleaved(tasks, runs=rounds).items()}


def main() -> None:
    """Compare on both networks, time the updates of a large one, and write the record."""
    options = arguments(__doc__, rounds=5)
    figures = {
        "lenet-300-100": compare("lenet-300-100", (1, 28, 28), 12_800, epochs=2, every=100, rounds=options.rounds),
        "resnet-20": compare("resnet-20", (3, 32, 32), 1_600, epochs=1, every=10, rounds=options.rounds),
        "mask update of resnet-50": mask_updates(options.rounds),
    }
    write(options.json, figures)


if __name__ == "__main__":
    main()
