"""What goes with a mask at initialisation: gates through training steps and on units, isometry, edge of chaos."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pai_probes import perceptron, probe_of, scored, small_data
from torch import nn

from sparsepack.compressor.evidence import EVIDENCE
from sparsepack.compressor.evidence.reach import reached_inputs
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.scores.gates import weights_and_units
from sparsepack.compressor.transforms import find_transform
from sparsepack.compressor.transforms.isometry import deviation
from sparsepack.models.data import make_dataset
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX

PROSPR = {"steps": 3, "inner_rate": 0.5, "inner_momentum": 0.9, "first_order": False, "batch_size": 6, "mode": "train"}


def test_prospr_without_steps_is_snip() -> None:
    module = perceptron(5, 6, 3, bias=True)
    ahead = scored("prospr", probe_of(module, small_data(), (5,), **{**PROSPR, "steps": 0, "mode": "eval"}))
    snip = scored("gradient", probe_of(module, small_data(), (5,), batches=1, batch_size=6, mode="eval"))
    for name in snip:
        np.testing.assert_allclose(ahead[name], snip[name], rtol=1e-5)


def loss_after(module: nn.Sequential, gates: dict[str, torch.Tensor], first_order: bool) -> float:
    """The loss after three steps of SGD with momentum on w c, by a plain loop; first order trains with c = 1."""
    data = small_data()
    batches = list(itertools.islice(data.batches("train", 6, seed=1, epoch=0), 4))
    weights = {name: p.detach().double().clone().requires_grad_() for name, p in module.named_parameters()}
    speed = {name: torch.zeros_like(w) for name, w in weights.items()}
    ones = {name: torch.ones_like(gate) for name, gate in gates.items()}

    def loss(inputs: torch.Tensor, labels: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
        effective = {name: w * c[name] if name in c else w for name, w in weights.items()}
        outputs: torch.Tensor = torch.func.functional_call(module, effective, (inputs.double(),))
        return F.cross_entropy(outputs, labels)

    for inputs, labels in batches[:3]:
        found = torch.autograd.grad(loss(inputs, labels, ones if first_order else gates), list(weights.values()))
        for (name, w), g in zip(weights.items(), found, strict=True):
            speed[name] = 0.9 * speed[name] + g
            weights[name] = (w - 0.5 * speed[name]).detach().requires_grad_()
    return float(loss(*batches[3], gates).detach())


@pytest.mark.parametrize("first_order", [False, True])
def test_gates_through_training_steps_against_finite_differences(first_order: bool) -> None:
    module = perceptron(5, 4, 3, bias=True)
    probe = probe_of(module, small_data(), (5,), **{**PROSPR, "first_order": first_order})
    found = EVIDENCE["unrolled-gates"].gather(probe)
    assert all(p.grad is None for p in module.parameters())
    gates = {name: torch.ones(found[name].shape, dtype=torch.float64) for name in found}
    for name, place in [("0.weight", 3), ("0.weight", 11), ("2.weight", 0), ("2.weight", 7)]:
        values = []
        for change in (1e-4, -1e-4):
            moved = {key: gate.clone() for key, gate in gates.items()}
            moved[name].view(-1)[place] += change
            values.append(loss_after(module, moved, first_order))
        expected = (values[0] - values[1]) / 2e-4
        assert found[name].reshape(-1)[place] == pytest.approx(expected, rel=2e-2, abs=2e-4)


def convolutional(bias: bool = False) -> Any:
    module: Any = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    initialise(module, "uniform", 0, PHILOX)
    with torch.no_grad():
        module[1].bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    return module


def test_gates_on_units_against_finite_differences() -> None:
    module: Any = convolutional(bias=True).double()
    data = small_data(shape=(1, 6, 6))
    inputs, labels = next(data.batches("train", 10, seed=1))
    probe = probe_of(convolutional(bias=True), data, (1, 6, 6), batches=1, batch_size=10, mode="eval")
    found = EVIDENCE["unit-gates"].gather(probe)
    assert list(found) == ["0.weight", "3.weight"]
    module.eval()
    for layer, unit in ((0, 1), (3, 4)):
        values = []
        for change in (1e-5, -1e-5):
            twin = convolutional(bias=True).double().eval()
            with torch.no_grad():
                twin[layer].weight[unit] *= 1 + change
                twin[layer].bias[unit] *= 1 + change
                values.append(float(F.cross_entropy(twin(inputs.double()), labels)))
        expected = (values[0] - values[1]) / 2e-5
        assert found[f"{layer}.weight"][unit] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_one_threshold_for_weights_and_units() -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal((2, 3))}
    gradients = {name: rng.standard_normal(w.shape) for name, w in weights.items()}
    gates = {"a": rng.standard_normal(3)}
    scores = weights_and_units(weights, gradients, gates)
    own = {name: np.abs(weights[name] * gradients[name]) for name in weights}
    for threshold in np.linspace(0.05, 1.0, 12):
        kept = {name: value >= threshold for name, value in own.items()}
        kept["a"] &= (np.abs(gates["a"]) >= threshold)[:, None]
        total = sum(int(mask.sum()) for mask in kept.values())
        joined = np.concatenate([s.reshape(-1) for s in scores.values()])
        expected = np.concatenate([mask.reshape(-1) for mask in kept.values()])
        top = np.zeros(joined.size, bool)
        top[np.argsort(-joined, kind="stable")[:total]] = True
        np.testing.assert_array_equal(top, expected)


def test_edge_of_chaos_holds_exactly_in_every_layer() -> None:
    module = perceptron(12, 30, 20, 5)
    probe = probe_of(module, None, (12,))
    masks = {}
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            masks[name] = rng.random(parameter.shape) < 0.2
            parameter.mul_(torch.from_numpy(masks[name]))
        parameter.zero_()
    probe.masks = masks
    changed = find_transform("edge-of-chaos").apply(probe).weights
    assert changed is not None
    for name in ("0.weight", "2.weight"):
        weight = changed[name].astype(np.float64)
        assert weight.shape[1] * np.square(weight).mean() == pytest.approx(2.0, rel=1e-5)
        np.testing.assert_array_equal(weight != 0, masks[name])
    # A layer with nothing left stays empty.
    assert not changed["4.weight"].any()


def test_edge_of_chaos_carries_signals_through_fifty_masked_layers() -> None:
    width, depth = 300, 50
    module: Any = perceptron(*[width] * (depth + 1))
    initialise(module, "kaiming-normal", 0, PHILOX)
    probe = probe_of(module, None, (width,))
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(torch.from_numpy(rng.random(parameter.shape) < 0.1))
    inputs = torch.randn(16, width, generator=torch.Generator().manual_seed(0))

    def moment() -> float:
        with torch.no_grad():
            return float(module(inputs).square().mean() / module[0](inputs).square().mean())

    # A tenth of the variance is left by every layer.
    assert moment() < 1e-40
    changed = find_transform("edge-of-chaos").apply(probe).weights
    assert changed is not None
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(changed[name]))
    # Fifty random layers let the moment of one draw wander; it does not fall geometrically.
    assert 0.1 < moment() < 10


def isometric(density: float, steps: int) -> tuple[nn.Sequential, dict[str, np.ndarray], dict[str, np.ndarray]]:
    module = nn.Sequential(*(nn.Linear(40, 40, bias=False) for _ in range(7)))
    initialise(module, "orthogonal", 0, PHILOX)
    probe = probe_of(module, None, (40,), isometry_steps=steps, isometry_rate=0.1)
    rng = np.random.default_rng(2)
    masks = {name: rng.random(p.shape) < density for name, p in module.named_parameters()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.mul_(torch.from_numpy(masks[name]))
    probe.masks = masks
    changed = find_transform("approximate-isometry").apply(probe).weights
    assert changed is not None
    return module, masks, dict(changed)


def test_an_orthogonal_network_is_isometric_already() -> None:
    module, _, changed = isometric(1.1, 5)
    for name, parameter in module.named_parameters():
        assert float(deviation(parameter.detach())[1]) < 1e-4
        np.testing.assert_allclose(changed[name], parameter.detach().numpy(), atol=1e-6)


def test_isometry_brings_singular_values_of_the_whole_network_towards_one() -> None:
    module, masks, changed = isometric(0.3, 300)

    def values(state: dict[str, np.ndarray]) -> np.ndarray:
        jacobian = np.eye(40)
        for weight in state.values():
            jacobian = weight.astype(np.float64) @ jacobian
        return np.linalg.svd(jacobian, compute_uv=False)

    before = {name: p.detach().numpy() for name, p in module.named_parameters()}
    for name, mask in masks.items():
        assert not changed[name][~mask].any()
        penalties = [float(deviation(torch.from_numpy(state[name]))[1]) for state in (before, changed)]
        assert penalties[1] < 0.5 * penalties[0]
    assert values(before).mean() < 0.2
    assert 0.7 < values(changed).mean() < 1.3


def test_isometry_of_a_tall_matrix_takes_its_columns() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 12, bias=False))
    initialise(module, "orthogonal", 0, PHILOX)
    probe = probe_of(module, None, (4,), isometry_steps=3, isometry_rate=0.1)
    probe.masks = {"0.weight": np.ones((12, 4), bool)}
    changed = find_transform("approximate-isometry").apply(probe).weights
    assert changed is not None
    np.testing.assert_allclose(changed["0.weight"], module[0].weight.detach().numpy(), atol=1e-6)


def test_inputs_that_nothing_reaches_are_found_behind_norms_pools_and_flattening() -> None:
    module: Any = convolutional()
    with torch.no_grad():
        module[0].weight[1].zero_()
        module[3].weight[:3].zero_()
    found = reached_inputs(probe_of(module, None, (1, 6, 6)))
    assert found == {"0.weight": 1.0, "3.weight": 0.75, "6.weight": 0.5}


def test_a_smaller_fan_in_rescales_as_if_drawn_for_it() -> None:
    module: Any = convolutional()
    with torch.no_grad():
        module[0].weight[1].zero_()
        module[3].weight[:3].zero_()
    changed = find_transform("smaller-fan-in").apply(probe_of(module, None, (1, 6, 6))).weights
    assert changed is not None
    assert set(changed) == {"3.weight", "6.weight"}
    np.testing.assert_allclose(changed["3.weight"], module[3].weight.detach().numpy() / math.sqrt(0.75), rtol=1e-6)
    np.testing.assert_allclose(changed["6.weight"], module[6].weight.detach().numpy() * math.sqrt(2), rtol=1e-6)


def run_of(tmp_path: Path, method: str, **options: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = random.standard_normal((24, 1, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    make_dataset("same", images, labels, images, labels)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3),\n"
        "        nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))\n"
    )
    recipe = single_run(
        None, f"{tmp_path / 'net.py'}:build", method=method, data=f"npz:{tmp_path / 'data.npz'}", epochs=0,
        threads=1, init="kaiming-normal", method_options=("batch_size=24",), **options,
    )  # fmt: skip
    made = prune(recipe, tmp_path / method)
    return {name: tensor.mask for name, tensor in made.tensors.items() if tensor.mask is not None}


def test_3sp_removes_the_units_of_least_sensitivity_per_operation(tmp_path: Path) -> None:
    masks = run_of(tmp_path, "3sp", sparsity=0.4, saliency="gate-per-operation")
    module: Any = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip
    initialise(module, "kaiming-normal", 0, PHILOX)
    module.eval()
    stored = np.load(tmp_path / "data.npz")
    inputs, labels = torch.from_numpy(stored["x_train"]), torch.from_numpy(stored["y_train"])
    gates = [torch.ones(1, width, 1, 1, requires_grad=True) for width in (4, 6)]
    hidden = module[2](module[1](module[0](inputs)) * gates[0])
    loss = F.cross_entropy(module[6](module[5](module[4](module[3](hidden) * gates[1]))), labels)
    found = [g.abs().flatten().numpy() for g in torch.autograd.grad(loss, gates)]
    # Multiply-adds of a unit: 9 weights at 16 positions, 36 weights at 4.
    ranked = sorted(
        [(found[0][u] / (9 * 16), 9, 0, u) for u in range(4)] + [(found[1][u] / (36 * 4), 36, 1, u) for u in range(6)],
        key=lambda entry: -entry[0],
    )
    budget = 252 - round(0.4 * 252)
    kept: list[set[int]] = [set(), set()]
    for _, size, layer, unit in ranked:
        if size <= budget:
            budget -= size
            kept[layer].add(unit)
    for layer, name in enumerate(("0.weight", "3.weight")):
        units = masks[name].reshape(len(masks[name]), -1)
        assert set(np.flatnonzero(units.any(axis=1)).tolist()) == kept[layer]


def test_of_equally_sensitive_units_the_costliest_goes_first() -> None:
    from sparsepack.compressor.coupling import Width
    from sparsepack.compressor.saliency import SALIENCIES, UnitEvidence
    from sparsepack.models.graph.groups import Member

    def width(name: str) -> Width:
        return Width(name, 2, 3, (Member(name, 0, True, np.arange(2)),), ())

    evidence = UnitEvidence(
        weights={n: np.ones((2, 3)) for n in "ab"},
        gradients={n: np.full((2, 3), 0.5) for n in "ab"},
        macs={"a": 600, "b": 60},
    )
    coupling: Any = type("Coupling", (), {"normalised": frozenset()})()
    scores = [SALIENCIES["gate-per-operation"].score(coupling, width(n), evidence, "sum", True) for n in "ab"]
    np.testing.assert_allclose(scores[0], 1.5 / 300)
    np.testing.assert_allclose(scores[1], 1.5 / 30)


def test_snap_it_climbs_the_ladder_and_its_rounds_are_nested(tmp_path: Path) -> None:
    masks = run_of(tmp_path, "snap-it", sparsity=0.7)
    kept = sum(int(mask.sum()) for name, mask in masks.items() if name in ("0.weight", "3.weight"))
    assert 252 - round(0.7 * 252) - 36 < kept <= 252 - round(0.7 * 252)
