"""Gradients batch by batch, for evidence that has to look at each of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import UnsupportedError
from ...models.class_scores import class_scores
from ...models.seeding.philox import words
from .gradients import scoring_mode, trained
from .probe import Probe

Gradients = dict[str, torch.Tensor]


def batches_of(probe: Probe, batches: int, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the first batches of the epoch of the round's number, going on with the next where one is not enough."""
    epoch, left = probe.draw, batches
    while left:
        drawn = probe.dataset.batches("train", batch_size, seed=probe.seed, epoch=epoch, device=probe.device)
        for batch in islice(drawn, left):
            left -= 1
            yield batch
        epoch += 1


def gradients_of_batches(
    probe: Probe, *, batches: int, batch_size: int, mode: str = "eval", sampled: bool = False
) -> Iterator[Gradients]:
    """Yield the gradient of the mean cross-entropy of each batch, by weight name; the probe is charged.

    Args:
        probe: the run.
        batches: how many.
        batch_size: examples in each; with 1 these are the gradients of single examples.
        mode: of batch normalisation; see :func:`~.gradients.scoring_mode`.
        sampled: draw the labels from what the network predicts, which gives the true Fisher information (the
            Gauss-Newton matrix of the cross-entropy), instead of taking the data's (the empirical one).
    """
    named = list(trained(probe.module, probe.names).items())
    with scoring_mode(probe.module, mode):
        for number, (inputs, labels) in enumerate(batches_of(probe, batches, batch_size)):
            outputs = class_scores(probe.module(inputs))
            targets = draw_labels(outputs, probe.seed, f"labels/{probe.draw}/{number}") if sampled else labels
            loss = F.cross_entropy(outputs, targets)
            found = torch.autograd.grad(loss, [weight for _, weight in named], allow_unused=True)
            probe.charge(len(labels))
            yield {name: g for (name, _), g in zip(named, found, strict=True) if g is not None}


def gradients_of_labels(probe: Probe, *, examples: int) -> Iterator[Gradients]:
    """Yield, for each example and each class y, sqrt(p(y)) times the gradient of log p(y); the probe is charged.

    Their squares add up to the diagonal of the true Fisher information of the examples, with nothing drawn.
    """
    named = list(trained(probe.module, probe.names).items())
    with scoring_mode(probe.module, "eval"):
        for inputs, _ in batches_of(probe, examples, 1):
            likelihoods = F.log_softmax(class_scores(probe.module(inputs)), dim=1)[0]
            probe.charge(1)
            for likelihood in likelihoods:
                # The graph of one example serves all classes.
                found = torch.autograd.grad(
                    likelihood, [weight for _, weight in named], retain_graph=True, allow_unused=True
                )
                root = likelihood.detach().mul(0.5).exp()
                yield {name: root * g for (name, _), g in zip(named, found, strict=True) if g is not None}
            # A forward pass is a third of a step, and each further class takes the other two.
            probe.charge(1, (len(likelihoods) - 1) * 2 / 3)


def hessian_products(
    probe: Probe, *, batches: int, batch_size: int, mode: str, vectors: Sequence[str]
) -> Iterator[tuple[Gradients, Gradients, Gradients]]:
    """Yield (v, gradient, H v) of each batch; H is the Hessian of its mean cross-entropy in the weights of the space.

    Args:
        probe: the run.
        batches: how many.
        batch_size: examples in each.
        mode: of batch normalisation.
        vectors: one for each batch: ``weights`` takes v = w; any other text names a stream of random signs.
    """
    named = list(trained(probe.module, probe.names).items())
    weights = [weight for _, weight in named]
    with scoring_mode(probe.module, mode):
        for vector, (inputs, labels) in zip(vectors, batches_of(probe, batches, batch_size), strict=True):
            loss = F.cross_entropy(class_scores(probe.module(inputs)), labels)
            first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            reached = [i for i, g in enumerate(first) if g is not None and g.requires_grad]
            if not reached:
                raise UnsupportedError("no gradient reaches any prunable weight, so nothing can be ranked.")
            v = [
                weights[i].detach()
                if vector == "weights"
                else _signs(weights[i], probe.seed, f"{named[i][0]}/{vector}")
                for i in reached
            ]
            inner = torch.stack([(first[i] * v[place]).sum() for place, i in enumerate(reached)]).sum()
            second = torch.autograd.grad(inner, [weights[i] for i in reached], allow_unused=True)
            probe.charge(len(labels), 2.0)
            names = [named[i][0] for i in reached]
            curved = [torch.zeros_like(x) if h is None else h for h, x in zip(second, v, strict=True)]
            yield (
                dict(zip(names, v, strict=True)),
                {name: first[i].detach() for name, i in zip(names, reached, strict=True)},
                dict(zip(names, curved, strict=True)),
            )


def draw_labels(outputs: torch.Tensor, seed: int, stream: str) -> torch.Tensor:
    """Return one class for each row of logits, drawn from its softmax by the run's own generator."""
    uniform = (words(seed, stream, 0, len(outputs)) >> np.uint32(8)).astype(np.float64) * 2.0**-24
    shares = torch.softmax(outputs.detach().double(), dim=1).cumsum(dim=1)
    drawn = torch.from_numpy(uniform).to(shares.device)[:, None]
    return (shares < drawn).sum(dim=1).clamp(max=outputs.shape[1] - 1)


def _signs(like: torch.Tensor, seed: int, stream: str) -> torch.Tensor:
    bits = (words(seed, stream, 0, like.numel()) & np.uint32(1)).astype(np.float32) * 2 - 1
    return torch.from_numpy(bits).reshape(like.shape).to(like.device, like.dtype)
