"""``analyze``: finished runs in, one record of everything that sets them apart out.

The record is plain data (schema ``sparsepack.analysis/1``): see :func:`analyze`. What cannot be had for these runs is
left out, and a note says why and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError, unknown_name
from ...files import Array
from ..mask import empty_layers
from ..methods import METHODS
from .masks import constant_class, density, jaccard_distance, pooled_distance, structure_index
from .pareto import pareto_front
from .predictions import accuracy, agreement, ensemble_accuracy
from .runs import History, open_runs
from .stability import mean_change, mean_of, rank_correlation

if TYPE_CHECKING:
    from .networks import Networks

SCHEMA = "sparsepack.analysis/1"
SENSITIVITIES = (0.5, 0.8, 0.9, 0.95)
CALIBRATION = 512


def analyze(
    paths: Sequence[Path],
    *,
    data: str | None = None,
    model: str | None = None,
    reference: str | None = None,
    iteration: int | None = None,
    ensembles: Sequence[str] = (),
    sensitivity: bool = False,
) -> tuple[dict[str, Any], list[History]]:
    """Compare finished runs of one network.

    Args:
        paths: RUN folders or checkpoints.
        data: what predictions are made for; None: the runs' own; ``none``: no predictions.
        model: the user's own model that the runs came from; it is imported only when it is named here.
        reference: the run whose masks the others' are compared with, by name; None: the first.
        iteration: the round of overlaps and agreements; None: the last that all runs have.
        ensembles: groups of runs, each as names joined by commas; all runs together come by themselves.
        sensitivity: also measure what each layer's sparsity costs.

    Returns:
        the record, and the runs that were opened. The record holds ``schema``; ``runs``, each with ``name``, ``path``,
        ``method``, ``structure``, ``seed``, ``total``, ``rounds`` (``round``, ``kept``, ``live``, ``unchanged``,
        ``sparsity``, ``effective_sparsity``, ``accuracy``, ``constant``, ``layers``), ``stability`` and ``warnings``;
        ``reference`` and ``distances`` from it, by run and layer, a number a round; ``iteration``; ``overlap`` and
        ``agreement`` at it (``names``, ``matrix``); ``ensembles``; ``pareto``; ``sensitivity``; ``notes``.

    Raises:
        UsageError: runs of different networks or data, a name that is no run, a round that is not there.
        FileFormatError: a file is damaged.
    """
    runs = open_runs(paths)
    names = [run.name for run in runs]
    first = _named(runs, reference) if reference is not None else runs[0]
    groups = [_group(text, runs) for text in ensembles]
    if len(runs) > 1:
        groups.insert(0, runs)
    shared = [number for number in _numbers(runs[0]) if all(number in _numbers(run) for run in runs)]
    at = _iteration(iteration, shared)
    notes: list[str] = [_no_rounds(run) for run in runs if run.rounds[0].number is None]
    notes += [
        f"the masks of {run.name} say what is trained; the rest is frozen, not removed."
        for run in runs
        if _freezes(run)
    ]
    networks = _networks(runs, model, data, notes)
    outputs = {} if networks is None else {run.name: networks.outputs(run) for run in runs}
    labels = None if networks is None or networks.data is None else networks.data.test()[1].numpy()
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "runs": [_run(run, networks, outputs.get(run.name), labels) for run in runs],
        "reference": first.name,
        "rounds": shared,
        "distances": {run.name: _distances(first, run, shared) for run in runs if run is not first},
        "iteration": at,
        "overlap": {"names": names, "matrix": [[_apart(a, b, at) for b in runs] for a in runs]},
        "agreement": None,
        "ensembles": [],
        "notes": notes,
    }
    if labels is not None:
        record["agreement"] = {
            "names": names,
            "examples": len(labels),
            "matrix": [
                [agreement(*(outputs[run.name][_place(run, at)] for run in (a, b))) for b in runs] for a in runs
            ],
        }
        record["ensembles"] = [_ensemble(group, shared, outputs, labels) for group in groups]
    record["pareto"] = _pareto(record["runs"])
    record["sensitivity"] = {}
    if sensitivity:
        if networks is None or networks.data is None:
            raise UsageError("the sensitivity of layers needs the network and data; name them with --model and --data.")
        record["sensitivity"] = {run.name: networks.sensitivity(run, SENSITIVITIES, CALIBRATION) for run in runs}
    return record, runs


def _networks(runs: Sequence[History], model: str | None, data: str | None, notes: list[str]) -> Networks | None:
    """Return the network and the data, or None with a note that says why."""
    kind, text = runs[0].checkpoint.metadata.model.kind, runs[0].checkpoint.metadata.model.text
    if kind == "onnx":
        notes.append("the runs are of an ONNX file, so only their masks and weights are compared.")
        return None
    if kind == "factory" and model is None:
        notes.append(
            f"predictions and dead weights need the network, code of yours that runs only when you name it: give "
            f"--model {text}."
        )
        return None
    sources = {run.data for run in runs}
    if data is None and len(sources) > 1:
        raise UsageError(
            f"the runs were trained on different data ({', '.join(sorted(sources))}); name what is to be predicted "
            "with --data, or give --data none."
        )
    chosen = data if data is not None else sources.pop()
    if chosen == "none":
        notes.append("there is no data, so nothing is predicted; name some with --data.")
    from .networks import Networks

    return Networks(runs[0], model, chosen)


def _run(
    run: History, networks: Networks | None, outputs: Sequence[Array] | None, labels: Array | None
) -> dict[str, Any]:
    recipe = run.checkpoint.metadata.recipe
    total = sum(mask.size for mask in run.rounds[-1].masks.values())
    rounds = []
    frozen = _freezes(run)
    for place, each in enumerate(run.rounds):
        live = None if networks is None or frozen else networks.live(each.masks)
        row: dict[str, Any] = {
            "round": each.number,
            "kept": each.kept,
            "sparsity": 1 - each.kept / total,
            "live": None if live is None else sum(int(np.count_nonzero(mask)) for mask in live.values()),
            "unchanged": _unchanged(run, place),
            "layers": [
                {
                    "name": name,
                    "shape": list(mask.shape),
                    "kept": int(np.count_nonzero(mask)),
                    "density": density(mask),
                    "live": None if live is None else int(np.count_nonzero(live[name])),
                    "input_structure": structure_index(mask, 1) if mask.ndim > 1 else None,
                }
                for name, mask in each.masks.items()
            ],
        }
        row["effective_sparsity"] = None if live is None else 1 - row["live"] / total
        if outputs is not None and labels is not None:
            row["accuracy"] = accuracy(outputs[place], labels)
            row["constant"] = constant_class(outputs[place].argmax(axis=1))
        else:
            row["accuracy"] = row["constant"] = None
        rounds.append(row)
    return {
        "name": run.name,
        "path": str(run.path),
        "method": recipe.get("method"),
        "structure": recipe.get("structure"),
        "seed": recipe.get("seed"),
        "total": total,
        "rounds": rounds,
        "stability": _stability(run),
        "warnings": _collapses(run, rounds),
    }


def _freezes(run: History) -> bool:
    """Return whether what the masks leave out keeps its initial value, so that no path is cut."""
    method = METHODS.get(str(run.checkpoint.metadata.recipe.get("method")))
    return method is not None and method.frozen


def _collapses(run: History, rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for everything that has collapsed, with the rounds in which it has."""
    when: dict[str, list[int]] = {}
    for place, row in enumerate(rounds):
        found = [f"'{name}' keeps no weight" for name in empty_layers(run.rounds[place].masks)]
        found += [
            f"no kept weight of '{layer['name']}' leads to an output"
            for layer in row["layers"]
            if layer["live"] == 0 and layer["kept"]
        ]
        if row["constant"] is not None:
            found.append(f"every prediction is class {row['constant']}")
        for what in found:
            when.setdefault(what, []).append(place)
    return [f"{what}{_when(run, places)}." for what, places in when.items()]


