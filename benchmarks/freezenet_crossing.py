"""FreezeNet against SNIP on LeNet-300-100 with `digits`: the same masks, zero or the initial weights where they are 0.

Paper S3 (figure 9) and Wimmer et al. 2020 report that freezing wins when few weights are trained, and that the two meet
when many are. This trains both at 90 to 99.8 % sparsity over several seeds and draws both curves. Runs are kept under
--runs and taken up again, so that the command can be interrupted.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from record import arguments, write

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.training.evaluation import test_accuracy
from sparsepack.models.data import load_data
from sparsepack.models.source import TorchSource, source_from_record
from sparsepack.models.tensors import to_torch

SPARSITIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
METHODS = ("snip", "freezenet")
TRAIN = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "epochs": 40, "batch_size": 64}


def recipe(method: str, sparsity: float, seed: int) -> dict[str, Any]:
    """Return one run; both methods draw the same initial weights, so their masks are the same."""
    run = {"name": method, "method": method, "sparsity": sparsity, "generator": "keyed-product", "init": "uniform"}
    return {
        "version": 1,
        "model": "lenet-300-100",
        "data": "digits",
        "seed": seed,
        "threads": 1,
        "train": TRAIN,
        "runs": [run],
    }


def accuracy(checkpoint: SparseCheckpoint) -> float:
    """Return the test accuracy of a checkpoint on `digits`."""
    source = source_from_record(checkpoint.metadata.model, None)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    data = load_data("digits")
    assert data is not None
    value = test_accuracy(module, data, torch.device("cpu"))
    assert value is not None
    return value


def draw(points: dict[str, Any], path: Path) -> None:
    """Draw accuracy against the share of trained weights, mean and range over the seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "sparsepack"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method in METHODS:
        kept = [100 * (1 - sparsity) for sparsity in SPARSITIES]
        rows = [points[method][str(sparsity)] for sparsity in SPARSITIES]
        line = axes.plot(kept, [100 * row["mean"] for row in rows], marker="o", label=method)[0]
        low, high = ([100 * row[key] for row in rows] for key in ("low", "high"))
        axes.fill_between(kept, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="trained weights (% of prunable)", ylabel="test accuracy (%)")
    axes.set_title("LeNet-300-100 on digits: mean and range over seeds")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Run every combination, write the record and draw the picture."""
    options = arguments(__doc__, seeds=5, runs="out/freezenet-crossing", figure="docs/freezenet-crossing.svg")
    found: dict[str, Any] = {method: {} for method in METHODS}
    for method in METHODS:
        for sparsity in SPARSITIES:
            values = []
            for seed in range(options.seeds):
                folder = Path(options.runs) / f"{method}-{sparsity}-{seed}"
                request = load_recipe(recipe(method, sparsity, seed)).prune_recipes()[0]
                values.append(accuracy(prune(request, folder)))
            found[method][str(sparsity)] = {
                "mean": round(statistics.mean(values), 5),
                "low": round(min(values), 5),
                "high": round(max(values), 5),
                "values": [round(value, 5) for value in values],
            }
            print(method, sparsity, found[method][str(sparsity)], flush=True)
    ahead = [s for s in SPARSITIES if found["freezenet"][str(s)]["mean"] > found["snip"][str(s)]["mean"]]
    draw(found, Path(options.figure))
    write(options.json, {**found, "freezenet ahead at": ahead, "seeds": options.seeds})


if __name__ == "__main__":
    main()
