"""Iterative pruning of a LeNet in eight ways: 20 rounds of 20 % of what each layer has left, set back to the start.

After On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks (2020). The paper trains on the
60,000 images of MNIST for 30 epochs a round at a learning rate of 0.01, with random crops and flips that it does not
mention. Here 8,000 images are trained on and 2,000 tested, with the same crops and flips; a rate of 0.1 makes up for
some of the steps, and --epochs says how many those are. The default takes about an hour on one core with one seed;
--full runs the paper's five. Three more chains prune single weights: two that train one and 30 epochs a round (appendix
C), one that keeps its weights (finetuning).

Runs are kept under --runs and taken up again, so that the command can be interrupted; --prepare ends before anything is
analysed, --finished analyses the chains that are finished and runs none. ``compress analyze`` draws the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import arguments, write
from tables_chain import FIGURES
from torch import nn

from sparsepack.compressor.analysis.runs import History
from sparsepack.compressor.analysis.study import analyze
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.files import write_bytes
from sparsepack.models.data import load_data
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.zoo.lenet import LeNetS4
from sparsepack.runtimes.report.analysis_figures import analysis_figures

ROUNDS = 20
# A fifth of what is left, 20 times: in as many rounds as the default rate takes.
SPARSITY = 0.98847
# In the order in which they are run; the last round of each costs as much as the first.
CHAINS: dict[str, dict[str, Any]] = {
    "l1-unstructured": {"structure": "element"},
    "fc-only": {"structure": "fully-connected"},
    "hybrid": {"structure": "hybrid"},
    "l1-structured": {"structure": "input-channel"},
    "random-unstructured": {"method": "random-local-ticket", "structure": "element"},
    "one-epoch": {"structure": "element", "train": {"epochs": 1}},
    "random-structured": {"method": "random-local-ticket", "structure": "input-channel"},
    "l2-structured": {"structure": "input-channel", "options": {"norm": "l2"}},
    "l-minus-inf-structured": {"structure": "input-channel", "options": {"norm": "l-minus-inf"}},
    "finetuned": {"structure": "element", "options": {"kept": "finetune"}},
    "thirty-epochs": {"structure": "element", "train": {"epochs": 30}},
}
# Beside the paper's eight techniques, for the first seed only, and the chains whose masks theirs are held against.
STUDIES = {"one-epoch": "thirty-epochs", "finetuned": "l1-unstructured"}
TECHNIQUES = tuple(name for name in CHAINS if name not in (*STUDIES, "thirty-epochs"))
# The paper's second ensemble, and the run that masks are compared with.
BEST = ("hybrid", "fc-only", "l1-unstructured")
REFERENCE = "l2-structured"


class Quick(nn.Module):
    """The zoo's ``lenet-s4``, computed faster: ReLU after the pool, which gives the same values, and channels last."""

    def __init__(self, network: LeNetS4) -> None:
        super().__init__()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
        self.conv1, self.conv2 = network.conv1, network.conv2
        self.fc1, self.fc2, self.fc3 = network.fc1, network.fc2, network.fc3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        for layer in (self.conv1, self.conv2):
            x = F.relu(F.max_pool2d(layer(x), 2))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class QuickSource(TorchSource):
    """The zoo's network, computed as :class:`Quick` does."""

    def build(self) -> nn.Module:
        """Return a fresh module in training mode."""
        network = super().build()
        assert isinstance(network, LeNetS4)
        return Quick(network)


def recipe(name: str, data: str, seed: int, epochs: int) -> dict[str, Any]:
    """Return the recipe of one chain."""
    given = CHAINS[name]
    train = {
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "rate_schedule": "constant",
    }
    options = {"keep_rounds": True, **given.get("options", {})}
    return {
        "version": 1,
        "model": "lenet-s4",
        "data": f"npz:{data}",
        "seed": seed,
        "threads": 1,
        "train": {**train, "batch_size": 32, "augment": "crop-flip", "epochs": epochs},
        "runs": [{"name": name, "method": "local-ticket", "sparsity": SPARSITY, **given, "options": options}],
    }


def chains(options: Any) -> list[tuple[str, int]]:
    """Return every chain as (technique, seed), the first seed's first."""
    seeds = range(1, 5 if options.full else 1)
    return [(name, 0) for name in CHAINS] + [(name, seed) for seed in seeds for name in TECHNIQUES]


def folder(runs: str, name: str, seed: int) -> Path:
    """Return where a chain's run lies."""
    return Path(runs) / f"seed-{seed}" / name


