"""One-shot pruning without retraining: how far the output moves from the dense network's.

Trains ResNet-20 (on the embedded digits) and the small text encoder (on the same digits, each pixel a token) once, then
prunes each by magnitude, Wanda, SparseGPT and WoodFisher at 50 to 90 % and 2:4, every layer alike, and compares outputs
on the test split. Runs lie in --folder; what is there is not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import arguments, write

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.models.data import load_data
from sparsepack.models.evaluating import evaluating
from sparsepack.models.source import TorchSource, source_from_record

METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "wanda": {"samples": 256, "batch_size": 64},
    "woodfisher": {"samples": 200, "update": "sum"},
    "woodfisher-joint": {"samples": 200, "update": "joint"},
    "sparsegpt": {"samples": 256, "batch_size": 64},
}
LEVELS = ("0.5", "0.6", "0.7", "0.8", "0.9", "2:4")


def tokens_of_digits(path: Path) -> None:
    """Write the digits as sequences of 64 tokens: intensity 0 to 16 becomes token 1 to 17, 0 is padding."""
    data = load_data("digits")
    assert data is not None
    arrays: dict[str, Any] = {}
    for split, inputs, labels in (
        ("train", data.train_inputs, data.train_labels),
        ("test", data.test_inputs, data.test_labels),
    ):
        levels = np.unique(data.train_inputs)
        arrays[f"x_{split}"] = np.searchsorted(levels, inputs.reshape(len(inputs), -1)).astype(np.int64) + 1
        arrays[f"y_{split}"] = labels
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def run(folder: Path, data: str, model: str, name: str, **entry: Any) -> SparseCheckpoint:
    """Carry out one run, or open it when it is done."""
    plain = {"version": 1, "model": model, "data": data, "seed": 0, "threads": 1, "runs": [{"name": name, **entry}]}
    (recipe,) = load_recipe(plain).prune_recipes()
    return prune(recipe, folder / name)


def outputs(checkpoint: SparseCheckpoint, inputs: torch.Tensor) -> torch.Tensor:
    """Return a checkpoint's logits."""
    source = source_from_record(checkpoint.metadata.model, None)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.dense_state().items()})
    with evaluating(module):
        result: torch.Tensor = module(inputs)
    return result


def main() -> None:
    """Train, prune, compare."""
    given = arguments(__doc__, folder="out/one-shot", epochs=6)
    torch.set_num_threads(1)
    folder = Path(given.folder)
    tokens = folder / "tokens.npz"
    if not tokens.exists():
        tokens_of_digits(tokens)
    figures: dict[str, Any] = {}
    for model, data, training in (
        ("resnet-20", "digits", {"learning_rate": 0.1}),
        ("text-encoder", f"npz:{tokens}", {"learning_rate": 0.002, "optimiser": "adamw", "weight_decay": 0.01}),
    ):
        place = folder / model
        dense = run(place, data, model, "dense", method="dense", train={"epochs": given.epochs, **training})
        loaded = load_data(data)
        assert loaded is not None
        inputs, labels = loaded.test()
        expected = outputs(dense, inputs)
        rows: dict[str, Any] = {}
        for name, options in METHODS.items():
            for level in LEVELS:
                shape = {"structure": level} if ":" in level else {"sparsity": float(level), "allocation": "uniform"}
                checkpoint = run(
                    place,
                    data,
                    str(place / "dense" / "checkpoint.safetensors"),
                    f"{name}-{level.replace(':', '-')}",
                    method=name.removesuffix("-joint"),
                    options={"retrain": "none", **options},
                    train={"epochs": 0},
                    **shape,
                )
                found = outputs(checkpoint, inputs)
                error = float((found - expected).norm() / expected.norm())
                right = float((found.argmax(dim=1) == labels).float().mean())
                rows.setdefault(name, {})[level] = {"error": round(error, 4), "accuracy": round(right, 4)}
                print(model, name, level, rows[name][level], flush=True)
        right = float((expected.argmax(dim=1) == labels).float().mean())
        figures[model] = {"epochs": given.epochs, "dense_accuracy": round(right, 4), "methods": rows}
    write(given.json, figures)


if __name__ == "__main__":
    main()
