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

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = plt.get_cmap("tab20")
    for number, (name, row) in enumerate(methods.items()):
        levels = row["levels"]
        if row["paradigm"] == "baseline":
            for level in levels.values():
                axes.axhline(100 * level["mean"], color="black", linestyle=":", label=name)
            continue
        kept = [100 * (1 - float(level)) for level in levels]
        means = [100 * level["mean"] for level in levels.values()]
        spread = [[100 * (r["mean"] - r["low"]) for r in levels.values()]]
        spread.append([100 * (r["high"] - r["mean"]) for r in levels.values()])
        axes.errorbar(
            kept, means, yerr=spread, marker=MARKERS[row["paradigm"]], color=colours(number), capsize=2, label=name
        )
    axes.set(xscale="log", xlabel="kept weights (% of prunable)", ylabel="test accuracy (%)")
    axes.set_xticks([10, 5, 2], labels=["10", "5", "2"], minor=False)
    axes.set_xticks([], minor=True)
    axes.invert_xaxis()
    axes.set_title("LeNet-5-Caffe on 8,000 MNIST digits: mean and range over seeds")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
