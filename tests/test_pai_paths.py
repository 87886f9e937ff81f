"""Paths, recurrent Jacobians and tangent kernels: PHEW, Zhang and Stadie, and neural tangent transfer."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pai_probes import perceptron, probe_of, small_data
from torch import nn

from sparsepack.compressor.evidence import EVIDENCE
from sparsepack.compressor.evidence.layer_graph import layer_graph
from sparsepack.compressor.evidence.walks import _Layer, _Stream, _Walker, walks
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.scores.gates import jacobian_sensitivity
from sparsepack.compressor.transforms import find_transform
from sparsepack.compressor.transforms.tangent_transfer import tangent_kernel, transfer_distance
from sparsepack.errors import UnsupportedError
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX
from sparsepack.models.zoo import ZOO


def on_paths(masks: list[np.ndarray]) -> bool:
    """Whether every kept weight of a chain of linear layers lies on a path of kept weights from input to output."""
    reached: Any = np.ones(masks[0].shape[1], bool)
    ahead = []
    for mask in masks:
        ahead.append(reached)
        reached = (mask & reached).any(axis=1)
    leads: Any = np.ones(masks[-1].shape[0], bool)
    for mask, before in zip(reversed(masks), reversed(ahead), strict=True):
        if (mask & ~(leads[:, None] & before[None, :])).any():
            return False
        leads = (mask & leads[:, None]).any(axis=0)
    return True


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.95, 0.98])
def test_walks_keep_exactly_so_many_weights_and_all_on_paths(sparsity: float) -> None:
    module = perceptron(20, 30, 12, 5)
    probe = probe_of(module, None, (20,))
    probe.sparsity = sparsity
    masks = [found > 0 for found in walks(probe).values()]
    total = sum(mask.size for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == total - round(sparsity * total)
    assert on_paths(masks)
    again = [found > 0 for found in walks(probe).values()]
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))


def test_a_step_takes_an_edge_in_proportion_to_its_weight() -> None:
    module: Any = perceptron(2, 3, 1)
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -5.0], [-2.0, 0.0], [3.0, 1.0]]))
        module[2].weight.copy_(torch.tensor([[1.0, -2.0, 5.0]]))
    probe = probe_of(module, None, (2,))
    graph = layer_graph(probe)
    layers = {name: _Layer.of(probe.weights()[name], graph.layers[name]) for name in graph.layers}
    walker = _Walker(graph, layers, _Stream(0, "test"))
    # Even turns go forward from the inputs in turn: the first input leaves by 1 : 2 : 3.
    forward = Counter(walker.walk(4 * k)[0] for k in range(6000))
    for place, share in (((0), 1 / 6), ((2), 2 / 6), ((4), 3 / 6)):
        assert forward["0.weight", place] / 6000 == pytest.approx(share, abs=0.03)
    # Odd turns go back from the output by 1 : 2 : 5; unit 1 has no weight from the second input.
    backward = [walker.walk(2 * k + 1) for k in range(6000)]
    first = Counter(edges[0] for edges in backward)
    for place, share in ((0, 1 / 8), (1, 2 / 8), (2, 5 / 8)):
        assert first["2.weight", place] / 6000 == pytest.approx(share, abs=0.03)
    assert all(edges[1] != ("0.weight", 3) for edges in backward)


def test_equal_weights_are_covered_equally() -> None:
    module = perceptron(6, 8, 4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    probe = probe_of(module, None, (6,))
    graph = layer_graph(probe)
    layers = {name: _Layer.of(probe.weights()[name], graph.layers[name]) for name in graph.layers}
    walker = _Walker(graph, layers, _Stream(0, "test"))
    seen = Counter(edge for turn in range(9600) for edge in walker.walk(turn))
    for name, size in (("0.weight", 48), ("2.weight", 32)):
        counts = np.array([seen[name, place] for place in range(size)])
        assert counts.sum() == 9600
        assert abs(counts / (9600 / size) - 1).max() < 0.3


def test_units_meet_through_pools_norms_flattening_and_residual_sums() -> None:
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)
    )
    graph = layer_graph(probe_of(chain, None, (2, 4, 4)))
    assert (graph.first, graph.last) == (["0.weight"], ["5.weight"])
    for channel in range(3):
        assert graph.successors["0.weight"][channel]["5.weight"].tolist() == list(range(4 * channel, 4 * channel + 4))
    module, _ = ZOO["resnet-20"].build((3, 8, 8), 4)
    graph = layer_graph(probe_of(module, None, (3, 8, 8)))
    assert len(graph.layers) == 20
    # The identity carries the stem to everything that reads the first stage's stream and, shifted, to what follows.
    readers = graph.successors["conv1.weight"][5]
    assert readers["layer1.0.conv1.weight"].tolist() == [5]
    assert readers["layer1.2.conv1.weight"].tolist() == [5]
    assert readers["layer2.1.conv1.weight"].tolist() == [5 + 8]
    assert readers["fc.weight"].tolist() == [5 + 8 + 16]
    assert "layer1.0.conv2.weight" not in readers
    assert graph.predecessors["layer1.0.conv2.weight"][3] == {"layer1.0.conv1.weight": np.array([3])}


def test_walks_leave_no_unit_dead_in_a_residual_network(tmp_path: Path) -> None:
    recipe = single_run(None, "resnet-20", method="phew", data="none", sparsity=0.98, threads=1)
    made = prune(recipe, tmp_path / "run")
    masks = {name: t.mask for name, t in made.tensors.items() if t.mask is not None}
    total = sum(mask.size for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.98 * total)
    module, _ = ZOO["resnet-20"].build()
    graph = layer_graph(probe_of(module, None, (3, 32, 32)))
    used: dict[str, Any] = {
        n: (m.any(axis=tuple(range(1, m.ndim))), m.any(axis=(0, *range(2, m.ndim)))) for n, m in masks.items()
    }
    for name, (given, taken) in used.items():
        for unit in np.flatnonzero(given):
            readers = graph.successors[name].get(int(unit), {})
            assert name == "fc.weight" or any(used[reader][1][units].any() for reader, units in readers.items())
        for unit in np.flatnonzero(taken):
            givers = graph.predecessors[name].get(int(unit), {})
            assert name == "conv1.weight" or any(used[giver][0][units].any() for giver, units in givers.items())


def test_what_has_no_simple_graph_is_refused() -> None:
    mixing = nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=-1), nn.Linear(4, 2))
    with pytest.raises(UnsupportedError, match=r"units of '0\.weight' are mixed before they reach '2\.weight'"):
        layer_graph(probe_of(mixing, None, (4,)))
    recurrent, _ = ZOO["lstm"].build((1, 3, 4), 2, hidden=3)
    with pytest.raises(UnsupportedError, match=r"the layer of 'input\.weight' runs more than once"):
        layer_graph(probe_of(recurrent, None, (1, 3, 4)))


class LinearRecurrence(nn.Module):
    """h_t = W h_{t-1} + U x_t, then a classifier; dh_T/dh_{T-s} is W^s whatever the inputs are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = nn.Linear(3, 4, bias=False)
        self.recurrent = nn.Linear(4, 4, bias=False)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(0, -3)
        hidden = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            hidden = self.input(x[:, step]) + self.recurrent(hidden)
        logits: torch.Tensor = self.fc(hidden)
        return logits


