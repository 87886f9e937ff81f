"""What scoring and pruning cost beside the work that they cannot do without.

sparsegpt   a 384 x 1536 layer at 50 %, against the plain dense algorithm (Cholesky factor, one column at a time)
taylor      ResNet-20, 10 batches of 64, against the same forward and backward passes
selection   the exact k of 25,000,000 scores
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from record import arguments, interleaved, paired_ratio, summary, write

from sparsepack.compressor.counter import Counter
from sparsepack.compressor.evidence.curvature import taylor_terms
from sparsepack.compressor.evidence.probe import Probe
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.selection import top_k
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Channel
from sparsepack.compressor.transforms.sparsegpt import sparsegpt
from sparsepack.models.data import load_data
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import TorchSource, load_source


def direct(rows: torch.Tensor, hessian: torch.Tensor, damp: float, block: int) -> torch.Tensor:
    """Prune a layer to half by the plain algorithm: threshold in each block, no ties, no exact count."""
    w = rows.clone()
    inputs = w.shape[1]
    damped = hessian + damp * hessian.diagonal().mean() * torch.eye(inputs)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for begin in range(0, inputs, block):
        end = min(begin + block, inputs)
        part = w[:, begin:end].clone()
        factor = upper[begin:end, begin:end]
        scores = part**2 / factor.diagonal() ** 2
        removed = scores <= scores.flatten().sort().values[scores.numel() // 2]
        errors = torch.zeros_like(part)
        for column in range(end - begin):
            value = part[:, column]
            kept = value.masked_fill(removed[:, column], 0.0)
            error = (value - kept) / factor[column, column]
            part[:, column:] -= error[:, None] @ factor[column, column:][None]
            part[:, column] = kept
            errors[:, column] = error
        w[:, begin:end] = part
        w[:, end:] -= errors @ upper[begin:end, end:]
    return w


def of_sparsegpt(runs: int) -> dict[str, Any]:
    """Time one layer."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(384, 1536, generator=generator)
    x = torch.randn(4096, 1536, generator=generator)
    hessian = x.T @ x
    times = interleaved(
        {
            "sparsegpt": lambda: sparsegpt(rows, hessian, rows.numel() // 2, None, damp=0.01, block=128),
            "direct": lambda: direct(rows, hessian, 0.01, 128),
        },
        runs,
    )
    ratio = paired_ratio(times["sparsegpt"], times["direct"])
    return {name: summary(seconds) for name, seconds in times.items()} | {"ratio": ratio, "target": 1.5}


def of_taylor(runs: int) -> dict[str, Any]:
    """Time the scores of a network."""
    data = load_data("digits")
    assert data is not None
    source = load_source("resnet-20", options=data.model_options)
    assert isinstance(source, TorchSource)
    module = source.build()
    prunable = prunable_tensors(module)
    rule = MaskRule(make_space(prunable, Channel()), Channel(), "global")
    options = {"batches": 10, "batch_size": 64, "mode": "eval"}
    probe = Probe(
        module,
        rule,
        {},
        0.5,
        options,
        0,
        0,
        torch.device("cpu"),
        Counter(prunable),
        data,
        tape=lambda label: {},
        fresh=lambda number: {},
        examples=source.example_inputs,
    )
    weights = [parameter for name, parameter in module.named_parameters() if name in probe.names]

    def passes() -> None:
        module.eval()
        for number, (inputs, labels) in enumerate(data.batches("train", 64)):
            if number == options["batches"]:
                break
            torch.autograd.grad(F.cross_entropy(module(inputs), labels), weights)

    times = interleaved({"taylor": lambda: taylor_terms(probe), "passes": passes}, runs)
    ratio = paired_ratio(times["taylor"], times["passes"])
    return {name: summary(seconds) for name, seconds in times.items()} | {"ratio": ratio, "target": 1.3}


def of_selection(runs: int) -> dict[str, Any]:
    """Time the choice of the largest tenth of 25 million scores in the tensors of a large network."""
    random = np.random.default_rng(0)
    scores = [np.abs(random.standard_normal(size, np.float32)) for size in (20_000_000, 4_000_000, 900_000, 100_000)]
    times = interleaved({"selection": lambda: top_k(scores, 2_500_000)}, runs)
    return {"selection": summary(times["selection"]), "target_ms": 300}


def main() -> None:
    """Time all three, on one thread."""
    given = arguments(__doc__, runs=15)
    torch.set_num_threads(1)
    figures = {
        "sparsegpt": of_sparsegpt(given.runs),
        "taylor": of_taylor(given.runs),
        "selection": of_selection(given.runs),
    }
    write(given.json, figures)


if __name__ == "__main__":
    main()
