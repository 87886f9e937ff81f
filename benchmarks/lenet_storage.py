"""The LeNets of Deep Compression: pruned, coded with few bits, fine-tuned; how small at how much accuracy, over seeds.

Each network is trained dense, pruned gradually by magnitude, and frozen (FreezeNet: most weights stay as the seed drew
them and cost nothing). The pruned ones are written by `packed` without loss, with codebooks, and with codebooks that
were fine-tuned on the data. Targets: at least 45x smaller than dense fp32 at no more than 0.3 points below the dense
accuracy. Every run and every finished seed is kept under --runs, so that the command can be interrupted.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from record import arguments, write

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.training.evaluation import test_accuracy
from sparsepack.exporters import export
from sparsepack.exporters.artifact import dense_bytes
from sparsepack.exporters.finetune import finetune_values
from sparsepack.files import write_bytes
from sparsepack.models.data import load_data
from sparsepack.models.source import TorchSource, source_from_record
from sparsepack.models.tensors import to_torch
from sparsepack.runtimes.measure.zipped import zipped_dense_bytes

# Learning rate, epochs dense, epochs pruned or frozen, and the sparsity of each way.
NETWORKS: dict[str, tuple[float, int, int, dict[str, float]]] = {
    "lenet-300-100": (0.05, 40, 60, {"magnitude": 0.94, "freezenet": 0.9, "freezenet-more": 0.8}),
    "lenet-5-caffe": (0.02, 15, 30, {"magnitude": 0.93, "freezenet": 0.95, "freezenet-more": 0.9}),
}
WAYS = ("dense", "magnitude", "freezenet", "freezenet-more")
BITS = (5, 4, 3)
FINETUNE_EPOCHS = 2
# Two-sided 95 % of Student's t by degrees of freedom.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def recipe(network: str, way: str, data: str, seed: int) -> dict[str, Any]:
    """Return one run."""
    rate, dense, longer, sparsities = NETWORKS[network]
    method = way.removesuffix("-more")
    one: dict[str, Any] = {"name": method, "method": method}
    if way != "dense":
        one["sparsity"] = sparsities[way]
    if way == "magnitude":
        one["schedule"] = "gradual"
    train = {"learning_rate": rate, "momentum": 0.9, "weight_decay": 0.0005, "batch_size": 64}
    return {
        "version": 1,
        "model": network,
        "data": data,
        "seed": seed,
        "threads": 1,
        "train": {**train, "epochs": dense if way == "dense" else longer},
        "runs": [one],
    }


def accuracy(checkpoint: SparseCheckpoint, data: Any) -> float:
    """Return the test accuracy of a checkpoint."""
    source = source_from_record(checkpoint.metadata.model)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    value = test_accuracy(module, data, torch.device("cpu"))
    assert value is not None
    return value


def files(checkpoint: SparseCheckpoint, data: Any, folder: Path, name: str) -> dict[str, Any]:
    """Write a checkpoint losslessly and with every codebook; return bytes and accuracies of each."""
    source = source_from_record(checkpoint.metadata.model)
    whole = export(checkpoint, "packed", folder / f"{name}.spk", force=True)
    dense = dense_bytes(whole)
    found: dict[str, Any] = {"fp32": {"bytes": whole.size, "ratio": dense / whole.size}}
    for bits in BITS:
        values = f"codebook:{bits}"
        at_once = export(checkpoint, "packed", folder / f"{name}-{bits}.spk", values=values, force=True)
        tuned = finetune_values(checkpoint, values, source=source, data=data, epochs=FINETUNE_EPOCHS)
        after = export(tuned.checkpoint, "packed", folder / f"{name}-{bits}-tuned.spk", values=values, force=True)
        found["fp32"]["accuracy"] = tuned.before
        found[values] = {"bytes": at_once.size, "ratio": dense / at_once.size, "accuracy": tuned.coded}
        found[f"{values} fine-tuned"] = {"bytes": after.size, "ratio": dense / after.size, "accuracy": tuned.after}
    found["zstd-19"] = {"ratio": dense / zipped_dense_bytes(checkpoint.dense_state()), "accuracy": tuned.before}
    return found


def one_seed(network: str, seed: int, options: Any) -> dict[str, Any]:
    """Return the figures of one seed; what was finished before comes from its file."""
    runs = Path(options.runs)
    known = runs / f"{network}-{seed}.json"
    found: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    data = load_data(options.data)
    for way in options.ways.split(","):
        if way in found:
            continue
        request = load_recipe(recipe(network, way, options.data, seed)).prune_recipes()[0]
        checkpoint = prune(request, runs / f"{network}-{way}-{seed}")
        if way == "dense":
            found[way] = accuracy(checkpoint, data)
        else:
            found[way] = files(checkpoint, data, runs, f"{network}-{way}-{seed}")
        write_bytes(known, json.dumps(found, indent=1, sort_keys=True).encode())
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Return the mean and the half width of its 95 % interval."""
    half = T_95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 5), "half": round(half, 5)}


def summary(seeds: list[dict[str, Any]], ways: list[str]) -> dict[str, Any]:
    """Return, for every way of storing, ratio, accuracy and the accuracy lost against the same seed's dense network."""
    dense = [seed["dense"] for seed in seeds]
    rows: dict[str, Any] = {"dense": {"accuracy": interval(dense)}}
    for way in ways[1:]:
        for values in seeds[0][way]:
            entries = [seed[way][values] for seed in seeds]
            rows[f"{way} {values}"] = {
                "ratio": interval([entry["ratio"] for entry in entries]),
                "accuracy": interval([entry["accuracy"] for entry in entries]),
                "points_lost": interval([100 * (d - e["accuracy"]) for d, e in zip(dense, entries, strict=True)]),
            }
    return rows


def main() -> None:
    """Run every network and seed, and write the record."""
    options = arguments(__doc__, seeds=5, runs="out/lenet-storage", data="npz:mnist10k.npz", ways=",".join(WAYS))
    found: dict[str, Any] = {}
    for network in NETWORKS:
        seeds = []
        for seed in range(options.seeds):
            seeds.append(one_seed(network, seed, options))
            print(network, seed, json.dumps(seeds[-1]["magnitude"]), flush=True)
        found[network] = summary(seeds, options.ways.split(","))
    sparsities = {name: settings[3] for name, settings in NETWORKS.items()}
    write(options.json, {"networks": found, "seeds": options.seeds, "sparsities": sparsities})


if __name__ == "__main__":
    main()
