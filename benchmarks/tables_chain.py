"""The section of docs/benchmarks.md about iterative pruning of a LeNet, beside the figures that the paper printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Table 2 of On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks (2020): mean accuracy of
# five seeds after rounds 1 to 20; last the ensembles of all eight and of the best three.
NAMES = (
    "l2-structured",
    "l1-structured",
    "l1-unstructured",
    "hybrid",
    "random-unstructured",
    "random-structured",
    "l-minus-inf-structured",
    "fc-only",
    "all",
    "best three",
)
TABLE = """
 1 97.4 97.5 97.8 97.8 97.4 97.3 97.1 97.9 98.2 98.1
 2 97.2 97.0 97.7 97.6 97.0 96.9 96.9 97.8 98.2 97.9
 3 96.5 96.6 97.8 97.5 96.1 96.4 96.2 97.7 98.1 97.9
 4 95.8 95.6 97.9 97.6 95.6 95.1 95.4 97.8 97.9 97.9
 5 95.0 95.1 97.6 97.5 93.8 94.0 94.1 97.8 97.7 97.9
 6 94.2 93.8 97.6 97.4 92.2 92.9 93.3 97.6 97.6 97.7
 7 91.7 92.7 97.4 97.5 89.2 91.0 91.3 97.6 97.4 97.8
 8 89.5 90.9 97.3 97.4 45.8 88.2 88.9 97.5 97.2 97.7
 9 87.6 86.9 97.0 97.3 14.0 83.7 86.2 97.5 97.2 97.5
10 82.0 82.2 96.5 96.9 11.3 79.2 81.3 97.3 96.8 97.3
11 77.2 77.7 95.9 96.8 11.3 60.1 76.3 97.0 96.6 97.1
12 72.5 72.5 94.5 96.4 11.3 45.5 74.1 96.9 96.3 97.0
13 69.0 65.1 90.2 95.8 11.3 41.1 65.6 96.1 95.7 96.4
14 65.4 58.3 83.5 95.3 11.3 32.0 58.4 95.9 95.1 96.3
15 55.7 54.7 72.7 94.4 11.3 18.5 48.3 94.7 94.6 95.7
16 47.1 43.7 69.5 92.5 11.3 11.3 24.7 93.3 94.0 94.7
17 45.9 41.6 47.9 88.3 11.3 11.3 21.9 90.7 91.9 92.8
18 36.7 37.8 32.4 81.8 11.3 11.3 14.5 87.4 91.0 91.6
19 30.2 35.9 23.0 76.4 11.3 11.3 11.9 84.3 89.3 90.3
20 29.4 33.1 21.2 71.9 11.3 11.3 11.7 78.6 85.0 86.0
"""
PUBLISHED = {int(row.split()[0]): dict(zip(NAMES, row.split()[1:], strict=True)) for row in TABLE.split("\n") if row}
FIGURES = {
    "accuracy": "Accuracy by round",
    "effective-sparsity": "Accuracy by the weights that lead to an output",
    "jaccard-conv2": "Growth of the Jaccard distance from the masks of one run: second convolution",
    "jaccard-fc1": "The same: first fully connected layer",
    "masks-conv2": "Masks of the second convolution after eight rounds: rows are outputs, columns inputs",
    "studies/masks-conv2": "The same for chains that train one epoch a round, and that keep their weights",
    "evolution-l1-unstructured-fc3": "Weights of the last layer at the end of each round: L1 unstructured",
    "evolution-l1-structured-fc3": "The same: L1 structured",
    "evolution-random-unstructured-fc3": "The same: random unstructured",
    "agreement": "Test examples on which two runs agree, round 18",
}
SHOWN = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)


def published(name: str, number: int) -> float:
    """Return the paper's accuracy in percent after round 1 to 20."""
    return float(PUBLISHED[number][name])


