"""Sections of docs/benchmarks.md about measuring itself."""

from __future__ import annotations

from typing import Any

from sparsepack.models.zoo import ZOO

Figures = dict[str, Any]
SPARSITIES = ("0", "0.5", "0.9")


def latency_trust(figures: Figures) -> list[str]:
    """ResNet-20 against itself and 5 % slowed down, on a busy machine."""
    count = figures["repetitions"]
    loads = figures["load_average"]
    covered, narrow, found = (figures[key] for key in ("covers_one", "narrower_than_4_percent", "slowdown_found"))
    burning = _plural(figures["burning_processes"], "process", "es")
    return [
        f"ResNet-20 in ONNX Runtime, {_plural(figures['threads'], 'thread')}, {count} repetitions of either pair, "
        f"beside {burning} that did nothing but count and whatever else ran: load average "
        f"{min(loads):.0f} to {max(loads):.0f}.",
        "",
        "| | of | target |",
        "|---|---|---|",
        f"| the same file on both sides: the 95 % interval covers 1.00 | {covered} of {count} | 45 of 50 |",
        f"| ... and is narrower than 4 % | {narrow} of {count} | all |",
        f"| a planted slowdown of 5 %: the interval lies below 1 | {found} of {count} | 45 of 50 |",
        "",
        f"Width of the interval: median {100 * figures['width_median']:.2f} %, nine in ten below "
        f"{100 * figures['width_p90']:.2f} %, largest {100 * figures['width_largest']:.2f} %.",
    ]


def prediction(figures: Figures) -> list[str]:
    """Bytes and latency before training against those after."""
    rows = [(name, sparsity, row) for name, levels in figures.items() for sparsity, row in levels.items()]
    packed = [abs(row["bytes_error"]["packed"]) for *_, row in rows]
    late = [abs(row["ms_error"]) for *_, row in rows]
    lines = [
        "What `--dry-run` said before the training, and by how much the run came to more or less. Networks marked "
        "with a star were trained on the embedded digits; the others are pruned as they begin, which the prediction "
        "knows: theirs check everything but the training. Targets: bytes within 2 % "
        f"({sum(error <= 0.02 for error in packed)} of {len(packed)} `packed` files), latency in ONNX Runtime within "
        f"25 % ({sum(error <= 0.25 for error in late)} of {len(late)}).",
        "",
        "| network | sparsity | `packed` predicted | came to | `onnx` came to | latency predicted | came to |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, sparsity, row in rows:
        star = " *" if row["trained"] else ""
        lines.append(
            f"| {name}{star} | {100 * float(sparsity):.0f} % | {row['predicted_bytes']['packed']:,} | "
            f"{100 * row['bytes_error']['packed']:+.1f} % | {100 * row['bytes_error']['onnx']:+.1f} % | "
            f"{row['predicted_ms']:.3g} ms | {100 * row['ms_error']:+.1f} % |"
        )
    missing = [name for name in ZOO if len(figures.get(name, {})) < len(SPARSITIES)]
    if missing:
        lines += ["", f"Not, or not at every sparsity, in this record: {', '.join(missing)}."]
    return lines


def _plural(count: int, what: str, ending: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else ending}"
