"""The catalogue on one network: LeNet-5-Caffe on 8,000 MNIST digits, every method that can be trained there.

Twelve methods, at least one of each paradigm, are trained at 90, 95 and 98 % sparsity over three seeds; every other one
at 95 % with one seed. All share batches, epochs and the learning rate, except where a method's paper has its own
training (``compress methods NAME`` says which) and where the loss diverges, which trains at a tenth of the rate. What
is trained only once is shared: one dense training a seed stands before every method that prunes trained weights, and
the rounds of a lottery ticket pass 90 and 95 % on their way to 98. Trainings are short (a minute for most on one core),
so the figures rank methods for a small budget, not at their best. Every finished training is kept under --runs: the
command can be interrupted and goes on where it was. It begins no further training after --minutes and says in the
record which are missing; --full trains longer, on five seeds, with no limit.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comparison_plot import draw
from record import arguments, write

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.methods import METHODS, Method
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.training.evaluation import test_accuracy
from sparsepack.errors import OutputExistsError, SparsepackError, TrainingDivergedError
from sparsepack.files import write_bytes
from sparsepack.models.data import load_data
from sparsepack.models.source import TorchSource, source_from_record
from sparsepack.models.tensors import to_torch

NETWORK = "lenet-5-caffe"
LEVELS = (0.9, 0.95, 0.98)
OTHERS_AT = 0.95
DENSE = "dense"
TWELVE = (
    DENSE,
    "magnitude",
    "movement",
    "lottery-ticket",
    "random-at-init",
    "snip",
    "synflow",
    "edge-popup",
    "set",
    "snfs",
    "rigl",
    "freezenet",
)
TRAIN = {"learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0005, "batch_size": 64}
FINE_TUNE = {"learning_rate": 0.005}
# Epochs of a training and of the fine-tuning after a mask, and the seeds: the short comparison and the full one.
SHORT = {"epochs": 3, "fine_tune": 2, "seeds": 3, "chain_rounds": 5}
FULL = {"epochs": 20, "fine_tune": 10, "seeds": 5, "chain_rounds": 17}
# By the number of rounds of a chain to 98 %, those after which it is looked at: at 90.4 and 95.6 % of 5 rounds, each of
# which removes 54 % of what is left, and at 89.99 and 94.98 % of 17 (21 %).
CHAINS = {5: {3: 0.9, 4: 0.95, 5: 0.98}, 17: {10: 0.9, 13: 0.95, 17: 0.98}}
# For a training of some hundred steps: masks that move, and searches that are no longer than the training itself.
OPTIONS: dict[str, Any] = {
    "update_interval": 20,
    "isometry_steps": 200,
    "transfer_epochs": 1,
    "mask_interval": 50,
}
REQUIRED = {"ticket-transfer": {"source_optimiser": "adam"}}
# A lone round of a ticket would be one-shot; a long chain is left to the method that is compared in full.
OTHER_ROUNDS = 2


@dataclass(frozen=True)
class Job:
    """One training, or one chain of them.

    Attributes:
        method: its name.
        level: the sparsity.
        seed: of everything that is drawn.
    """

    method: str
    level: float
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.method}-{self.level}-{self.seed}"


def jobs(seeds: int) -> Iterator[Job]:
    """Yield the trainings, those first without which the table would have holes."""
    chains = [name for name in TWELVE if chained(METHODS[name])]
    for seed in range(seeds):
        yield Job(DENSE, 0.0, seed)
        yield from (Job(name, level, seed) for name in TWELVE[1:] if name not in chains for level in LEVELS)
        yield from (Job(name, LEVELS[-1], seed) for name in chains)
        if seed == 0:
            yield from (Job(name, OTHERS_AT, 0) for name in METHODS if name not in TWELVE)


def chained(method: Method) -> bool:
    """Whether the levels of a method lie on one chain of trainings."""
    return method.paradigm == "LTH" and method.schedules[0] == "iterative"


def continues(method: Method) -> bool:
    """Whether a method begins at trained weights and needs no training of its own before the mask."""
    if method.plan == "selected-from-trained":
        return True
    return method.paradigm == "PaT" and (method.prepares == "none" or method.plan == "pruned-while-tuning")


def recipe(job: Job, budget: dict[str, int], data: str, runs: Path, slower: int = 1) -> dict[str, Any]:
    """Return the recipe of a job, its learning rate divided by ``slower``."""
    method = METHODS[job.method]
    one: dict[str, Any] = {"name": job.method, "method": job.method}
    train = {**TRAIN, "epochs": budget["epochs"], **method.training}
    train["learning_rate"] /= slower
    if method.mask_from is not None:
        if method.sparsity is None:
            one["sparsity"] = job.level
        one["structure"] = structure(method, job.level)
        options = {key: value for key, value in OPTIONS.items() if key in method.defaults}
        one["options"] = options | REQUIRED.get(job.method, {})
    if chained(method):
        one["rounds"] = budget["chain_rounds"] if job.method in TWELVE else OTHER_ROUNDS
    model = NETWORK
    if continues(method):
        model = str(runs / f"{DENSE}-0.0-{job.seed}" / "checkpoint.safetensors")
        train["epochs"] = 0
    if method.paradigm == "PaT":
        # The same fine-tuning for all: a default of many rounds would have it in each.
        one["schedule"] = "one-shot"
        one["fine_tune"] = {**FINE_TUNE, "epochs": budget["fine_tune"]}
    elif method.plan == "selected-from-trained":
        # Its scores learn at the rate of edge-popup's.
        one["fine_tune"] = {
            "epochs": budget["fine_tune"],
            "learning_rate": METHODS["edge-popup"].training["learning_rate"],
        }
    return {
        "version": 1,
        "model": model,
        "data": data,
        "seed": job.seed,
        "threads": 1,
        "train": train,
        "runs": [one],
    }


def structure(method: Method, level: float) -> str:
    """Return single weights where the method knows them, else its own structure at that level."""
    if "element" in method.structures:
        return "element"
    return f"1:{round(1 / (1 - level))}" if method.structures[0] == "N:M" else method.structures[0]


def channels_last(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Lay the inputs of every convolution out channels last: a third off each training, by the layout alone."""
    if not isinstance(module, torch.nn.Conv2d):
        return None
    images = inputs[0]
    _, channels, height, width = images.shape
    try:
        if channels == 1:
            # Already in that order; only the strides have to say so.
            return (images.as_strided(images.shape, (height * width, 1, width, 1)),)
        return (images.contiguous(memory_format=torch.channels_last),)
    except RuntimeError:
        return None  # under a functional transform, which knows one layout only


