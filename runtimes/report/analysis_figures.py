"""The figures of ``compress analyze``: an SVG file each, from the record and the runs that it is of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np

from ...compressor.analysis.runs import History
from ...files import Array
from .figures import Line, Point, line_chart, scatter, standalone
from .figures.heatmap import heat_map
from .figures.kernels import kernel_pictures
from .figures.strands import strands

# Larger convolutions are no longer readable as pictures; the record holds their densities.
_LARGEST_PICTURE = 40_000
# Weight evolution is drawn for layers of up to so many weights; a sample of more says little.
_LARGEST_STRANDS = 10_000


def analysis_figures(record: Mapping[str, Any], runs: Sequence[History]) -> dict[str, str]:
    """Return the figures that these runs allow, by file name.

    accuracy, effective-sparsity: test accuracy by round, and by effective sparsity. jaccard-LAYER: distance of masks
    from the reference. agreement, overlap: heat maps at one round. masks-LAYER: convolutions at that round.
    evolution-RUN-LAYER: weights at the end of every round, for the smallest layers. pareto: weights against accuracy.

    Args:
        record: of :func:`sparsepack.compressor.analysis.study.analyze`.
        runs: as it opened them.
    """
    figures = {**_accuracy(record), **_jaccard(record), **_maps(record), **_masks(record, runs)}
    for run in runs:
        figures |= _evolution(run)
    return by_file({name: standalone(figure) for name, figure in figures.items()})


def by_file(figures: Mapping[str, str]) -> dict[str, str]:
    """Return figures by file name; names that differ in what a file name leaves out are told apart by a number."""
    files: dict[str, str] = {}
    for name, figure in figures.items():
        slug = _slug(name)
        numbered = (f"{slug}-{number}.svg" for number in count(2))
        files[next(file for file in chain([f"{slug}.svg"], numbered) if file not in files)] = figure
    return files


def _accuracy(record: Mapping[str, Any]) -> dict[str, str]:
    lines, effective, points = [], [], []
    for run in record["runs"]:
        rows = [row for row in run["rounds"] if row["accuracy"] is not None]
        points += [
            Point(f"{run['name']} {_round(row)}", row["kept"], 100 * row["accuracy"], run["name"]) for row in rows
        ]
        if len(rows) > 1:
            lines.append(Line(run["name"], [(row["round"], 100 * row["accuracy"]) for row in rows]))
            measured = [row for row in rows if row["live"]]
            effective.append(Line(run["name"], [(row["live"], 100 * row["accuracy"]) for row in measured]))
    found = {}
    label = "test accuracy (%)"
    if lines:
        found["accuracy"] = line_chart(lines, title="Accuracy by round", x_label="round", y_label=label)
        found["effective-sparsity"] = line_chart(
            effective,
            title="Accuracy by live weights",
            x_label="weights that reach an output",
            y_label=label,
            log_x=True,
        )
    if len(points) > 1 and all(point.x > 0 for point in points):
        found["pareto"] = scatter(points, title="Pareto front", x_label="kept weights", y_label=label, log_x=True)
    return found


def _jaccard(record: Mapping[str, Any]) -> dict[str, str]:
    rounds = record["rounds"]
    if len(rounds) < 2 or not record["distances"]:
        return {}
    layers = next(iter(record["distances"].values()))
    return {
        f"jaccard-{layer}": line_chart(
            [
                Line(name, [(number, value) for number, value in zip(rounds, by_layer[layer], strict=True) if number])
                for name, by_layer in record["distances"].items()
            ],
            title=f"Jaccard distance from the masks of {record['reference']}, {layer}",
            x_label="round",
            y_label="Jaccard distance",
            log_x=True,
            zero_y=True,
        )
        for layer in layers
    }


def _maps(record: Mapping[str, Any]) -> dict[str, str]:
    if len(record["runs"]) < 2:
        return {}
    at = "" if record["iteration"] is None else f", round {record['iteration']}"
    found = {
        "overlap": heat_map(
            record["overlap"]["names"],
            record["overlap"]["matrix"],
            title=f"Jaccard distance of masks, all layers{at}",
            show=lambda value: f"{value:.2f}",
        )
    }
    agreement = record["agreement"]
    if agreement is not None:
        title = f"Equal predictions of {agreement['examples']} test examples{at}"
        found["agreement"] = heat_map(agreement["names"], agreement["matrix"], title=title, show=lambda v: f"{v:.0f}")
    return found


def _masks(record: Mapping[str, Any], runs: Sequence[History]) -> dict[str, str]:
    at = record["iteration"]
    chosen = [next((each for each in run.rounds if each.number == at), run.rounds[-1]) for run in runs]
    found = {}
    for name, shape in runs[0].shapes.items():
        if len(shape) < 3 or int(np.prod(shape)) > _LARGEST_PICTURE:
            continue
        masks = [(run.name, each.masks[name]) for run, each in zip(runs, chosen, strict=True)]
        where = "" if at is None else f", round {at}"
        found[f"masks-{name}"] = kernel_pictures(masks, title=f"Kept weights (dark) of {name}{where}")
    return found


def _evolution(run: History) -> dict[str, str]:
    if len(run.rounds) < 2:
        return {}
    layers = [name for name, shape in run.shapes.items() if int(np.prod(shape)) <= _LARGEST_STRANDS]
    values: dict[str, list[Array]] = {name: [] for name in layers}
    for each in run.rounds:
        state = each.read()
        for name in layers:
            values[name].append(np.where(each.masks[name], state[name].astype(np.float64), np.nan).reshape(-1))
    rounds = [float(each.number or 0) for each in run.rounds]
    return {
        f"evolution-{run.name}-{name}": strands(
            np.stack(values[name]),
            rounds,
            title=f"Weights of {name} at the end of each round, {run.name}",
            x_label="round",
            y_label="weight",
        )
        for name in layers
    }


def _round(row: Mapping[str, Any]) -> str:
    return "" if row["round"] is None else str(row["round"])


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name.removesuffix(".weight")).strip("-").lower()
