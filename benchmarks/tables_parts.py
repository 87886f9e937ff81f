"""The table of what methods store, from the record of ``part_storage.py``."""

from __future__ import annotations

from typing import Any


def part_storage(figures: dict[str, Any]) -> list[str]:
    """Bytes a weight: the published idea, our file, its bound, and the same weights as values."""
    lines = [
        "The weights of LeNet-300-100 (interspace: the convolutions of Conv-6) with random masks, signs and choices, "
        "whose entropy no code can beat. The idea counts as its paper does: a bit a weight of a mask, nothing for a "
        "seed. The file is `packed`, whole; as values: the same weights in `packed`, as the floats that they are "
        "(SupSup: of one task).",
        "",
        "| method | stores | idea, B a weight | file, B a weight | file / idea | streams / bound | as values, B a "
        "weight |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        weights = row["weights"]
        lines.append(
            f"| {row['method']} | {row['stores']} | {row['claimed_bytes'] / weights:.4f} | "
            f"{row['file_bytes'] / weights:.4f} | {row['file_bytes'] / row['claimed_bytes']:.2f}x | "
            f"{row['stream_bytes'] / row['bound_bytes']:.3f}x | {row['as_values_bytes'] / weights:.4f} |"
        )
    return lines