def accuracy(checkpoint: SparseCheckpoint, data: Any) -> float:
    """Return the test accuracy of a checkpoint."""
    source = source_from_record(checkpoint.metadata.model)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    value = test_accuracy(module, data, torch.device("cpu"))
    assert value is not None
    return value


def outcome(job: Job, budget: dict[str, int], data: str, runs: Path) -> dict[str, Any]:
    """Train; return accuracy, sparsity and operations by level, or why the method refuses this network.

    Where the loss diverges the training is begun again at a tenth of the learning rate, which the outcome tells.
    """
    begin = time.process_time()
    folder, slower = runs / job.name, 1
    try:
        try:
            checkpoint = trained(job, budget, data, runs)
        except TrainingDivergedError:
            slower = 10
            checkpoint = trained(job, budget, data, runs, slower)
    except SparsepackError as error:
        return {"refused": str(error)}
    masks = [tensor.mask for tensor in checkpoint.tensors.values() if tensor.mask is not None]
    kept, total = sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)
    cost = checkpoint.metadata.training
    found: dict[str, Any] = {
        "accuracy": accuracy(checkpoint, load_data(data)),
        "sparsity": 1 - kept / total if total else 0.0,
        "flops": 0 if cost is None else cost.training_flops + cost.mask_search_flops,
        "seconds": round(time.process_time() - begin, 1),
        "empty": [name for name, tensor in checkpoint.tensors.items() if tensor.mask is not None and not tensor.kept],
    }
    if slower > 1:
        found["slower"] = slower
    if chained(METHODS[job.method]) and job.method in TWELVE:
        found["chain"] = chain(folder / "log.jsonl", budget["chain_rounds"])
    return found


def trained(job: Job, budget: dict[str, int], data: str, runs: Path, slower: int = 1) -> SparseCheckpoint:
    """Return the checkpoint of a job's run; one that was begun with other settings is begun anew."""
    request = load_recipe(recipe(job, budget, data, runs, slower)).prune_recipes()[0]
    try:
        return prune(request, runs / job.name)
    except OutputExistsError:
        return prune(request, runs / job.name, force=True)


