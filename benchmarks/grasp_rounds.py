"""GraSP in 100 rounds on VGG-16: the compression at which it empties a layer.

By the rule of the code of Tanaka et al. 2020 as it stands since August 2020: batch normalisation in use mode with the
statistics that it begins with, gradients of what the mask keeps only, and every weight, kept or removed, competes in
every round; a removed one scores zero, so that it comes back while worse ones are kept. Their published figures are
older: until then the code kept the weights of the opposite sign.

Without CIFAR-100 the network sees Gaussian images with random labels, one of each class, unless ``--data`` names others
(``npz:FILE`` or ``folder:DIR``, 100 classes of 32x32 images). A record that is there already is completed: what it
holds is not computed again. An exponent takes about a quarter of an hour on one core.

    python benchmarks/grasp_rounds.py [--seeds 1] [--exponents 4.0,4.5] [--examples 100] [--data npz:FILE]
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from pai_densities import images, network
from record import arguments, write
from torch import Tensor

from sparsepack.compressor.evidence.hessian_gradient import hessian_product
from sparsepack.models.dataset import Dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX

ROUNDS = 100
BATCH = 256
TEMPERATURE = 200.0


def rounds(seed: int, compression: float, data: Dataset) -> list[int]:
    """Return how many weights of each tensor ``ROUNDS`` rounds leave; they end where a tensor is empty."""
    module = network().build()
    initialise(module, "kaiming-normal", seed, PHILOX)
    module.eval()
    parameters = dict(module.named_parameters())
    weights = [parameters[tensor.name] for tensor in prunable_tensors(module)]
    drawn = [weight.detach().clone() for weight in weights]
    masks = [torch.ones_like(weight) for weight in drawn]
    size = sum(weight.numel() for weight in drawn)
    batches = list(data.batches("train", BATCH, seed=seed))
    kept = [weight.numel() for weight in drawn]

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(module(batch[0]) / TEMPERATURE, batch[1])

    for number in range(1, ROUNDS + 1):
        _, found = hessian_product(loss, batches, weights, masks)
        with torch.no_grad():
            # Every weight of this network is reached.
            scores = [w.double() * h * m for w, h, m in zip(drawn, found, masks, strict=True) if h is not None]
            removed = int((1 - compression ** (-number / ROUNDS)) * size)
            threshold = torch.cat([score.reshape(-1) for score in scores]).kthvalue(removed).values
            for weight, value, mask, score in zip(weights, drawn, masks, scores, strict=True):
                mask.copy_(score > threshold)
                weight.copy_(value * mask)
        kept = [int(mask.sum()) for mask in masks]
        if min(kept) == 0:
            break
    return kept


def main() -> None:
    """Measure and write the record."""
    given = arguments(__doc__, seeds=1, exponents="4.0,4.5", examples=100, threads=1, data="")
    torch.set_num_threads(given.threads)
    same = {"data": given.data or "noise", "examples": given.examples, "rounds": ROUNDS}
    runs: dict[str, list[int]] = {}
    if given.json.exists():
        known = json.loads(given.json.read_text())["figures"]
        if {key: known.get(key) for key in same} == same:
            runs = known["runs"]
    data = images(given.data, given.examples)
    for seed in range(given.seeds):
        for exponent in (float(text) for text in given.exponents.split(",")):
            key = f"{seed}/{exponent}"
            if key not in runs:
                runs[key] = rounds(seed, 10**exponent, data)
            write(given.json, {**same, "runs": runs})


if __name__ == "__main__":
    main()
