"""The record of ``compress analyze`` as tables for people; runs are numbered once and then go by their numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .table import plain_table
from .units import digits, percent

_NONE = "-"


def analysis_text(record: Mapping[str, Any]) -> str:
    """Return every table of the record, then warnings and notes.

    Args:
        record: of :func:`sparsepack.compressor.analysis.study.analyze`.
    """
    runs = record["runs"]
    parts = [_runs(record), *_rounds(record), _layers(record)]
    if len(runs) > 1:
        parts += [_distances(record), _matrix(record, "overlap", "Jaccard distance of masks, all layers", 3)]
    if len(runs) > 1 and record["agreement"] is not None:
        count = record["agreement"]["examples"]
        parts.append(_matrix(record, "agreement", f"equal predictions of {count} test examples", 0))
    parts += [*_ensembles(record), *_stability(record), *_sensitivity(record), *_pareto(record)]
    lines = [f"warning: {run['name']}: {warning}" for run in runs for warning in run["warnings"]]
    lines += [f"note: {note}" for note in record["notes"]]
    return "\n\n".join(part for part in [*parts, "\n".join(lines)] if part)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], **sides: Collection[int]) -> str:
    """Return a table under a title that may be wider than it."""
    return f"{title}\n{plain_table('', columns, rows, **sides)}"


def _at(record: Mapping[str, Any]) -> str:
    return "" if record["iteration"] is None else f" at round {record['iteration']}"


def _row(record: Mapping[str, Any], run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the run's round at the iteration looked at, or its last."""
    found: Mapping[str, Any] = next(
        (row for row in run["rounds"] if row["round"] == record["iteration"]), run["rounds"][-1]
    )
    return found


def _runs(record: Mapping[str, Any]) -> str:
    columns = ("#", "run", "method", "structure", "kept", "sparsity", "effective", "unchanged", "accuracy")
    rows = []
    for number, run in enumerate(record["runs"], 1):
        row = _row(record, run)
        rows.append(
            (
                str(number),
                run["name"],
                run["method"] or _NONE,
                run["structure"] or _NONE,
                f"{row['kept']}",
                percent(row["sparsity"], 2),
                _share(row["effective_sparsity"]),
                _NONE if row["unchanged"] is None else str(row["unchanged"]),
                _share(row["accuracy"], 1),
            )
        )
    title = f"runs{_at(record)} (effective: less what leads to no output; unchanged: kept, and never moved)"
    return _table(title, columns, rows, right=(0, 4, 5, 6, 7, 8), fold=(1, 2))


def _rounds(record: Mapping[str, Any]) -> list[str]:
    """Return the accuracy by round, a column for each run, where rounds were kept."""
    rounds = record["rounds"]
    by_run = [{row["round"]: row["accuracy"] for row in run["rounds"]} for run in record["runs"]]
    if len(rounds) < 2 or not any(value is not None for found in by_run for value in found.values()):
        return []
    rows = [(str(number), *(_share(found.get(number), 1, "") for found in by_run)) for number in rounds]
    columns = ("round", *(str(number) for number in range(1, len(by_run) + 1)))
    return [_table("test accuracy by round (%)", columns, rows, right=range(len(columns)))]


def _layers(record: Mapping[str, Any]) -> str:
    runs = record["runs"]
    names = [layer["name"] for layer in runs[0]["rounds"][-1]["layers"]]
    rows = []
    for place, name in enumerate(names):
        layers = [_row(record, run)["layers"][place] for run in runs]
        rows.append((name, "x".join(map(str, layers[0]["shape"])), *(_live(layer) for layer in layers)))
    columns = ("layer", "shape", *(str(number) for number in range(1, len(runs) + 1)))
    title = f"kept weights by layer{_at(record)}, a column a run (in brackets: those leading to an output)"
    return _table(title, columns, rows, right=range(2, len(columns)), fold=(0,))


def _live(layer: Mapping[str, Any]) -> str:
    fewer = layer["live"] is not None and layer["live"] != layer["kept"]
    return f"{layer['kept']} ({layer['live']})" if fewer else str(layer["kept"])


