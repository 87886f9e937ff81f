"""Tables of pruning at initialisation, for ``tables.py``."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]


def _data(figures: Figures) -> str:
    if figures["data"] != "noise":
        return str(figures["data"])
    return "Gaussian noise with random labels (`--data` names real images)"


def pai_densities(figures: Figures) -> list[str]:
    """Layer densities at initialisation, and where criteria collapse."""
    published = figures["published"]
    columns = [figures["synflow"], published["synflow"], figures["magnitude"]["10"], figures["magnitude_law"]["10"]]
    rows = [
        f"| {name.removesuffix('.weight')} | {' | '.join(f'{column[i]:.4f}' for column in columns)} | "
        f"{figures['magnitude']['100'][i]:.4f} |"
        for i, name in enumerate(figures["tensors"])
    ]
    once = [figures["scored_once"][seed] for seed in sorted(figures["scored_once"])]
    exponents = {name: [found["last_exponents"][name] for found in once] for name in once[0]["last_exponents"]}
    scored = [once[0]["densities"]["snip"], published["snip"], once[0]["densities"]["grasp"], published["grasp"]]
    runs = figures["synflow_runs"]
    alive = {key.split("/")[0]: key.split("/")[1] for key, kept in runs.items() if min(kept) > 0}
    lowest = {key.split("/")[0]: f"below {key.split('/')[1]}" for key in sorted(runs, reverse=True)}
    flow = [alive.get(seed, lowest[seed]) for seed in sorted(lowest)]
    error = figures["synflow_error"]
    return [
        "VGG-16 with batch norm and 100 classes, kaiming-normal, 14,761,664 weights in 14 tensors. At compression 10 "
        f"SynFlow differs from the published densities by at most {error:.4f} (target 0.005: "
        f"{'met' if error <= 0.005 else 'missed'}). The law of magnitude is erfc(t / sqrt(4 / fan-in)).",
        "",
        "| tensor | SynFlow | published | magnitude | law | magnitude at 100 |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"SNIP and GraSP at compression 10, scored once on {figures['examples']} examples of {_data(figures)}, batch "
        "normalisation in use mode; published: 100 rounds on 1,000 examples of CIFAR-100.",
        "",
        "| tensor | SNIP | published | GraSP | published |",
        "|---|---|---|---|---|",
        *(
            f"| {name.removesuffix('.weight')} | {' | '.join(f'{column[i]:.3f}' for column in scored)} |"
            for i, name in enumerate(figures["tensors"])
        ),
        "",
        "Layer collapse: the last compression 10^e (e in steps of 0.25) at which no tensor is empty, by seed. "
        "Published: random 2.75-3.75, magnitude 2.75, SNIP 3.5-3.75, GraSP 3.5-3.75 (these two as above), SynFlow "
        "5.75-6.",
        "",
        "| criterion | e |",
        "|---|---|",
        *(f"| {name} | {', '.join(f'{e:.2f}' for e in found)} |" for name, found in exponents.items()),
        f"| synflow | {', '.join(flow)} |",
        "",
        "GraSP's published exponents come of 100 rounds, each of which scores what the last one left, and of a score "
        "whose sign the authors mended later; one round does not give them. What 100 rounds give is below "
        "(`grasp_rounds.py`).",
        "",
        "Weights that SynFlow leaves of the 14 tensors, conv1 to fc, of 15 in all at 10^6. It takes the authors' form "
        "of the network: with a max pool in place of the last mean, one position of four carries all paths, and the "
        "rounds near the end empty layers.",
        "",
        "| seed, e | weights |",
        "|---|---|",
        *(f"| {key.replace('/', ', ')} | {' '.join(map(str, kept))} |" for key, kept in runs.items()),
    ]


def grasp_rounds(figures: Figures) -> list[str]:
    """What GraSP leaves of VGG-16 in 100 rounds."""
    runs = figures["runs"]
    order = sorted(runs, key=lambda key: tuple(map(float, key.split("/"))))
    last = max((float(key.split("/")[1]) for key in runs if min(runs[key])), default=0.0)
    return [
        f"VGG-16 as above, {figures['rounds']} rounds on {figures['examples']} examples of {_data(figures)}, by the "
        "rule of the code of Tanaka et al. 2020 since August 2020: of the exponents below no tensor is empty up to "
        f"10^{last}. The published 3.5-3.75 (1,000 examples of CIFAR-100) are older than that rule: their code then "
        "kept the weights of the opposite sign.",
        "",
        "| seed, e | weights of the 14 tensors, conv1 to fc | |",
        "|---|---|---|",
        *(
            f"| {key.replace('/', ', ')} | {' '.join(map(str, runs[key]))} | "
            f"{'none empty' if min(runs[key]) else 'empty'} |"
            for key in order
        ),
    ]


TRAINING_ROWS = {
    "erk": "inference, ERK",
    "uniform": "inference, uniform, first convolution dense",
    "snfs_erk": "training, SNFS, ERK",
    "rigl_erk": "training, RigL, ERK",
    "rigl_5x_erk": "training, RigL 5x, ERK",
    "rigl_5x_uniform": "training, RigL 5x, uniform",
    "gradual": "training, gradual magnitude, uniform",
    "erk_mb": "MB, ERK",
    "uniform_mb": "MB, uniform",
}


def training_flops(figures: Figures) -> list[str]:
    """ResNet-50's training operations."""
    found, published = figures["resnet-50"], figures["published"]
    return [
        "ResNet-50 at 224x224: shares of the dense network's operations, and sizes by the rule of Evci et al. 2020. "
        f"Dense: {figures['dense_macs']:,} multiply-adds, {figures['dense_mb']:.3f} MB. Published shares have two "
        "decimals and count a stem at 115x115; they lie within 0.02 of ours.",
        "",
        "| figure | 80 % | published | 90 % | published |",
        "|---|---|---|---|---|",
        *(
            f"| {title} | {found['0.8'][key]:.4f} | {published['0.8'][key]} | {found['0.9'][key]:.4f} | "
            f"{published['0.9'][key]} |"
            for key, title in TRAINING_ROWS.items()
        ),
        "",
        "Erdos-Renyi-kernel densities of small networks:",
        "",
        "| network | 90 % | 98 % |",
        "|---|---|---|",
        *(
            f"| {name} | {', '.join(f'{d:.4f}' for d in row['0.9'])} | {', '.join(f'{d:.4f}' for d in row['0.98'])} |"
            for name, row in figures["erk_small"].items()
        ),
    ]


def pai_speed(figures: Figures) -> list[str]:
    """Scoring ResNet-50 at initialisation."""
    targets = {"snip": 1.3, "grasp": 1.3, "synflow": 2.0}
    return [
        f"ResNet-50 at 224x224, {figures['examples']} examples, SynFlow in {figures['rounds']} rounds, "
        f"{figures['threads']} thread: scores and selection included, over the bare passes, medians.",
        "",
        "| criterion | ours | bare passes | ratio | target | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {figures[name]['ours']['median_ms'] / 1e3:.1f} s | "
            f"{figures[name]['bare']['median_ms'] / 1e3:.1f} s | {figures[name]['ratio']['median']:.3f}x | "
            f"{target:.1f}x | {'met' if figures[name]['ratio']['median'] <= target else 'missed'} |"
            for name, target in targets.items()
            if name in figures
        ),
    ]
