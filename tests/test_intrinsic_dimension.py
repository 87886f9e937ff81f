"""Random subspaces: the transform against numpy's and its own matrix, the oracles of Li et al., and the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parametrised import seed_for
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.parametrisations.projection import project
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.sparsifier import Sparsifier
from sparsepack.compressor.training.subspace import Projection, Subspace
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import export
from sparsepack.models.seeding.record import PHILOX

CPU = torch.device("cpu")


def matrix_of(projection: Projection, dimension: int) -> torch.Tensor:
    return torch.stack([projection.forward(unit) for unit in torch.eye(dimension)], dim=1)


@pytest.mark.parametrize(("weights", "dimension"), [(10, 4), (5, 33), (64, 64), (1, 1), (200, 7)])
def test_torch_and_numpy_move_by_the_same_bits(weights: int, dimension: int) -> None:
    seed = seed_for("w", PHILOX)
    coordinates = np.random.default_rng(0).normal(size=dimension).astype(np.float32)
    projection = Projection(seed, weights, dimension, CPU)
    found = projection.forward(torch.from_numpy(coordinates)).numpy()
    assert found.tobytes() == project(seed, weights, coordinates).tobytes()
    gradient = torch.randn(weights, generator=torch.Generator().manual_seed(1))
    expected = matrix_of(projection, dimension).T.double() @ gradient.double()
    torch.testing.assert_close(projection.transposed(gradient).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_coordinates_is_the_projected_one() -> None:
    """dL/d(theta_d) = P transposed times dL/d(theta), P with unit columns over all weights."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    subspace = Subspace(module, 12, seed=3)
    inputs, labels = torch.randn(8, 6), torch.arange(8) % 3
    torch.autograd.backward(nn.functional.cross_entropy(module(inputs), labels))
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    ((_, coordinates),) = subspace.named_parameters()
    assert subspace.after_backward(0)
    assert coordinates.grad is not None
    # The whole matrix by moving along each coordinate in turn.
    whole = sum(p.numel() for p in module.parameters())
    columns = []
    before = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    for number in range(12):
        with torch.no_grad():
            coordinates.zero_()[number] = 1.0
        subspace.after_step(0)
        columns.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]) - before)
    matrix = torch.stack(columns, dim=1)
    assert matrix.shape == (whole, 12)
    flat = torch.cat([gradients[name].reshape(-1) for name, _ in module.named_parameters()])
    torch.testing.assert_close(coordinates.grad, matrix.T @ flat, rtol=1e-4, atol=1e-5)
    lengths = matrix.norm(dim=0)
    assert ((lengths > 0.6) & (lengths < 1.4)).all()


def test_all_directions_together_are_ordinary_training() -> None:
    """d = D and orthogonal: gradient descent in the subspace takes the very steps of gradient descent."""
    torch.manual_seed(1)
    direct = nn.Linear(8, 8, bias=False)
    moved = nn.Linear(8, 8, bias=False)
    moved.load_state_dict(direct.state_dict())
    subspace = Subspace(moved, 64, seed=0)
    optimisers = [
        torch.optim.SGD(direct.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD([p for _, p in subspace.named_parameters()], lr=0.1, momentum=0.9),
    ]
    inputs, labels = torch.randn(16, 8), torch.arange(16) % 8
    for step in range(20):
        for module, optimiser in zip((direct, moved), optimisers, strict=True):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(inputs), labels))
            if module is moved:
                subspace.after_backward(step)
            optimiser.step()
        subspace.after_step(step)
    assert not torch.allclose(direct.weight, torch.zeros(8, 8), atol=1e-2)
    torch.testing.assert_close(moved.weight, direct.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dimension", "solvable"), [(9, False), (10, True), (30, True)])
def test_ten_sums_need_ten_directions(dimension: int, solvable: bool) -> None:
    """The toy of Li et al., section 2: D = 1000, ten groups of 100 that must sum to 1 .. 10: intrinsic dimension 10."""
    matrix = matrix_of(Projection(seed_for("toy", PHILOX), 1000, dimension, CPU), dimension).double()
    sums = matrix.reshape(10, 100, dimension).sum(dim=1)
    wanted = torch.arange(1.0, 11.0, dtype=torch.float64)
    found = sums @ torch.linalg.lstsq(sums, wanted[:, None]).solution
    assert bool((found[:, 0] - wanted).norm() < 1e-6) is solvable


def recipe_in(folder: Path, **options: object) -> object:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    images = (rng.standard_normal((40, 1, 4, 4)) + labels[:, None, None, None]).astype(np.float32)
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))\n"
    )
    plain = {
        "version": 1,
        "model": f"{folder / 'net.py'}:build",
        "data": f"npz:{folder / 'data.npz'}",
        "train": {"epochs": 30, "batch_size": 10, "learning_rate": 0.1},
        "runs": [{"name": "run", "method": "intrinsic-dimension", "options": {"dimension": 30}, **options}],
    }
    return load_recipe(plain).prune_recipes()[0]


