"""Gradient scores (methods 4.1): signed sums over batches, nothing left behind, and SNIP's gates by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.evidence.gradients import accumulate_gradients
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.models.data import Dataset, load_data, make_dataset

CPU = torch.device("cpu")


def run_of(model: str = "lenet-300-100", **options: Any) -> PruneRecipe:
    wanted = {"method": "magnitude", "data": "digits", "sparsity": 0.9, "epochs": 1, "threads": 1, **options}
    return single_run(None, model, **wanted)


def masked(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def test_snip_keeps_what_the_gates_of_the_first_batch_react_to_most(tmp_path: Path) -> None:
    checkpoint = prune(run_of(method="snip", epochs=0), tmp_path / "run")
    dense = prune(run_of(method="dense", sparsity=None, epochs=0), tmp_path / "dense")
    weights = {n: torch.from_numpy(a) for n, a in dense.dense_state().items() if n.endswith("weight")}
    data = load_data("digits")
    assert data is not None
    inputs, labels = next(data.batches("train", 128, seed=0, epoch=0))
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    x = inputs.flatten(1)
    biases = dense.dense_state()
    for number in (1, 2, 3):
        name = f"fc{number}.weight"
        x = x @ (gates[name] * weights[name]).T + torch.from_numpy(biases[f"fc{number}.bias"])
        x = torch.relu(x) if number < 3 else x
    torch.autograd.backward(F.cross_entropy(x, labels))
    scores = torch.cat([gate.grad.abs().flatten() for gate in gates.values() if gate.grad is not None])
    order = torch.argsort(scores, descending=True, stable=True)
    expected = torch.zeros_like(scores, dtype=torch.bool)
    expected[order[: scores.numel() - round(0.9 * scores.numel())]] = True
    found = np.concatenate([mask.reshape(-1) for mask in masked(checkpoint).values()])
    # The gates' sums run in another order, so a pair at the very threshold may change places.
    assert found.sum() == int(expected.sum())
    assert (found != expected.numpy()).sum() <= 2


def small_data() -> Dataset:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((30, 5)).astype(np.float32)
    labels = np.arange(30) % 3
    return make_dataset("small", inputs, labels, inputs, labels)


def test_gradients_add_up_with_their_signs_over_batches() -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    found, examples = accumulate_gradients(
        module, small_data(), ["weight"], batches=2, batch_size=8, mode="eval", seed=1, device=CPU
    )
    total = torch.zeros(3, 5)
    batches = small_data().batches("train", 8, seed=1, epoch=0)
    for _ in range(2):
        inputs, labels = next(batches)
        (gradient,) = torch.autograd.grad(F.cross_entropy(module(inputs), labels), [module.weight])
        total += gradient
    assert examples == 16
    np.testing.assert_array_equal(found["weight"], total.numpy())
    assert module.weight.grad is None


def test_scoring_leaves_no_trace_and_uses_the_statistics_that_it_is_told_to() -> None:
    torch.manual_seed(0)
    module: Any = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.9), nn.Linear(6, 3)).train()
    module[3].eval()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    gradients = {
        mode: accumulate_gradients(
            module, small_data(), ["0.weight"], batches=1, batch_size=30, mode=mode, seed=1, device=CPU
        )[0]["0.weight"]
        for mode in ("eval", "train", "train")
    }
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in state.items())
    assert [layer.training for layer in module] == [True, True, True, False]
    assert not np.allclose(gradients["eval"], gradients["train"])
    # No dropout: by hand, with batch statistics.
    inputs, labels = next(small_data().batches("train", 30, seed=1, epoch=0))
    hidden = module[0](inputs)
    normal = (hidden - hidden.mean(0)) / torch.sqrt(hidden.var(0, unbiased=False) + 1e-5)
    torch.autograd.backward(F.cross_entropy(module[3](normal), labels))
    np.testing.assert_allclose(gradients["train"], module[0].weight.grad.numpy(), rtol=1e-3, atol=1e-6)


def test_layers_that_drop_out_by_a_number_of_their_own_do_not() -> None:
    class Recurrent(nn.Module):
        def __init__(self, dropout: float) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True)
            self.recurrent = nn.LSTM(4, 3, num_layers=2, dropout=dropout, batch_first=True)
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attended, _ = self.attention(x, x, x)
            found: torch.Tensor = self.head(self.recurrent(attended)[0][:, -1])
            return found

    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 1, 5, 4)).astype(np.float32)
    data = make_dataset("sequences", images, np.arange(8) % 2, images, np.arange(8) % 2)
    dropping = nn.Sequential(nn.Flatten(1, 2), Recurrent(0.5))
    plain = nn.Sequential(nn.Flatten(1, 2), Recurrent(0.0))
    plain.load_state_dict(dropping.state_dict())
    names = ["1.attention.in_proj_weight", "1.head.weight"]
    found, expected = (
        accumulate_gradients(module, data, names, batches=1, batch_size=8, mode="train", seed=0, device=CPU)[0]
        for module in (dropping, plain)
    )
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])
    assert [layer.dropout for layer in dropping.modules() if isinstance(layer, (nn.LSTM, nn.MultiheadAttention))] == [
        0.5,
        0.5,
    ]
