"""The sections of docs/benchmarks.md on the sizes of files."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]

# Of the order-0 bound, and of zstd-19 of the dense weights.
PACKED_TARGETS = {"resnet-50": (1.02, 0.81), "lenet-5-caffe": (1.05, 0.86), "text-encoder": (1.05, 0.86)}


# Bytes of the whole file a kept weight.
UNPACK_TARGETS = {"fp32": 5.3, "fp16": 3.3, "int8": 2.3}


def resnet50_storage(figures: Figures) -> list[str]:
    """ResNet-50 at 90 %: time, memory, bytes."""
    prune, export, load, storage = (figures[key] for key in ("prune", "export", "load", "storage"))
    zipped = storage["zipped_dense_bytes"] / storage["bytes"]
    rows = [
        ("global magnitude pruning, median", f"{_middle(prune['seconds']):.2f} s", "3 s"),
        ("extra memory while pruning", f"{prune['extra_over_model']:.2f}x the model", "3x"),
        ("export to `packed`, median", f"{_middle(export['seconds']):.2f} s", "6 s"),
        ("loading it back, hashes checked, median", f"{_middle(load['seconds']):.2f} s", "1.5 s"),
        ("`packed` over the order-0 bound", f"{storage['over_bound']:.4f}x", "1.04x"),
        ("zstd-19 of the dense weights over `packed`", f"{zipped:.3f}x", "at least 1.2x"),
    ]
    return [
        f"25,502,912 prunable weights, kaiming-normal, seed 0, {prune['kept']:,} kept. `packed`: {storage['bytes']:,} "
        f"bytes; dense: {storage['dense_bytes']:,}; zstd-19 of dense: {storage['zipped_dense_bytes']:,}; order-0 "
        f"bound: {storage['entropy_bound_bytes']:,.0f}. The file lies below that bound mainly because "
        "the bound charges full mantissas for batch-norm tensors that are constant here and cost the codec almost "
        f"nothing; for the pruned weights alone it is {storage['weights_over_bound']:.4f}x.",
        "",
        "| figure | measured | target |",
        "|---|---|---|",
        *(f"| {name} | {value} | {target} |" for name, value, target in rows),
    ]


def packed_storage(figures: Figures) -> list[str]:
    """Lossless files against the bound and zstd; speed and memory of the codec."""
    lines = [
        "`packed` without loss, header included, over the order-0 bound and over zstd-19 of the dense weights. Below "
        "the bound is what order 0 does not see: magnitudes that begin at a threshold, constant statistics, and values "
        "told from the seed that drew them, which pays where training was short (the text encoder: two epochs).",
        "",
        "| network | sparsity | bytes | over the bound | target | over zstd-19 | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, rows in figures["networks"].items():
        bound, zstd = PACKED_TARGETS[network]
        for sparsity, row in rows.items():
            wanted = f"{zstd:.2f}x" if network != "resnet-50" or sparsity == "0.9" else "-"
            lines.append(
                f"| {network} | {100 * float(sparsity):.0f} % | {row['bytes']:,} | {row['over_bound']:.4f}x "
                f"| {bound:.2f}x | {row['over_zstd']:.4f}x | {wanted} |"
            )
    if "codec" not in figures:
        return lines
    lines += ["", "ResNet-50 at 90 %, one thread, hashes checked; megabytes of dense weights, best of five:", ""]
    lines += ["| | speed | target | extra memory | target |", "|---|---|---|---|---|"]
    for what, target in (("encode", 40), ("decode", 300)):
        row = figures["codec"][what]
        allowed = 2 * row["largest_bytes"] / 1e6 + 64
        lines.append(
            f"| {what} | {row['megabytes_per_second']:.0f} MB/s | {target} MB/s | {row['extra_bytes'] / 1e6:.0f} MB "
            f"| {allowed:.0f} MB |"
        )
    return lines


def lenet_storage(figures: Figures) -> list[str]:
    """The LeNets of Deep Compression."""
    lines = [
        f"Trained on 8,000 images of MNIST, tested on 2,000 others; {figures['seeds']} seeds, mean and 95 % interval. "
        "Deep Compression (Han et al. 2016) published 40x for LeNet-300-100 and 39x for LeNet-5, FreezeNet (Wimmer et "
        "al. 2020) 157x at 99.2 % of the baseline's accuracy; their networks saw all 60,000 training images. "
        "Target: at least 45x, at most 0.3 points below the dense network of the same seed.",
        "",
        "| network | stored | smaller than dense fp32 | accuracy | points lost |",
        "|---|---|---|---|---|",
    ]
    for network, rows in figures["networks"].items():
        for name, row in rows.items():
            method, _, values = name.partition(" ")
            at = figures["sparsities"][network].get(method)
            stored = name if at is None else f"{method.removesuffix('-more')} {100 * at:.0f} %, {values}"
            accuracy = f"{100 * row['accuracy']['mean']:.2f} +- {100 * row['accuracy']['half']:.2f} %"
            if "ratio" not in row:
                lines.append(f"| {network} | {stored} | 1x | {accuracy} | |")
                continue
            ratio = f"{row['ratio']['mean']:.1f} +- {row['ratio']['half']:.1f}x"
            lost = f"{row['points_lost']['mean']:+.2f} +- {row['points_lost']['half']:.2f}"
            lines.append(f"| {network} | {stored} | {ratio} | {accuracy} | {lost} |")
    lines += ["", "Smallest at a mean loss of at most 0.3 points:", ""]
    for network, rows in figures["networks"].items():
        for way, verb in (("magnitude", "pruned"), ("freezenet", "frozen at the seed")):
            near = [row["ratio"]["mean"] for name, row in rows.items() if name.startswith(way) and _loses_little(row)]
            best = f"{max(near):.1f}x" if near else "none of these"
            lines.append(f"- {network}, {verb}: {best}")
    lines += ["", "Frozen, smallest at 99.2 % of the dense accuracy or more, as FreezeNet's published point:", ""]
    for network, rows in figures["networks"].items():
        least = 0.992 * rows["dense"]["accuracy"]["mean"]
        frozen = [row for name, row in rows.items() if name.startswith("freezenet")]
        near = [row["ratio"]["mean"] for row in frozen if row["accuracy"]["mean"] >= least]
        lines.append(f"- {network}: {max(near):.1f}x" if near else f"- {network}: none of these")
    return lines


def _loses_little(row: Figures) -> bool:
    return bool(row["points_lost"]["mean"] <= 0.3)


def part_storage(figures: Figures) -> list[str]:
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


def onnx_unpack(figures: Figures) -> list[str]:
    """ResNet-50 that unpacks itself: bytes a kept weight, loading and its memory, and the steady time beside dense."""
    lines = [
        "ResNet-50 at 90 %, pruned by magnitude or frozen at a seed, in ONNX Runtime. Memory is the process's, at its "
        "peak and once the session is loaded.",
        "",
        "| weights | values | bytes | B a kept weight | target | load | target | peak | target | after |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rows in figures.items():
        for kind in ("dense", "fp32", "fp16", "int8", "codebook:4"):
            row = rows[kind]
            size = row.get("bytes")
            cells = [
                name,
                kind,
                "-" if size is None else f"{size:,}",
                "-" if size is None else f"{row['bytes_per_kept']:.2f}",
                f"{UNPACK_TARGETS[kind]:.1f}" if kind in UNPACK_TARGETS else "-",
                f"{row['load_seconds']:.2f} s",
                "-" if size is None else "3 s",
                f"{row['peak_rss_bytes'] / 1e9:.2f} GB",
                "-" if size is None else "1.0 GB",
                f"{row['after_bytes'] / 1e9:.2f} GB",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    runs = {name: rows["latency"] for name, rows in figures.items()}
    lines += [""]
    lines += [
        f"- Once loaded ({name}, fp32): {row['unpack_over_dense']:.3f} times the dense file's latency, the median of "
        f"{row['runs']} pairs (target: within 2 %), outputs {'equal' if row['outputs_equal'] else 'not equal'}."
        for name, row in runs.items()
    ]
    return lines


def big_model(figures: Figures) -> list[str]:
    """A network above 2 GB with tied weights: bytes, files, seconds and memory by format."""
    lines = [
        f"An embedding of {figures['words']:,} words of {figures['width']:,} figures, tied to the output layer, and a "
        "layer pruned to 90 % between them. Both formats store the tied weights once, decode bit for bit, and compute "
        f"{'the same' if figures['equal'] else 'different outputs (missed)'}. Memory is each process's peak.",
        "",
        "| format | bytes | files | export | its memory | load | memory of loading and a run |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("onnx", "onnx-unpack"):
        row = figures[name]
        lines.append(
            f"| `{name}` | {row['bytes']:,} | {row['files']} | {row['export_seconds']:.0f} s | "
            f"{row['export_peak_bytes'] / 1e9:.1f} GB | {row['load_seconds']:.1f} s | "
            f"{row['run_peak_bytes'] / 1e9:.1f} GB |"
        )
    return lines


def _middle(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]