def figures_of(records: dict[int, dict[str, Any]], studies: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Return the figures of the record: means over the seeds of what ``compress analyze`` found."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in records.values():
        for run in record["runs"]:
            runs.setdefault(run["name"], []).append(run)
    found: dict[str, Any] = {"epochs": epochs, "seeds": len(records), "studies": studies}
    for key in ("accuracy", "kept", "live", "unchanged"):
        found[key] = {name: [_mean(rows) for rows in _by_round(each, key)] for name, each in runs.items()}
    first = records[0]
    found["total"] = first["runs"][0]["total"]
    found["constant_from"] = {run["name"]: _constant_from(run) for run in first["runs"]}
    found["stability"] = {run["name"]: run["stability"] for run in first["runs"]}
    found["agreement"] = first["agreement"]
    found["distances"] = {"from": first["reference"], **first["distances"]}
    found["input_structure"] = {
        run["name"]: [row["layers"][1]["input_structure"] for row in run["rounds"]] for run in first["runs"]
    }
    for label, group in (("all", set(TECHNIQUES)), ("best three", set(BEST))):
        series = [e["accuracy"] for r in records.values() for e in r["ensembles"] if set(e["names"]) == group]
        if series:
            found["accuracy"][label] = [_mean(rows) for rows in zip(*series, strict=True)]
    return found


def _by_round(runs: list[dict[str, Any]], key: str) -> list[tuple[float, ...]]:
    return list(zip(*([row[key] for row in run["rounds"]] for run in runs), strict=True))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 5)


def _constant_from(run: dict[str, Any]) -> int | None:
    """Return the first of the rounds at the end that all predict one class only."""
    numbers = [row["round"] for row in run["rounds"] if row["constant"] is None]
    last = run["rounds"][-1]["round"]
    after = numbers[-1] + 1 if numbers else 0
    return after if after <= last else None


def draw(found: tuple[dict[str, Any], list[History]], place: Path, *names: str) -> None:
    """Write those figures of ``compress analyze`` that are called ``names`` and can be drawn of these runs."""
    figures = analysis_figures(*found)
    for name in names:
        if f"{name}.svg" in figures:
            write_bytes(place / f"{name}.svg", figures[f"{name}.svg"].encode())


def study(runs: str, name: str) -> dict[str, Any] | None:
    """Return how far a study's masks are from another chain's, by layer and round; None if one of them is not there."""
    paths = [folder(runs, each, 0) for each in (STUDIES[name], name)]
    if not all(finished(path) for path in paths):
        return None
    record, _ = analyze(paths, data="none")
    last = record["runs"][0]["rounds"][-1]["layers"]
    return {
        "from": STUDIES[name],
        "distances": record["distances"][name],
        "densities": {layer["name"]: layer["density"] for layer in last},
    }


def finished(path: Path) -> bool:
    """Return whether a chain has come to its end."""
    return (path / "checkpoint.safetensors").exists()


def report(options: Any, test_labels: Any) -> None:
    """Analyse the chains that are finished, draw the figures, write the record."""
    place = Path(options.figures)
    records = {}
    for seed in range(5 if options.full else 1):
        present = [path for name in TECHNIQUES if finished(path := folder(options.runs, name, seed))]
        names = [path.name for path in present]
        best = [",".join(BEST)] if set(names) >= set(BEST) else []
        reference = REFERENCE if REFERENCE in names else names[0]
        found = analyze(present, data=f"npz:{options.data}", reference=reference, iteration=18, ensembles=best)
        records[seed] = found[0]
        if seed == 0:
            draw(found, place, *(name for name in FIGURES if "masks" not in name))
            draw(analyze(present, data="none", iteration=8), place, "masks-conv2")
    studies = {name: far for name in STUDIES if (far := study(options.runs, name)) is not None}
    if studies:
        compared = [folder(options.runs, name, 0) for name in ("l1-unstructured", *studies)]
        draw(analyze(compared, data="none", iteration=8), place / "studies", "masks-conv2")
    figures = figures_of(records, studies, options.epochs)
    figures["constant"] = round(100 * float((test_labels == 1).mean()), 3)
    write(options.json, figures)


def main() -> None:
    """Run what is left of the chains, then analyse them and write the record."""
    options = arguments(
        __doc__,
        data="mnist10k.npz",
        runs="out/chain",
        figures="docs/chain",
        epochs=12,
        full=False,
        prepare=False,
        finished=False,
    )
    data = load_data(f"npz:{options.data}", augment="crop-flip")
    assert data is not None
    zoo = load_source("lenet-s4", options=data.model_options)
    assert isinstance(zoo, TorchSource)
    for name, seed in [] if options.finished else chains(options):
        source = QuickSource(zoo.record, zoo.brings_weights, zoo._make)
        request = load_recipe(recipe(name, options.data, seed, options.epochs)).prune_recipes()[0]
        prune(request, folder(options.runs, name, seed), source=source, data=data)
        print(name, seed, flush=True)
    if not options.prepare:
        report(options, data.test_labels)


if __name__ == "__main__":
    main()
