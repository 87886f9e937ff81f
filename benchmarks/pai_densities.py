"""Layer densities at initialisation on VGG-16, and the compression at which criteria empty a layer.

SynFlow needs no data, and magnitude and random masks need nothing: these are the published experiments. SNIP and GraSP
see Gaussian images with random labels here instead of CIFAR-100, and score once instead of in 100 rounds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import torch
from record import arguments, write

from sparsepack.compressor.counter import Counter
from sparsepack.compressor.evidence.gradients import accumulate_gradients
from sparsepack.compressor.evidence.hessian_gradient import hessian_gradient
from sparsepack.compressor.evidence.probe import Probe
from sparsepack.compressor.masked_network import MaskedNetwork
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import magnitude, random, saliency
from sparsepack.compressor.scores.products import grasp
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.weights import weight_arrays
from sparsepack.files import Array
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX
from sparsepack.models.source import TorchSource, load_source

# Tanaka et al. 2020: the result files of their experiments, conv1 .. conv13 and fc.
PUBLISHED = {
    "synflow": [0.9965, 0.897, 0.804, 0.644, 0.435, 0.248, 0.234, 0.121, 0.060, 0.060, 0.056, 0.054, 0.060, 0.857],
    "magnitude": [0.892, 0.517, 0.516, 0.3585, 0.356, 0.193, 0.194, 0.194, 0.066, 0.066, 0.066, 0.066, 0.066, 0.541],
}
CPU = torch.device("cpu")


class Nowhere:
    """A tape that nothing here reads."""

    def record(self, label: str, state: Mapping[str, Array]) -> None:
        """Forget a state."""

    def read(self, label: str) -> Mapping[str, Array]:
        """Return nothing."""
        return {}


def network() -> TorchSource:
    """Return VGG-16 for a hundred classes."""
    source = load_source("vgg-16", options={"input_shape": [3, 32, 32], "classes": 100})
    assert isinstance(source, TorchSource)
    return source


def synflow(compression: float, seed: int) -> dict[str, int]:
    """Return the weights that SynFlow keeps of each tensor in 100 rounds."""
    source = network()
    recipe = single_run(None, "vgg-16", method="synflow", data="none", sparsity=1 - 1 / compression, seed=seed)
    masked = MaskedNetwork(recipe, source.build(), source.record, source.example_inputs, None, Nowhere(), CPU)
    for stage in masked.plan:
        masked.carry_out(stage)
    return {name: int(np.count_nonzero(mask)) for name, mask in masked.masks.items()}


def synflow_runs(seeds: int, known: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the weights that SynFlow leaves of each tensor at 10^e, by ``seed/e``: at 6, and if one is empty at 5.75.

    Args:
        seeds: how many.
        known: runs of an earlier record, which are not repeated.
    """
    found = {}
    for seed in range(seeds):
        for exponent in (6.0, 5.75):
            key = f"{seed}/{exponent}"
            found[key] = known[key] if key in known else list(synflow(10**exponent, seed).values())
            if min(found[key]) > 0:
                break
    return found


def densities(scores: Mapping[str, Array], compression: float) -> list[float]:
    """Return each tensor's density under a global threshold."""
    joined = np.concatenate([s.reshape(-1) for s in scores.values()])
    kept = round(joined.size / compression)
    threshold = np.partition(joined, joined.size - kept)[joined.size - kept]
    return [float((s >= threshold).mean()) for s in scores.values()]


def law(fans: list[int], sizes: list[int], compression: float) -> list[float]:
    """Return the expected densities of global magnitude pruning of N(0, 2 / fan_in): erfc(t / sqrt(4 / fan_in))."""
    low, high = 0.0, 1.0
    for _ in range(80):
        t = (low + high) / 2
        kept = sum(n * math.erfc(t / math.sqrt(4 / f)) for n, f in zip(sizes, fans, strict=True))
        low, high = (t, high) if kept > sum(sizes) / compression else (low, t)
    return [math.erfc(low / math.sqrt(4 / f)) for f in fans]


def last_exponent(scores: Mapping[str, Array]) -> float:
    """Return the last of 0.25, 0.5 ... at which a global threshold at 10**e leaves no tensor empty."""
    joined = np.concatenate([s.reshape(-1) for s in scores.values()])
    needed = max(int(np.count_nonzero(joined > s.max())) + 1 for s in scores.values())
    return math.floor(4 * math.log10(joined.size / needed)) / 4


def noise(examples: int) -> Dataset:
    """Return Gaussian images with random labels."""
    drawn = np.random.default_rng(0)
    images = drawn.standard_normal((examples, 3, 32, 32)).astype(np.float32)
    labels = np.arange(examples) % 100
    return make_dataset("noise", images, labels, images[:100], labels[:100])


def collapse(seed: int, examples: int) -> dict[str, float]:
    """Return the last exponents of the criteria that score once."""
    source = network()
    module = source.build()
    initialise(module, "kaiming-normal", seed, PHILOX)
    prunable = prunable_tensors(module)
    names = [tensor.name for tensor in prunable]
    weights = weight_arrays(module, names)
    found = {
        "random": last_exponent(random({t.name: t.shape for t in prunable}, seed)),
        "magnitude": last_exponent(magnitude(weights)),
    }
    data = noise(examples)
    gradients, _ = accumulate_gradients(
        module, data, names, batches=examples // 50, batch_size=50, mode="train", seed=seed, device=CPU
    )
    found["snip"] = last_exponent(saliency(weights, gradients))
    probe = Probe(
        module=module,
        rule=MaskRule(make_space(prunable, Element()), Element(), "global"),
        masks={},
        sparsity=0.0,
        options={"examples_per_class": max(1, examples // 100), "temperature": 200.0, "mode": "train"},
        seed=seed,
        draw=0,
        device=CPU,
        counter=Counter(prunable),
        data=data,
        tape=lambda _: {},
        fresh=lambda _: {},
        examples=source.example_inputs,
    )
    found["grasp"] = last_exponent(grasp(weights, hessian_gradient(probe)))
    return found


def main() -> None:
    """Measure and write the record."""
    given = arguments(__doc__, seeds=3, examples=200, threads=1)
    torch.set_num_threads(given.threads)
    module = network().build()
    prunable = prunable_tensors(module)
    sizes, fans = [t.size for t in prunable], [t.fan_in for t in prunable]
    initialise(module, "kaiming-normal", 0, PHILOX)
    drawn = magnitude(weight_arrays(module, [t.name for t in prunable]))
    kept = synflow(10, 0)
    flow = [kept[t.name] / t.size for t in prunable]
    known = json.loads(given.json.read_text())["figures"].get("synflow_runs", {}) if given.json.exists() else {}
    figures = {
        "tensors": [t.name for t in prunable],
        "published": PUBLISHED,
        "synflow": flow,
        "synflow_error": max(abs(a - b) for a, b in zip(flow, PUBLISHED["synflow"], strict=True)),
        "synflow_runs": synflow_runs(given.seeds, known),
        "magnitude": {str(c): densities(drawn, c) for c in (10, 100)},
        "magnitude_law": {str(c): law(fans, sizes, c) for c in (10, 100)},
        "last_exponents": [collapse(seed, given.examples) for seed in range(given.seeds)],
    }
    write(given.json, figures)


if __name__ == "__main__":
    main()
