"""What sparse training costs through our trainer, against a plain hand-written PyTorch loop on the dense network.

Both do the same work: the same batches of the same size in the same order, the same optimiser, loss and learning rate
schedule. Targets: a static mask at most 1.10x, RigL at most 1.20x.
LeNet-300-100 sees 28x28 images and exchanges every 100 steps (the paper's default); ResNet-20 sees 32x32 images and
exchanges ten times as often, so that a short run pays for several. The data is random: only time is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from record import arguments, interleaved, paired_ratio, summary, write

from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import random
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.rigl import RigL
from sparsepack.compressor.training.static import StaticMask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.models.dataset import Dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import InputSpec
from sparsepack.models.zoo import ZOO


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
            F.cross_entropy(module(inputs[part]), labels[part]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def random_data(shape: tuple[int, ...], examples: int) -> Dataset:
    """Return float images and labels that mean nothing."""
    random_numbers = np.random.default_rng(0)
    inputs = random_numbers.standard_normal((examples, *shape), dtype=np.float32)
    labels = random_numbers.integers(0, 10, examples)
    return Dataset("random", inputs, labels, inputs, labels, 10, InputSpec("input", shape))


def ours(module: torch.nn.Module, data: Dataset, settings: TrainSettings, method: str, every: int) -> None:
    """Train with our trainer at 90 % sparsity, Erdos-Renyi-kernel."""
    space = make_space(prunable_tensors(module), Element())
    rule = MaskRule(space, Element(), "erdos-renyi-kernel")
    scores = random({tensor.name: tensor.shape for tensor in space.tensors}, seed=0)
    masks = {name: torch.from_numpy(mask) for name, mask in rule.select(scores, 0.9).items()}
    steps = data.steps(settings.batch_size) * settings.epochs
    dynamics = (
        StaticMask(module, masks)
        if method == "static mask"
        else RigL(module, masks, drop_fraction=0.3, end=steps, every=every)
    )
    Trainer(module, data, settings, dynamics, seed=0, device=torch.device("cpu")).run(Quiet())


def compare(
    name: str, shape: tuple[int, ...], examples: int, *, epochs: int, every: int, rounds: int
) -> dict[str, object]:
    """Time the three loops in turn on fresh networks; RigL exchanges ``every`` so many steps."""
    data = random_data(shape, examples)
    settings = TrainSettings(epochs=epochs, batch_size=64, learning_rate=0.01)
    fresh: Callable[[], torch.nn.Module] = lambda: ZOO[name].build(shape, 10)[0]  # noqa: E731 - a local shorthand
    tasks = {
        "plain loop": lambda: plain_loop(fresh(), data, settings),
        "static mask": lambda: ours(fresh(), data, settings, "static mask", every),
        "rigl": lambda: ours(fresh(), data, settings, "rigl", every),
    }
    times = interleaved(tasks, runs=rounds)
    return {
        **{task: summary(seconds) for task, seconds in times.items()},
        "static mask / plain loop": paired_ratio(times["static mask"], times["plain loop"]),
        "rigl / plain loop": paired_ratio(times["rigl"], times["plain loop"]),
    }


def main() -> None:
    """Compare on both networks and write the record."""
    options = arguments(__doc__, rounds=5)
    figures = {
        "lenet-300-100": compare("lenet-300-100", (1, 28, 28), 12_800, epochs=2, every=100, rounds=options.rounds),
        "resnet-20": compare("resnet-20", (3, 32, 32), 1_600, epochs=1, every=10, rounds=options.rounds),
    }
    write(options.json, figures)


if __name__ == "__main__":
    main()