def _distances(record: Mapping[str, Any]) -> str:
    place = record["rounds"].index(record["iteration"]) if record["iteration"] in record["rounds"] else None
    distances = record["distances"]
    layers = list(next(iter(distances.values())))
    if place is None:
        return ""
    rows = [(layer, *(f"{by_layer[layer][place]:.3f}" for by_layer in distances.values())) for layer in layers]
    numbers = [str(n) for n, run in enumerate(record["runs"], 1) if run["name"] != record["reference"]]
    title = f"Jaccard distance from the masks of {record['reference']}{_at(record)}, a column a run"
    return _table(title, ("layer", *numbers), rows, right=range(1, len(numbers) + 1), fold=(0,))


def _matrix(record: Mapping[str, Any], key: str, what: str, decimals: int) -> str:
    found = record[key]
    numbers = [str(number) for number in range(1, len(found["names"]) + 1)]
    rows = [
        (number, name, *(f"{value:.{decimals}f}" for value in row))
        for number, name, row in zip(numbers, found["names"], found["matrix"], strict=True)
    ]
    return _table(
        f"{what}{_at(record)}", ("#", "run", *numbers), rows, right=(0, *range(2, len(numbers) + 2)), fold=(1,)
    )


def _ensembles(record: Mapping[str, Any]) -> list[str]:
    if not record["ensembles"] or not record["rounds"]:
        return []
    place = record["rounds"].index(record["iteration"])
    rows = [(", ".join(each["names"]), _share(each["accuracy"][place], 1)) for each in record["ensembles"]]
    title = f"ensembles{_at(record)} (mean of the class probabilities)"
    return [_table(title, ("runs", "accuracy"), rows, right=(1,), fold=(0,))]


def _stability(record: Mapping[str, Any]) -> list[str]:
    rows = [
        (run["name"], layer, _number(found["mean_change"]), _number(found["rank_correlation"]))
        for run in record["runs"]
        for layer, found in run["stability"].items()
    ]
    if not rows:
        return []
    title = "stability from round to round, of weights that stay (mean |change|; rank correlation of |w|)"
    return [_table(title, ("run", "layer", "change", "rank"), rows, right=(2, 3), fold=(0, 1))]


def _sensitivity(record: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, layers in record["sensitivity"].items():
        base = layers[""][0]
        levels = [row["sparsity"] for row in next(rows for layer, rows in layers.items() if layer)]
        rows = [
            (layer, *(f"{row['loss'] - base['loss']:+.3f}" for row in found))
            for layer, found in layers.items()
            if layer
        ]
        title = f"sensitivity of {name}: loss above {base['loss']:.3f} when one layer alone loses more of its weights"
        columns = ("layer", *(percent(level, 0) for level in levels))
        parts.append(_table(title, columns, rows, right=range(1, len(columns)), fold=(0,)))
    return parts


def _pareto(record: Mapping[str, Any]) -> list[str]:
    if len(record["pareto"]) < 2:
        return []
    rows = [
        (
            str(point["kept"]),
            _share(point["accuracy"], 1),
            point["run"],
            _NONE if point["round"] is None else str(point["round"]),
        )
        for point in record["pareto"]
    ]
    title = "Pareto front: no other run or round has as few weights and is as accurate"
    return [_table(title, ("kept", "accuracy", "run", "round"), rows, right=(0, 1, 3), fold=(2,))]


def _share(value: float | None, decimals: int = 2, unit: str = " %") -> str:
    return _NONE if value is None else percent(value, decimals).removesuffix(" %") + unit


def _number(value: float | None) -> str:
    return _NONE if value is None else digits(value)


def named_files(figures: Sequence[str], folder: str) -> str:
    """Return one line about the figures that were written, or why there are none."""
    if not figures:
        return (
            f"no figures, so nothing is in {folder}: a single run has some only where its rounds were kept or it has "
            "convolutions."
        )
    return f"{len(figures)} figures in {folder}: {', '.join(figures)}"
