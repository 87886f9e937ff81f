"""A method in a loop of your own: RigL on handwritten digits, in plain PyTorch.

    python examples/own_loop.py

The network, the loss, the optimiser and the schedule stay yours; the sparsifier steps the optimiser, moves the mask and
hands out a checkpoint that every exporter takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import sparsepack

EPOCHS, BATCH = 5, 64


def build() -> nn.Module:
    """Return a fresh network for 8x8 digits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def main(output: Path) -> None:
    """Train, and write the packed artifact to ``output``."""
    torch.manual_seed(0)
    data = sparsepack.load_data("digits")
    if data is None:
        raise SystemExit("the embedded digits are missing")
    model = build()
    steps = EPOCHS * data.steps(BATCH)
    example, _ = next(data.batches("train", 2))
    sparsifier = sparsepack.Sparsifier(
        model, example, method="rigl", sparsity=0.9, total_steps=steps, options={"update_interval": 10}
    )
    optimiser = torch.optim.SGD(sparsifier.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    sparsifier.attach(optimiser)
    for epoch in range(EPOCHS):
        for inputs, labels in data.batches("train", BATCH, seed=0, epoch=epoch):
            loss = cross_entropy(model(inputs), labels)
            loss.backward()
            sparsifier.step(clip_norm=5.0)
            optimiser.zero_grad()
            rates.step()
    sparsifier.finish()

    model.eval()
    inputs, labels = data.test()
    accuracy = (model(inputs).argmax(dim=1) == labels).float().mean().item()
    checkpoint = sparsifier.checkpoint(f"{__file__}:build")
    artifact = sparsepack.export(checkpoint, "packed", output, force=True)
    print(f"sparsity {sparsifier.sparsity:.3f}, accuracy {accuracy:.3f}, {artifact.size} bytes in {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-loop.spk"))
