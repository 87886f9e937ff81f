"""The sections of docs/benchmarks.md on slimming."""

from __future__ import annotations

from typing import Any

from tables_cells import ratio_cell

Figures = dict[str, Any]

# Groups of a network whose reason to stay whole is told.
_REASONS = 3


def slimming(figures: Figures) -> list[str]:
    """Slimmed graphs against masked ones."""
    rows, stays = [], []
    for name, ratios in figures.items():
        for ratio, row in ratios.items():
            if "refused" in row:
                rows.append(f"| {name} | {100 * float(ratio):.0f} % | 0 |" + " - |" * 7 + " refused, see below |")
                continue
            kept = [f"{row[key][1] / row[key][0]:.2f}" for key in ("parameters", "macs", "bytes")]
            error = "-" if row["error"] is None else f"{row['error']:.0e}"
            if row["error_in_double"] is not None:
                error += f" ({row['error_in_double']:.0e} in double)"
            seconds = "-" if row["seconds"] is None else f"{row['seconds']:.2f} s"
            speedups = f"{ratio_cell(row['speedup'])} | {ratio_cell(row.get('speedup_rounded'))}"
            rows.append(
                f"| {name} | {100 * float(ratio):.0f} % | {row['widths']} | {' | '.join(kept)} | {error} "
                f"| {speedups} | {seconds} | {_green(row)} |"
            )
        last = ratios[max(ratios)]
        for units, why in last.get("stays", [])[:_REASONS]:
            stays.append(f"| {name} | {units:,} | {why.rpartition(' (')[0] or why} |")
    return [
        "Share of the channels cut from every coupled group, weakest first; left of parameters, multiply-accumulates "
        "and bytes; largest difference from the masked graph in standard deviations of its output over 16 inputs "
        "(target 1e-4; where float32 rounding alone exceeds it, both graphs are evaluated in double precision, target "
        "1e-9); masked over slimmed latency in ONNX Runtime, one thread, batch 1, median (p10-p90) of paired runs, as "
        "cut and with widths rounded up to multiples of 16 (`--round-to 16`); seconds for analysis and rewriting "
        "(target for ResNet-50: 3 s). Green: the same function, and faster in one of the two forms where it was timed.",
        "",
        "| network | cut | widths | parameters | MACs | bytes | error | speedup | multiples of 16 | time | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "What stays and why, most units first (a unit counts in every weight that is fixed by itself):",
        "",
        "| network | units | reason |",
        "|---|---|---|",
        *stays,
    ]


def _green(row: Figures) -> str:
    error = row["error"] if row["error_in_double"] is None else row["error_in_double"]
    same = error is not None and error <= (1e-4 if row["error_in_double"] is None else 1e-9)
    timed = [row[key]["median"] for key in ("speedup", "speedup_rounded") if row.get(key)]
    return "green" if same and (not timed or max(timed) >= 1) else "red"


def slimming_peer(figures: Figures) -> list[str]:
    """ResNet-50 against Torch-Pruning."""
    graphs = figures["graphs"]
    rows = [
        f"| {name} | {row['parameters']:,} | {row['macs']:,} | {row['median_ms']:.1f} ms |"
        for name, row in graphs.items()
    ]
    return [
        f"Half of the channels of ResNet-50 removed by L1 norm; the peer is {figures['peer']}. `by latency` is the "
        "choice of `--target-latency` at no more parameters than the peer's. The peer's time over ours, paired: "
        f"{ratio_cell(figures['peer over ours'])} at equal widths (target: no worse than 1), "
        f"{ratio_cell(figures['peer over by latency'])} by latency (target: above 1).",
        "",
        "| graph | parameters | MACs | median |",
        "|---|---|---|---|",
        *rows,
    ]


def slimming_cost(figures: Figures) -> list[str]:
    """Seconds and memory of slimming itself."""
    targets = {"resnet-50": 3, "1,000 operators": 10}
    rows = [
        f"| {name}: analysed and rewritten | {row['median']:.2f} s | {targets[name]} s |"
        for name, row in figures["seconds"].items()
    ]
    rows += [
        f"| {name}: peak over the file's {row['file_bytes'] / 1e9:.2f} GB | {row['over_file']:.2f}x | 2.5x |"
        for name, row in figures["memory"].items()
    ]
    return ["| figure | measured | target |", "|---|---|---|", *rows]


def slim_cycle(figures: Figures) -> list[str]:
    """Accuracy at half the multiply-accumulates."""
    rows = []
    for data, ways in figures.items():
        trained, tuned = ways["epochs"]
        for way in ("dense", "at once", "slim, fine-tune, slim again", "at once, random channels"):
            found = ways[way]
            rounds = found.get("rounds", [])
            macs = f"{rounds[-1]['macs'][1] / rounds[0]['macs'][0]:.3f}" if rounds else "1"
            parameters = f"{rounds[-1]['parameters'][1] / rounds[0]['parameters'][0]:.3f}" if rounds else "1"
            epochs = f"{trained} + {tuned}" if rounds else f"{trained}"
            rows.append(f"| {data} | {way} | {epochs} | {parameters} | {macs} | {100 * found['accuracy']:.2f} % |")
    return [
        "ResNet-20, 30 % of every width removed by the L2 norm of coupled channels (at random for the control), the "
        "small module trained on; the cycle removes them in two steps with half of that training after each. One seed; "
        "the test splits have 360 and 2,000 images, so that one image is 0.28 and 0.05 points.",
        "",
        "| data | way | epochs | parameters left | MACs left | test accuracy |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
