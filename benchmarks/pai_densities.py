"""Layer densities at initialisation on VGG-16, and the compression at which criteria empty a layer.

SynFlow needs no data, and magnitude and random masks need nothing: these are the published experiments. SNIP and GraSP
see Gaussian images with random labels here, unless ``--data`` names others (``npz:FILE`` or ``folder:DIR`` with the
100 classes of CIFAR-100), and score once instead of in 100 rounds.

A record that is there already is completed: what it holds is not computed again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

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
from sparsepack.models.data import Dataset, load_data, make_dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX
from sparsepack.models.source import TorchSource, load_source

# What a record of another form of the network, or of other data, does not share.
NETWORK = "four max pools, mean over 2x2"
# Tanaka et al. 2020: the result files of their experiments, conv1 .. conv13 and fc.
PUBLISHED = {
    "synflow": [0.9965, 0.897, 0.804, 0.644, 0.435, 0.248, 0.234, 0.121, 0.060, 0.060, 0.056, 0.054, 0.060, 0.857],
    "magnitude": [0.892, 0.517, 0.516, 0.3585, 0.356, 0.193, 0.194, 0.194, 0.066, 0.066, 0.066, 0.066, 0.066, 0.541],
    "snip": [0.915, 0.570, 0.408, 0.281, 0.205, 0.148, 0.171, 0.122, 0.078, 0.080, 0.094, 0.075, 0.081, 0.535],
    "grasp": [0.415, 0.388, 0.322, 0.246, 0.189, 0.145, 0.154, 0.121, 0.089, 0.091, 0.094, 0.074, 0.080, 0.320],
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


def synflow_run(seed: int, known: dict[str, list[int]]) -> None:
    """Add the weights that SynFlow leaves of each tensor at 10^e, by ``seed/e``: at 6, and if one is empty at 5.75."""
    for exponent in (6.0, 5.75):
        key = f"{seed}/{exponent}"
        if key not in known:
            known[key] = list(synflow(10**exponent, seed).values())
        if min(known[key]) > 0:
            break


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


def images(source: str, examples: int) -> Dataset:
    """Return the first examples of a data source, or Gaussian images with random labels where none is named.

    Raises:
        SystemExit: the source is no data of 32x32 images in 100 classes.
    """
    if source:
        data = load_data(source)
        if data is None or (data.classes, data.input_spec.shape) != (100, (3, 32, 32)):
            raise SystemExit(f"--data {source}: expected images of shape (3, 32, 32) in 100 classes.")
        return data
    drawn = np.random.default_rng(0)
    images = drawn.standard_normal((examples, 3, 32, 32)).astype(np.float32)
    labels = np.arange(examples) % 100
    return make_dataset("noise", images, labels, images[:100], labels[:100])


def collapse(seed: int, source: str, examples: int) -> dict[str, Any]:
    """Return the last exponents of the criteria that score once, and the densities of two of them at 10."""
    vgg = network()
    module = vgg.build()
    initialise(module, "kaiming-normal", seed, PHILOX)
    prunable = prunable_tensors(module)
    names = [tensor.name for tensor in prunable]
    weights = weight_arrays(module, names)
    data = images(source, examples)
    # As the authors score: batch normalisation in use mode, with the statistics that it begins with.
    gradients, _ = accumulate_gradients(
        module, data, names, batches=examples // 50, batch_size=50, mode="eval", seed=seed, device=CPU
    )
    probe = Probe(
        module=module,
        rule=MaskRule(make_space(prunable, Element()), Element(), "global"),
        masks={},
        sparsity=0.0,
        options={"examples_per_class": max(1, examples // 100), "temperature": 200.0, "mode": "eval"},
        seed=seed,
        draw=0,
        device=CPU,
        counter=Counter(prunable),
        data=data,
        tape=lambda _: {},
        fresh=lambda _: {},
        examples=vgg.example_inputs,
    )
    scores = {
        "random": random({t.name: t.shape for t in prunable}, seed),
        "magnitude": magnitude(weights),
        "snip": saliency(weights, gradients),
        "grasp": grasp(weights, hessian_gradient(probe)),
    }
    last = {name: last_exponent(score) for name, score in scores.items()}
    return {"last_exponents": last, "densities": {name: densities(scores[name], 10) for name in ("snip", "grasp")}}


def main() -> None:
    """Measure and write the record."""
    given = arguments(__doc__, seeds=3, examples=200, threads=1, data="")
    torch.set_num_threads(given.threads)
    module = network().build()
    prunable = prunable_tensors(module)
    sizes, fans = [t.size for t in prunable], [t.fan_in for t in prunable]
    initialise(module, "kaiming-normal", 0, PHILOX)
    drawn = magnitude(weight_arrays(module, [t.name for t in prunable]))
    same = {"network": NETWORK, "data": given.data or "noise", "examples": given.examples}
    figures: dict[str, Any] = {
        **same,
        "tensors": [t.name for t in prunable],
        "published": PUBLISHED,
        "magnitude": {str(c): densities(drawn, c) for c in (10, 100)},
        "magnitude_law": {str(c): law(fans, sizes, c) for c in (10, 100)},
        "synflow_runs": {},
        "scored_once": {},
    }
    if given.json.exists():
        known = json.loads(given.json.read_text())["figures"]
        if known.get("network") == NETWORK:
            figures |= {key: known[key] for key in ("synflow", "synflow_error", "synflow_runs") if key in known}
        if {key: known.get(key) for key in same} == same:
            figures["scored_once"] = known["scored_once"]
    if "synflow" not in figures:
        kept = synflow(10, 0)
        figures["synflow"] = [kept[t.name] / t.size for t in prunable]
        difference = zip(figures["synflow"], PUBLISHED["synflow"], strict=True)
        figures["synflow_error"] = max(abs(a - b) for a, b in difference)
    for seed in range(given.seeds):
        write(given.json, figures)
        synflow_run(seed, figures["synflow_runs"])
        write(given.json, figures)
        if str(seed) not in figures["scored_once"]:
            figures["scored_once"][str(seed)] = collapse(seed, given.data, given.examples)
    write(given.json, figures)


if __name__ == "__main__":
    main()
