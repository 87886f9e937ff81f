"""Small networks and data, and probes of them as the engine makes them when something is scored."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsepack.compressor.counter import Counter
from sparsepack.compressor.evidence import EVIDENCE
from sparsepack.compressor.evidence.probe import Probe
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import SCORES, ScoreInputs
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.models.data import make_dataset
from sparsepack.models.dataset import Dataset
from sparsepack.models.prunable import prunable_tensors

CPU = torch.device("cpu")


def small_data(classes: int = 3, shape: tuple[int, ...] = (5,)) -> Dataset:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((30, *shape)).astype(np.float32)
    labels = np.arange(30) % classes
    return make_dataset("small", inputs, labels, inputs, labels)


def probe_of(module: nn.Module, data: Dataset | None, shape: tuple[int, ...], **options: Any) -> Probe:
    """A probe as the engine makes one, at the first round."""
    prunable = prunable_tensors(module)
    rule = MaskRule(make_space(prunable, Element()), Element(), "global")
    return Probe(
        module=module,
        rule=rule,
        masks={},
        sparsity=0.5,
        options=options,
        seed=1,
        draw=0,
        device=CPU,
        counter=Counter(prunable),
        data=data,
        tape=lambda _: {},
        fresh=lambda _: {},
        examples=lambda batch: (torch.randn(batch, *shape),),
    )


def perceptron(*widths: int, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for taken, given in itertools.pairwise(widths):
        layers += [nn.Linear(taken, given, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def scored(name: str, probe: Probe) -> dict[str, np.ndarray]:
    evidence = {kind: EVIDENCE[kind].gather(probe) for kind in SCORES[name].evidence}
    return SCORES[name].compute(ScoreInputs(probe.weights(), evidence, options=probe.options))