@pytest.mark.parametrize("span", [1, 3])
def test_the_jacobian_of_a_linear_recurrence_is_a_power_of_its_matrix(span: int) -> None:
    module = LinearRecurrence()
    data = small_data(classes=2, shape=(6, 3))
    found = EVIDENCE["temporal-jacobian"].gather(probe_of(module, data, (6, 3), batch_size=5, span=span))
    # The inputs do not enter a linear Jacobian, nor does the head.
    assert set(found) == {"recurrent.weight"} or not found["input.weight"].any()
    matrix = module.recurrent.weight.detach().double()

    def size(weight: torch.Tensor) -> float:
        return float((torch.linalg.matrix_power(weight, span) @ torch.ones(4, dtype=torch.float64)).norm())

    for place in itertools.product(range(4), range(4)):
        step = torch.zeros(4, 4, dtype=torch.float64)
        step[place] = 1e-6
        expected = (size(matrix + step) - size(matrix - step)) / 2e-6
        assert found["recurrent.weight"][place] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_lstm_is_pruned_in_its_cell_and_keeps_its_head(tmp_path: Path) -> None:
    recipe = single_run(None, "lstm", method="temporal-jacobian", data="digits", sparsity=0.95, epochs=0, threads=1)
    made = prune(recipe, tmp_path / "run")
    masks = {name: t.mask for name, t in made.tensors.items() if t.mask is not None}
    assert set(masks) == {"input.weight", "recurrent.weight"}
    total = 4 * 400 * (8 + 400)
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.95 * total)
    assert all(mask.any() for mask in masks.values())