def _when(run: History, places: Sequence[int]) -> str:
    last = len(run.rounds) - 1
    if last == 0:
        return ""
    numbers = [run.rounds[place].number for place in places]
    if list(places) == list(range(places[0], last + 1)) and len(places) > 1:
        return f" from round {numbers[0]} on"
    return f" at round {', '.join(map(str, numbers))}"


def _unchanged(run: History, place: int) -> int | None:
    from .effective import unchanged_weights

    begin = run.begin(place)
    return None if begin is None else unchanged_weights(begin, run.rounds[place].read(), run.rounds[place].masks)


def _stability(run: History) -> dict[str, dict[str, float | None]]:
    """Return the mean change and rank correlation of each layer's weights from round to round."""
    changes: dict[str, list[float | None]] = {name: [] for name in run.shapes}
    ranks: dict[str, list[float | None]] = {name: [] for name in run.shapes}
    before: Mapping[str, Array] | None = None
    for place, each in enumerate(run.rounds):
        after = each.read() if len(run.rounds) > 1 else {}
        if before is not None:
            for name, mask in each.masks.items():
                alive = mask & run.rounds[place - 1].masks[name]
                changes[name].append(mean_change(before[name], after[name], alive))
                ranks[name].append(rank_correlation(before[name], after[name], alive))
        before = after
    return {
        name: {"mean_change": mean_of(changes[name]), "rank_correlation": mean_of(ranks[name])}
        for name in changes
        if changes[name]
    }