def test_a_run_stores_its_coordinates_and_learns(tmp_path: Path) -> None:
    made = prune(recipe_in(tmp_path, init="uniform"), tmp_path / "run")  # type: ignore[arg-type]  # a PruneRecipe
    loaded = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    loaded.verify()
    assert made.metadata.training is not None
    assert made.metadata.training.trained_parameters == 30
    projected = {name for name, tensor in loaded.tensors.items() if tensor.record.parametrisation == "projection"}
    assert projected == {f"{layer}.{kind}" for layer in (1, 2, 4) for kind in ("weight", "bias")}
    assert {tensor.record.parts for name, tensor in loaded.tensors.items() if name in projected} == {("coordinates",)}
    artifact = export(loaded, "packed", tmp_path / "x.spk")
    stored = sum(row.bytes for row in artifact.rows() if row.name in projected)
    assert 0 < stored <= 4 * 30
    state = {name: torch.from_numpy(array) for name, array in artifact.tensors().items()}
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))
    module.load_state_dict(state)
    with np.load(tmp_path / "data.npz") as data, torch.no_grad():
        found = module.eval()(torch.from_numpy(data["x_train"])).argmax(1).numpy()
        assert (found == data["y_train"]).mean() > 0.8


def test_a_network_that_brings_its_weights_stores_them_once(tmp_path: Path) -> None:
    made = prune(recipe_in(tmp_path), tmp_path / "run")  # type: ignore[arg-type]  # a PruneRecipe
    made.verify()
    assert made.tensors["1.weight"].record.parts == ("coordinates", "initial")
    again = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    assert again.tensors["4.bias"].record.shares == "1.weight"
    again.verify()


def test_only_float32_moves() -> None:
    with pytest.raises(UnsupportedError, match=r"'weight' is torch\.float64; convert the model"):
        Subspace(nn.Linear(3, 2).double(), 4, seed=0)


def test_a_loop_of_ones_own_goes_on_from_its_state(tmp_path: Path) -> None:
    def attached() -> tuple[nn.Module, Sparsifier, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Linear(6, 3)
        sparsifier = Sparsifier(
            module, torch.zeros(1, 6), method="intrinsic-dimension", total_steps=8, options={"dimension": 5}
        )
        optimiser = torch.optim.Adam(sparsifier.parameters(), lr=0.05)
        sparsifier.attach(optimiser)
        return module, sparsifier, optimiser

    def steps(module: nn.Module, sparsifier: Sparsifier, count: int) -> None:
        for number in range(count):
            inputs = torch.full((4, 6), float(number + 1))
            torch.autograd.backward(nn.functional.cross_entropy(module(inputs), torch.tensor([0, 1, 2, 0])))
            sparsifier.step()

    module, sparsifier, _ = attached()
    assert sum(p.numel() for p in sparsifier.parameters()) == 5
    steps(module, sparsifier, 4)
    state = sparsifier.state_dict()
    other, again, _ = attached()
    other.load_state_dict(module.state_dict())
    again.load_state_dict(state)
    torch.testing.assert_close(other.weight, module.weight, rtol=0, atol=0)
