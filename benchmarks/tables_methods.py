"""Sections of docs/benchmarks.md about the catalogue's methods."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]
PARADIGMS = ("baseline", "PaT", "LTH", "PaI (sparse training)", "PaI (sparse selection)", "DST", "freezing")


def comparison(figures: Figures) -> list[str]:
    """Twelve methods at three sparsities, then all others at one."""
    budget, train = figures["budget"], figures["train"]
    lines = [
        f"LeNet-5-Caffe, 8,000 training and 2,000 test digits of MNIST, {budget['epochs']} epochs of batches of "
        f"{train['batch_size']}, {budget['fine_tune']} more of fine-tuning where a method prunes trained weights: a "
        "small budget, the same for all, untuned by method except where a paper has its own training. Test accuracy, "
        f"mean and range over up to {budget['seeds']} seeds.",
        "",
        "![accuracy against sparsity](comparison.svg)",
        "",
        "| method | paradigm | 90 % | 95 % | 98 % |",
        "|---|---|---|---|---|",
    ]
    for name, row in _by_paradigm(figures["twelve"]):
        if row["paradigm"] == "baseline":
            dense = "".join(f"{_accuracy(level)} (nothing is pruned)" for level in row["levels"].values())
            lines.append(f"| {name} | baseline | {dense} | | |")
            continue
        cells = [_level(row["levels"], level) for level in ("0.9", "0.95", "0.98")]
        lines.append(f"| {name} | {row['paradigm']} | {' | '.join(cells)} |")
    lines += [
        "",
        "Every other method at 95 %, one seed. Cost: operations of the whole way to the result over those of the dense "
        "training.",
        "",
        "| method | paradigm | structure | sparsity | accuracy | cost |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in _by_paradigm(figures["others"]):
        if "refused" in row:
            lines.append(f"| {name} | {row['paradigm']} | {row['structure']} | - | no result: {row['refused']} | - |")
        else:
            cost = "-" if row["cost"] is None else f"{row['cost']:.2f}x"
            remarks = f" (nothing left of {', '.join(row['empty'])})" if row["empty"] else ""
            remarks += f" (rate / {row['slower']}: at the others' rate the loss diverged)" if "slower" in row else ""
            lines.append(
                f"| {name} | {row['paradigm']} | {row['structure']} | {100 * row['sparsity']:.1f} % "
                f"| {100 * row['accuracy']:.2f} %{remarks} | {cost} |"
            )
    if figures["missing"]:
        missing = ", ".join(figures["missing"])
        lines += ["", f"Not trained within the time limit of this record ({len(figures['missing'])}): {missing}."]
    return lines


def _by_paradigm(methods: Figures) -> list[tuple[str, Figures]]:
    return sorted(methods.items(), key=lambda item: (PARADIGMS.index(item[1]["paradigm"]), item[0]))


def _level(levels: Figures, level: str) -> str:
    if level not in levels:
        return "-"
    row = levels[level]
    # A method that finds its sparsity itself is shown with what it found.
    off = abs(row["sparsity"] - float(level)) > 0.001
    return _accuracy(row) + (f" at {100 * row['sparsity']:.1f} %" if off else "")


def _accuracy(row: Figures) -> str:
    if len(row["values"]) == 1:
        return f"{100 * row['mean']:.2f} %"
    return f"{100 * row['mean']:.2f} % ({100 * row['low']:.2f}-{100 * row['high']:.2f})"
