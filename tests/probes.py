"""Small networks and data, and the probe through which evidence and transforms look at them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsepack.compressor.counter import Counter
from sparsepack.compressor.evidence.probe import Probe
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import parse_structure
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.prunable import prunable_tensors

CPU = torch.device("cpu")


def points(count: int = 24, features: int = 6, classes: int = 3) -> Dataset:
    """Return clustered feature vectors."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    inputs = (random.standard_normal((count, features)) + np.eye(classes, features)[labels]).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:6], labels[:6])


def linear_network(*widths: int) -> Any:
    """Return linear layers with ReLU between them, without biases, drawn from a fixed seed."""
    torch.manual_seed(5)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def probe_of(
    module: nn.Module,
    data: Dataset | None,
    *,
    structure: str = "element",
    allocation: str = "uniform",
    sparsity: float = 0.5,
    **options: Any,
) -> Probe:
    """Return a probe of a network as a run would make it, before anything was masked."""
    form = parse_structure(structure)
    prunable = prunable_tensors(module)
    rule = MaskRule(make_space(prunable, form), form, allocation)
    return Probe(
        module,
        rule,
        {},
        sparsity,
        options,
        3,
        0,
        CPU,
        Counter(prunable),
        data,
        tape=lambda label: {},
        fresh=lambda number: {},
        examples=lambda batch: (),
    )