def _distances(first: History, other: History, shared: Sequence[int | None]) -> dict[str, list[float]]:
    pairs = [(first.rounds[_place(first, n)], other.rounds[_place(other, n)]) for n in shared]
    return {name: [jaccard_distance(a.masks[name], b.masks[name]) for a, b in pairs] for name in first.shapes}


def _apart(first: History, second: History, at: int | None) -> float:
    return pooled_distance(first.rounds[_place(first, at)].masks, second.rounds[_place(second, at)].masks)


def _ensemble(
    group: Sequence[History], shared: Sequence[int | None], outputs: Mapping[str, Sequence[Array]], labels: Array
) -> dict[str, Any]:
    found = [ensemble_accuracy([outputs[run.name][_place(run, number)] for run in group], labels) for number in shared]
    return {"names": [run.name for run in group], "accuracy": found}


def _pareto(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    points = [
        {"run": run["name"], "round": row["round"], "kept": row["kept"], "accuracy": row["accuracy"]}
        for run in runs
        for row in run["rounds"]
        if row["accuracy"] is not None
    ]
    return [points[place] for place in pareto_front([(point["kept"], point["accuracy"]) for point in points])]


def _numbers(run: History) -> list[int | None]:
    return [each.number for each in run.rounds]


def _place(run: History, number: int | None) -> int:
    """Return where round ``number`` is; the last one where the runs share none."""
    numbers = _numbers(run)
    return numbers.index(number) if number in numbers else len(numbers) - 1


def _iteration(asked: int | None, shared: Sequence[int | None]) -> int | None:
    if asked is None:
        return shared[-1] if shared else None
    if asked not in shared:
        known = [number for number in shared if number is not None]
        has = f"rounds 0 to {known[-1]}" if known else "no round"
        raise UsageError(f"iteration {asked} is not there: the runs have {has} in common.")
    return asked


def _named(runs: Sequence[History], name: str) -> History:
    for run in runs:
        if name in (run.name, str(run.path)):
            return run
    raise unknown_name("run", name, [run.name for run in runs])


def _group(text: str, runs: Sequence[History]) -> list[History]:
    return [_named(runs, name.strip()) for name in text.split(",")]


def _no_rounds(run: History) -> str:
    return (
        f"{run.path} holds no rounds, so only its result is looked at; a method that has the option keeps them with "
        "--option keep_rounds=true."
    )