def chain(log: Path, rounds: int) -> dict[str, Any]:
    """Return accuracy and sparsity at the levels that a chain passed, from the run's log."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    stages = {event["stage"]: event for event in events if event["event"] == "stage"}
    masks = {event["stage"]: event for event in events if event["event"] == "mask"}
    found = {}
    for number, level in CHAINS[rounds].items():
        mask = masks[f"mask {number}/{rounds}"]
        found[str(level)] = {
            "accuracy": stages[f"retraining {number}/{rounds}"]["accuracy"],
            "sparsity": 1 - mask["kept"] / mask["total"],
        }
    return found


def gather(known: dict[Job, dict[str, Any]], seeds: int) -> dict[str, Any]:
    """Return the record's figures: the twelve by level, the others, and what is missing."""
    twelve: dict[str, Any] = {}
    for method in TWELVE:
        levels = {}
        for level in (0.0,) if method == DENSE else LEVELS:
            rows = [row for seed in range(seeds) if (row := at_level(known, method, level, seed)) is not None]
            if rows:
                values = [round(row["accuracy"], 4) for row in rows]
                levels[str(level)] = {
                    "mean": round(statistics.mean(values), 5),
                    "low": min(values),
                    "high": max(values),
                    "values": values,
                    "sparsity": round(statistics.mean(row["sparsity"] for row in rows), 5),
                }
        twelve[method] = {"paradigm": METHODS[method].paradigm, "levels": levels}
    dense = known.get(Job(DENSE, 0.0, 0), {"flops": 0})["flops"]
    others = {}
    for job, row in known.items():
        if job.method in TWELVE:
            continue
        declared = METHODS[job.method]
        entry: dict[str, Any] = {"paradigm": declared.paradigm, "structure": structure(declared, job.level)}
        if "refused" in row:
            entry["refused"] = row["refused"]
        else:
            flops = row["flops"] + (dense if continues(declared) else 0)
            entry |= {"accuracy": round(row["accuracy"], 4), "sparsity": round(row["sparsity"], 5)}
            entry["cost"] = round(flops / dense, 2) if dense else None
            # What is frozen computes all the same.
            entry["empty"] = row["empty"] if declared.zeroes else []
            entry |= {"slower": row["slower"]} if "slower" in row else {}
        others[job.method] = entry
    missing = [job.name for job in jobs(seeds) if job not in known]
    return {"twelve": twelve, "others": others, "missing": missing}


def at_level(known: dict[Job, dict[str, Any]], method: str, level: float, seed: int) -> dict[str, Any] | None:
    """Return one entry of the twelve, or None while it is missing."""
    if chained(METHODS[method]):
        row = known.get(Job(method, LEVELS[-1], seed))
        return None if row is None else row["chain"][str(level)]
    return known.get(Job(method, level, seed))


def main() -> None:
    """Train what is missing, then write the record and draw the picture."""
    options = arguments(
        __doc__,
        data="npz:mnist10k.npz",
        runs="out/comparison",
        figure="docs/comparison.svg",
        minutes=60.0,
        full=False,
    )
    budget = FULL if options.full else SHORT
    runs = Path(options.runs + ("-full" if options.full else ""))
    runs.mkdir(parents=True, exist_ok=True)
    hook: Any = channels_last  # the stub says that a hook returns nothing
    torch.nn.modules.module.register_module_forward_pre_hook(hook)
    begin = time.monotonic()
    known: dict[Job, dict[str, Any]] = {}
    for job in jobs(budget["seeds"]):
        file = runs / f"{job.name}.json"
        if not file.exists():
            if not options.full and time.monotonic() - begin > 60 * options.minutes:
                continue
            found = outcome(job, budget, options.data, runs)
            write_bytes(file, json.dumps(found, indent=1, sort_keys=True).encode())
            print(job.name, json.dumps(found), flush=True)
        known[job] = json.loads(file.read_text())
    figures = gather(known, budget["seeds"])
    draw(figures["twelve"], Path(options.figure))
    write(options.json, {**figures, "budget": budget, "train": TRAIN, "fine_tune": FINE_TUNE})


if __name__ == "__main__":
    main()
