"""A method under PyTorch Lightning's Trainer: RigL on handwritten digits, with its loop, precision and accumulation.

    pip install pytorch-lightning
    python examples/lightning_trainer.py

The Trainer keeps data, epochs, mixed precision, accumulation and learning rates. A few hooks hand over to the
sparsifier: ``optimizer_step`` (where it steps the optimiser and moves the mask), the ends of epoch and training, and
the pair that saves and loads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import sparsepack

EPOCHS, BATCH, ACCUMULATED = 6, 32, 2


def build() -> nn.Module:
    """Return a fresh network for 8x8 digits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


class SparseClassifier(lightning.LightningModule):
    """A network whose connections a sparsifier moves while the Trainer trains it.

    Args:
        example: one batch of inputs.
        steps: optimiser steps of the whole training; accumulated batches are one.
    """

    def __init__(self, example: torch.Tensor, steps: int) -> None:
        super().__init__()
        self.network = build()
        self.sparsifier = sparsepack.Sparsifier(
            self.network, example, method="rigl", sparsity=0.9, total_steps=steps, options={"update_interval": 10}
        )

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        """Return the loss of a batch."""
        inputs, labels = batch
        return cross_entropy(self.network(inputs), labels)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser of what the method trains, and its schedule."""
        optimiser = torch.optim.SGD(self.sparsifier.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.sparsifier.attach(optimiser)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def optimizer_step(self, epoch: int, number: int, optimiser: Any, closure: Callable[[], Any] | None = None) -> None:
        """Go forward and back, then let the sparsifier step; it clips, because it knows which gradients are left."""
        if closure is not None:
            closure()
        self.sparsifier.step(clip_norm=5.0)

    def on_train_epoch_end(self) -> None:
        """Tell the method that an epoch is over."""
        self.sparsifier.end_epoch()

    def on_train_end(self) -> None:
        """Leave the network as the method wants it."""
        self.sparsifier.finish()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put where the method stands beside weights and optimiser."""
        checkpoint["sparsifier"] = self.sparsifier.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there: weights first, then the sparsifier; the Trainer makes and loads the optimiser later."""
        self.load_state_dict(checkpoint["state_dict"])
        self.sparsifier.load_state_dict(checkpoint["sparsifier"])


def main(output: Path) -> None:
    """Train, and write the packed artifact to ``output``."""
    lightning.seed_everything(0, verbose=False)
    data = sparsepack.load_data("digits")
    if data is None:
        raise SystemExit("the embedded digits are missing")
    inputs, labels = next(data.batches("train", len(data.train_labels), shuffle=False))
    loader = DataLoader(TensorDataset(inputs, labels), BATCH, shuffle=True)
    steps = EPOCHS * -(-len(loader) // ACCUMULATED)
    classifier = SparseClassifier(inputs[:2], steps)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision="bf16-mixed",
        accumulate_grad_batches=ACCUMULATED,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, loader)

    network, sparsifier = classifier.network.eval(), classifier.sparsifier
    inputs, labels = data.test()
    accuracy = (network(inputs).argmax(dim=1) == labels).float().mean().item()
    checkpoint = sparsifier.checkpoint(f"{__file__}:build")
    artifact = sparsepack.export(checkpoint, "packed", output, force=True)
    print(f"{trainer.global_step} steps, sparsity {sparsifier.sparsity:.3f}, accuracy {accuracy:.3f}, ", end="")
    print(f"{artifact.size} bytes in {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "lightning.spk"))
