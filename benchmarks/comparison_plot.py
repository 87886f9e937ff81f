"""The picture of the comparison of methods: accuracy against sparsity, one line a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARKERS = {
    "PaT": "o",
    "LTH": "s",
    "PaI (sparse training)": "^",
    "PaI (sparse selection)": "v",
    "DST": "D",
    "freezing": "*",
}


def draw(methods: dict[str, Any], path: Path) -> None:
    """Draw mean and range over the seeds; the dense network is a horizontal line, a marker stands for a paradigm."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "sparsepack"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    colours = plt.get_cmap("tab20")
    ordered = sorted(methods.items(), key=lambda item: (item[1]["paradigm"] not in MARKERS, item[0]))
    for axes in panels:
        for number, (name, row) in enumerate(ordered):
            _line(axes, name, row, colours(number))
        axes.set(xscale="log", xlabel="kept weights (% of prunable)")
        axes.set_xticks([10, 5, 2], labels=["10", "5", "2"], minor=False)
        axes.set_xticks([], minor=True)
        axes.invert_xaxis()
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(fontsize="small", ncols=2, loc="lower left")
    panels[1].set(ylim=(85, 99), title="the same, from 85 % on")
    panels[0].set_title("mean and range over seeds")
    figure.suptitle("LeNet-5-Caffe on 8,000 MNIST digits")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _line(axes: Any, name: str, row: dict[str, Any], colour: Any) -> None:
    levels = list(row["levels"].values())
    if row["paradigm"] == "baseline":
        for level in levels:
            axes.axhline(100 * level["mean"], color="black", linestyle=":", label=name)
        return
    # Where a chain passes a level, not where it was asked to.
    kept = [100 * (1 - level["sparsity"]) for level in levels]
    means = [100 * level["mean"] for level in levels]
    below = [100 * (level["mean"] - level["low"]) for level in levels]
    above = [100 * (level["high"] - level["mean"]) for level in levels]
    marker = MARKERS[row["paradigm"]]
    axes.errorbar(kept, means, yerr=[below, above], marker=marker, color=colour, capsize=2, label=name)
