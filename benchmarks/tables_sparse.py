"""The sections of docs/benchmarks.md on layers that run sparse."""

from __future__ import annotations

import statistics
from typing import Any

Figures = dict[str, Any]

# Against dense ONNX Runtime; the same for every batch and number of threads.
DENSE_TARGETS: dict[str, dict[str, float]] = {
    "resnet-50": {"0.8": 2.8, "0.9": 5.0, "0.95": 7.0},
    "text-encoder": {"0.9": 3.2},
}
# Against DeepSparse 1.8.0 at batch 1, with one and with two threads.
PEER_TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "resnet-50": {"0.8": (1.4, 1.4), "0.9": (1.8, 1.6), "0.95": (2.0, 2.0)},
    "text-encoder": {"0.9": (1.0, 1.0)},
}
INT8_TARGETS: dict[str, dict[str, float]] = {"resnet-50": {"0.9": 1.0}}


def onnx_sparse(figures: Figures) -> list[str]:
    """Sparse operators against dense ONNX Runtime, int8 and DeepSparse."""
    lines = [
        "Interleaved with the `onnx` export of the same checkpoint in the same ONNX Runtime, and where they were run "
        "with its static int8 quantisation and with DeepSparse 1.8.0; a speedup is the median of pairs, each with its "
        f"target. Kernels: {figures['instruction_set']}.",
        "",
        "| network | sparsity | batch | threads | dense | sparse | against dense | against int8 | against DeepSparse |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    apart = False
    for network, rows in figures["networks"].items():
        for sparsity, row in rows.items():
            for key in (key for key in row if key.startswith("threads")):
                threads, _, batch = key.removeprefix("threads ").partition(" batch ")
                lines.append(_row(network, sparsity, int(threads), int(batch or 1), row[key]))
                apart = apart or bool(_apart(row[key]))
    if apart:
        lines.append(
            "\nBeside two threads stands the round trip of a flag between the two cores, before and after the cell "
            "([runtime.md](runtime.md#two-threads))."
        )
    refusals = {
        cell["deepsparse_unavailable"]
        for rows in figures["networks"].values()
        for row in rows.values()
        for cell in row.values()
        if isinstance(cell, dict) and "deepsparse_unavailable" in cell
    }
    lines += [f"\nDeepSparse did not run: {reason}" for reason in sorted(refusals)]
    return [*lines, *_footprint(figures)]


def _row(network: str, sparsity: str, threads: int, batch: int, cell: Figures) -> str:
    dense = DENSE_TARGETS.get(network, {}).get(sparsity)
    int8 = INT8_TARGETS.get(network, {}).get(sparsity) if batch == 1 else None
    peer = PEER_TARGETS.get(network, {}).get(sparsity) if batch == 1 else None
    cells = [
        network,
        f"{100 * float(sparsity):.0f} %",
        str(batch),
        f"{threads}{_apart(cell)}",
        f"{cell['dense']['median_ms']:.1f} ms",
        f"{cell['sparse']['median_ms']:.1f} ms",
        judged(cell["speedup"], dense),
        judged(cell.get("against_int8"), int8),
        judged(cell.get("against_deepsparse"), None if peer is None else peer[min(threads, 2) - 1]),
    ]
    return f"| {' | '.join(cells)} |"


def _apart(cell: Figures) -> str:
    """Return how far apart the cores were before and after a cell, where that was measured."""
    states = [cell.get("cores", {}).get(moment) for moment in ("before", "after")]
    trips = [state["round_trip_ns"] for state in states if state]
    return f" ({' / '.join(f'{trip:.0f}' for trip in trips)} ns)" if trips else ""


def judged(ratio: Figures | None, target: float | None) -> str:
    """Return a ratio with its spread and, where there is one, its target, met or missed."""
    if ratio is None:
        return "-"
    text = f"{ratio['median']:.2f}x ({ratio['p10']:.2f}-{ratio['p90']:.2f})"
    return text if target is None else f"{text}, {target:.1f}x {'met' if ratio['median'] >= target else 'missed'}"


def _footprint(figures: Figures) -> list[str]:
    row = figures["networks"].get("resnet-50", {}).get("0.9", {})
    if "memory" not in row or "load_ratio" not in row.get("threads 1", {}):
        return []
    load, memory = row["threads 1"]["load_ratio"]["median"], row["memory"]["sparse"] / row["memory"]["dense"]
    return [
        "",
        f"ResNet-50 at 90 %: {row['sparse_bytes']:,} bytes against {row['dense_bytes']:,}; loading takes {load:.2f}x "
        f"the time of the dense file (target 1.5x: {'met' if load <= 1.5 else 'missed'}); memory added by loading is "
        f"{memory:.2f}x (target 0.5x: {'met' if memory <= 0.5 else 'missed'}).",
    ]


def layer_curves(figures: Figures) -> list[str]:
    """Speedup against sparsity, layer by layer."""
    heads = [f"{100 * sparsity:.0f} %" for sparsity in figures["sparsities"]]
    lines = [
        "Each layer alone, batch 1: the dense layer's time over the sparse one's. A dense convolution reorders its "
        "activations on both sides, as it does between sparse neighbours; among dense neighbours it is faster by that.",
    ]
    for threads, rows in figures["threads"].items():
        lines += ["", f"| {threads} thread{'s' if threads != '1' else ''} | dense | {' | '.join(heads)} |"]
        lines += ["|" + "---|" * (len(heads) + 2)]
        for name, row in rows.items():
            speedups = " | ".join(f"{value:.2f}x" for value in row["speedup"])
            lines.append(f"| {name} | {row['dense_ms']:.3f} ms | {speedups} |")
    return lines


def layer_grid(figures: Figures) -> list[str]:
    """The exporter's choice against the better form."""
    found = figures["built_in"]
    share = found["within_5_percent"] / found["cases"]
    worst = found["worst"][0]
    return [
        f"{figures['shapes']} layer shapes at {len(figures['sparsities'])} sparsities, each measured dense and sparse; "
        f"sparse is faster in {found['sparse_is_faster']} of {found['cases']} cases. The built-in choice is within 5 % "
        f"of the better form in {found['within_5_percent']} ({100 * share:.1f} %; target all: "
        f"{'met' if share == 1 else 'missed'}), and sparse was chosen where it is more than 5 % slower in "
        f"{found['sparse_chosen_and_slower_by_5_percent']}. Over the whole grid the choices take "
        f"{found['whole_grid_loss']:.3f}x the time of the better forms; the worst is {worst['layer']} at density "
        f"{worst['density']}, {worst['loss']:.2f}x. `--tune` measures instead and takes the faster form by definition.",
    ]


def sparse_kernels(figures: Figures) -> list[str]:
    """The kernels' rates beside the core's peak."""
    row = figures["0.1"]
    lines = [
        f"One thread, 90 % sparsity; {row['instruction_set']}, measured peak {row['peak_gflops']:.0f} GFLOP/s from "
        f"registers, {row['peak_from_l1_gflops']:.0f} with a load for every product. Kept weights count alone. "
        "Target for the inner loops: 70 % of the peak.",
        "",
        "| layer | output | whole layer | inner loops | of the peak | |",
        "|---|---|---|---|---|---|",
    ]
    for layer in row["layers"]:
        shape = f"{layer['kernel']}x{layer['kernel']}, {layer['channels']} to {layer['outputs']}"
        stride = f", stride {layer['stride']}" if layer["stride"] != 1 else ""
        lines.append(
            f"| {shape}{stride} | {layer['out_size']}x{layer['out_size']} | {layer['layer_gflops']:.0f} GFLOP/s | "
            f"{layer['inner_gflops']:.0f} GFLOP/s | {100 * layer['inner_share']:.0f} % | "
            f"{'met' if layer['inner_share'] >= 0.7 else 'missed'} |"
        )
    lines += [
        "",
        "Time for each kept weight of masks with a pattern, over that of an unstructured mask of the same density:",
        "",
        "| pattern, density | median of the layers | least | most |",
        "|---|---|---|---|",
    ]
    for name, layers in figures["patterns"].items():
        ratios = [layer["structured_over_unstructured"] for layer in layers]
        lines.append(f"| {name} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")
    return lines


def zoo_parity(figures: Figures) -> list[str]:
    """Parity of every zoo network with all layers sparse."""
    rows = figures["networks"]
    worst = max(rows, key=lambda name: rows[name]["error"])
    lines = [
        f"Each network at 90 % with every layer sparse, against its `onnx` export; bound 1e-4: "
        f"{'met' if rows[worst]['error'] < 1e-4 else 'missed'} (worst: {worst}, {rows[worst]['error']:.1e}).",
        "",
        "| network | error | `onnx` | `onnx-sparse` |",
        "|---|---:|---:|---:|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['error']:.1e} | {row['dense_bytes']:,} | {row['sparse_bytes']:,} |")
    return lines
