"""Where a method has nothing of its own to do it is its parent; controls are what they say (methods 3.4, 3.9, 4.2)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.scores.random import random
from sparsepack.compressor.training.tape import Tape

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))\n"
)


def run(folder: Path, name: str, method: str, *options: str, **settings: Any) -> SparseCheckpoint:
    (folder / "net.py").write_text(NETWORK)
    wanted = {"data": "digits", "sparsity": 0.7, "epochs": 0, "threads": 1, "init": "uniform", **settings}
    model = wanted.pop("model", f"{folder / 'net.py'}:build")
    return prune(single_run(None, model, method=method, method_options=options, **wanted), folder / name)


def masks_of(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


@pytest.mark.parametrize("method", ["iterative-snip", "force", "snip-it"])
def test_rounds_of_snip_are_snip_where_there_is_one(method: str, tmp_path: Path) -> None:
    batches = ("batches=1", "batch_size=64", "mode=eval")
    parent = masks_of(run(tmp_path, "snip", "snip", *batches))
    child = masks_of(run(tmp_path, "child", method, *batches, schedule="iterative", rounds=1))
    for name, mask in parent.items():
        np.testing.assert_array_equal(child[name], mask)


def test_the_random_criterion_is_a_random_ticket(tmp_path: Path) -> None:
    made = run(tmp_path, "run", "mask-criteria", "criterion=random", schedule="one-shot", allocation="global")
    masks = masks_of(made)
    scores = random({name: mask.shape for name, mask in masks.items()}, 0, 0)
    kept = np.concatenate([scores[name][mask] for name, mask in masks.items()])
    left = np.concatenate([scores[name][~mask] for name, mask in masks.items()])
    assert kept.min() > left.max()
    early = Tape(tmp_path / "run" / "tape").read("initial")
    for name, mask in masks.items():
        np.testing.assert_array_equal(made.dense_state()[name], early[name] * mask)


def test_a_bert_ticket_of_the_text_encoder(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(40) % 4
    tokens = draw.integers(1, 30, (40, 8))
    tokens[:, 0] = labels + 1
    np.savez(tmp_path / "tokens.npz", x_train=tokens, y_train=labels, x_test=tokens[:8], y_test=labels[:8])
    settings = {
        "model": "text-encoder",
        "data": f"npz:{tmp_path / 'tokens.npz'}",
        "sparsity": 0.19,
        "epochs": 1,
        "batch_size": 20,
        "optimiser": "adam",
        "learning_rate": 1e-3,
    }
    found = run(tmp_path, "run", "bert-ticket", **settings)
    masks = masks_of(found)
    # Every matrix of the two blocks, and nothing else: embeddings, norms and the head stay whole.
    assert len(masks) == 2 * 6
    assert all(name.startswith("blocks.") for name in masks)
    total = sum(mask.size for mask in masks.values())
    assert total == 98_560 - 64 * 4
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.19 * total)
    early = Tape(tmp_path / "run" / "tape").read("initial")
    assert set(early) == set(found.dense_state())
    assert (found.dense_state()["classifier.weight"] != 0).all()