def iterative_chain(figures: dict[str, Any]) -> list[str]:
    """Eight ways of pruning in rounds, ours beside the paper's."""
    accuracy = figures["accuracy"]
    names = [name for name in NAMES if name in accuracy]
    lines = [
        f"Accuracy in percent, ours (paper's). Ours: 8,000 images, {figures['epochs']} epochs a round at a learning "
        f"rate of 0.1, seeds: {figures['seeds']}, tested on 2,000 images; the paper's: 60,000 images, 30 epochs at "
        "0.01, five seeds, tested on 10,000. Both crop and flip the training images at random. A constant prediction "
        f"of the digit 1 is right in {figures['constant']:.2f} % here and 11.35 % there.",
        "",
        "| round | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for number in (0, *SHOWN):
        cells = [
            f"{100 * accuracy[name][number]:.1f}" + (f" ({published(name, number):.1f})" if number else "")
            for name in names
        ]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    missing = [name for name in NAMES if name not in accuracy]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    lines += ["", *_ordering(figures), "", *_sparsity(figures, names), "", *_studies(figures)]
    return lines + _figures()


def _figures() -> list[str]:
    """Show what ``compress analyze`` drew, where it is there."""
    found = []
    for name, caption in FIGURES.items():
        if Path("docs/chain", f"{name}.svg").exists():
            found += [f"![{caption}](chain/{name}.svg)", "", f"*{caption}*", ""]
    return found


def _ordering(figures: dict[str, Any]) -> list[str]:
    """Say whether the paper's ordering at high sparsity comes out."""
    accuracy = figures["accuracy"]
    means = {name: _mean([100 * value for value in rows[10:17]]) for name, rows in accuracy.items()}
    theirs = {name: _mean([published(name, number) for number in range(10, 17)]) for name in means}
    ranked = sorted(means, key=lambda name: -means[name])
    by_paper = sorted(theirs, key=lambda name: -theirs[name])
    lines = [
        "Mean accuracy of rounds 10 to 16, best first: "
        + ", ".join(f"{name} {means[name]:.1f}" for name in ranked)
        + ".",
        "The paper's: " + ", ".join(f"{name} {theirs[name]:.1f}" for name in by_paper) + ".",
    ]
    best = [name for name in ("fc-only", "hybrid", "l1-unstructured") if name in means]
    structured = [name for name in means if name.endswith("-structured")]
    holds = min(means[name] for name in best) > max(means[name] for name in structured)
    verdict = "comes out" if holds else "does not come out"
    lines.append(f"{', '.join(best)} above everything structured: {verdict} in these rounds.")
    above = [name for name in structured if means[name] > means.get("random-unstructured", 0.0)]
    lines.append(
        f"Structured above random unstructured: comes out for {', '.join(above) or 'none'}" + _others(structured, above)
    )
    when = figures["constant_from"].get("random-unstructured")
    if when is not None:
        lines.append(f"Random unstructured pruning predicts one class only from round {when} on (the paper's: 10).")
    return lines


def _others(names: list[str], found: list[str]) -> str:
    rest = [name for name in names if name not in found]
    if not rest:
        return "."
    return f"; not for {', '.join(rest)}, which with this little training predicts one class only by then, too."


def _sparsity(figures: dict[str, Any], names: list[str]) -> list[str]:
    lines = [
        "Explicitly pruned, and with what leads to no output any more, in percent:",
        "",
        "| round | " + " | ".join(name for name in names if name in figures["kept"]) + " |",
        "|---" * (1 + sum(name in figures["kept"] for name in names)) + "|",
    ]
    for number in (5, 10, 15, 20):
        cells = [
            f"{100 * (1 - figures['kept'][name][number] / figures['total']):.2f} / "
            f"{100 * (1 - figures['live'][name][number] / figures['total']):.2f}"
            for name in names
            if name in figures["kept"]
        ]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return lines


def _studies(figures: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    titles = {
        "one-epoch": "Masks after one epoch a round (appendix C) against",
        "finetuned": "Masks of a chain that keeps its weights (finetuning) against",
    }
    for name, title in titles.items():
        if name not in figures["studies"]:
            continue
        found = figures["studies"][name]
        lines += [
            f"{title} those of {found['from']}, Jaccard distance by round; two unrelated masks of the same density are "
            "about as far apart as the last column says:",
            "",
            "| layer | 1 | 2 | 5 | 10 | 20 | unrelated, 20 |",
            "|---|---|---|---|---|---|---|",
        ]
        for layer, distances in found["distances"].items():
            density = found["densities"][layer]
            cells = " | ".join(f"{distances[number]:.3f}" for number in (1, 2, 5, 10, 20))
            lines.append(f"| {layer} | {cells} | {1 - density / (2 - density):.3f} |")
        lines.append("")
    return lines


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