def test_a_network_without_recurrence_is_told_so() -> None:
    with pytest.raises(UnsupportedError, match="needs a recurrent network"):
        EVIDENCE["temporal-jacobian"].gather(probe_of(perceptron(5, 4, 3), small_data(), (5,), batch_size=4, span=2))


def test_the_jacobian_score_compares_matrices_of_other_scale() -> None:
    weights = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 1.0])}
    gradients = {"a": np.array([1.0, 1.0]), "b": np.array([100.0, -300.0])}
    plain = jacobian_sensitivity(weights, gradients, normalise=False)
    np.testing.assert_allclose(plain["b"] / plain["a"][0], [300, 300], rtol=1e-5)
    scaled = jacobian_sensitivity(weights, gradients, normalise=True)
    np.testing.assert_allclose(np.concatenate([scaled["a"], scaled["b"]]), np.array([1, 2, 1.5, 1.5]) / 6, rtol=1e-6)


def states_of(module: nn.Module) -> tuple[dict[str, torch.Tensor], list[str]]:
    weights = {name: p.detach().double() for name, p in module.named_parameters()}
    return weights, list(weights)


def test_the_tangent_kernel_is_the_sum_over_parameters_and_positive() -> None:
    module = perceptron(4, 5, 2, bias=True).double()
    weights, names = states_of(module)
    inputs = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = tangent_kernel(module, weights, {}, inputs, inputs, names)
    rows = []
    for x in inputs:
        for output in range(2):
            gradients = torch.autograd.grad(module(x)[output], list(module.parameters()))
            rows.append(torch.cat([g.flatten() for g in gradients]))
    jacobian = torch.stack(rows)
    expected = (jacobian @ jacobian.T).reshape(3, 2, 3, 2).permute(0, 2, 1, 3)
    torch.testing.assert_close(kernel, expected)
    assert float(torch.linalg.eigvalsh(jacobian @ jacobian.T).min()) > -1e-9


def test_a_student_that_is_its_teacher_has_no_distance_and_one_that_is_not_has_the_closed_form() -> None:
    module = perceptron(4, 2).double()
    weights, names = states_of(module)
    inputs = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(transfer_distance(module, weights, weights, {}, inputs, names, 0.5)) == 0
    halved = {name: w / 2 for name, w in weights.items()}
    # The kernel of a linear map does not depend on its weights.
    expected = float((inputs @ weights["0.weight"].T / 2).square().sum()) / 6
    assert float(transfer_distance(module, halved, weights, {}, inputs, names, 0.5)) == pytest.approx(expected)


def test_transfer_brings_a_sparse_student_nearer_to_its_teacher() -> None:
    module: Any = perceptron(5, 16, 3)
    initialise(module, "kaiming-normal", 0, PHILOX)
    data = small_data()
    dense = {name: p.detach().numpy().copy() for name, p in module.named_parameters()}
    probe = probe_of(
        module, data, (5,), transfer_epochs=40, transfer_rate=5e-3, transfer_batch=10, kernel_weight=1e-3,
        kernel_decay=0.0, mask_interval=10,
    )  # fmt: skip
    probe.sparsity = 0.8
    probe.tape = lambda _: dense
    probe.masks = probe.rule.select({name: np.abs(w) for name, w in dense.items()}, 0.8)
    changed = find_transform("tangent-transfer").apply(probe)
    assert changed.masks is not None and changed.weights is not None
    assert sum(int(mask.sum()) for mask in changed.masks.values()) == 128 - round(0.8 * 128)
    inputs = torch.from_numpy(data.train_inputs).double()
    teacher = {name: torch.from_numpy(w).double() for name, w in dense.items()}
    names = list(teacher)
    start = {name: torch.from_numpy(dense[name] * probe.masks[name]).double() for name in names}
    end = {name: torch.from_numpy(changed.weights[name] * changed.masks[name]).double() for name in names}
    module.double()
    before, after = (float(transfer_distance(module, w, teacher, {}, inputs, names, 1e-3)) for w in (start, end))
    assert after < 0.7 * before
