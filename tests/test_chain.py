"""Plain chains: found where they are, refused where they are not, and always equal to the module."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.files import canonical_json
from sparsepack.models.chain import ACTIVATIONS, chain_of
from sparsepack.models.zoo import ZOO

IMAGE = torch.zeros(1, 1, 4, 4)


class Two(nn.Module):
    """Two linear layers around whatever the test does."""

    def __init__(self, run: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 16)
        self.fc2 = nn.Linear(16, 16, bias=False)
        self.run = run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


FC1 = {"op": "linear", "weight": "fc1.weight", "bias": "fc1.bias"}
FC2 = {"op": "linear", "weight": "fc2.weight", "bias": None}
FLATTEN = {"op": "flatten"}
RELU = {"op": "relu"}


def test_lenet_300_100_is_a_chain() -> None:
    module, _ = ZOO["lenet-300-100"].build()
    chain = chain_of(module, (torch.zeros(1, 1, 28, 28),))
    fc3 = {"op": "linear", "weight": "fc3.weight", "bias": "fc3.bias"}
    fc2 = {"op": "linear", "weight": "fc2.weight", "bias": "fc2.bias"}
    assert chain == [FLATTEN, FC1, RELU, fc2, RELU, fc3]
    assert canonical_json(chain)
    assert module.training


def test_a_chain_gives_the_modules_output_in_plain_numpy() -> None:
    model = nn.Sequential(
        OrderedDict(flat=nn.Flatten(), fc1=nn.Linear(16, 7), act=nn.Tanh(), fc2=nn.Linear(7, 5), out=nn.Sigmoid())
    )
    chain = chain_of(model, (IMAGE,))
    assert chain is not None
    state = {name: value.detach().numpy().astype(np.float64) for name, value in model.named_parameters()}
    inputs = torch.randn(6, 1, 4, 4)
    x = inputs.numpy().astype(np.float64)
    for step in chain:
        if step["op"] == "flatten":
            x = x.reshape(len(x), -1)
        elif step["op"] == "linear":
            x = x @ state[step["weight"]].T + state[step["bias"]]
        else:
            x = np.tanh(x) if step["op"] == "tanh" else 1 / (1 + np.exp(-x))
    assert np.abs(x - model(inputs).detach().numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda m, x: m.fc2(F.relu(m.fc1(torch.flatten(x, 1)))), [FLATTEN, FC1, RELU, FC2]),
        (lambda m, x: m.fc2(m.fc1(x.flatten(start_dim=1)).relu()), [FLATTEN, FC1, RELU, FC2]),
        (lambda m, x: m.fc1(x.view(x.size(0), -1)), [FLATTEN, FC1]),
        (lambda m, x: m.fc1(x.view(x.shape[0], -1)), [FLATTEN, FC1]),
        (lambda m, x: m.fc1(x.reshape(-1, 16)), [FLATTEN, FC1]),
        (lambda m, x: m.fc1(torch.reshape(x, (-1, 16))), [FLATTEN, FC1]),
        (
            lambda m, x: torch.sigmoid(torch.tanh(m.fc1(x.flatten(1)))),
            [FLATTEN, FC1, {"op": "tanh"}, {"op": "sigmoid"}],
        ),
        (lambda m, x: F.dropout(m.fc1(x.flatten(1)), 0.5, m.training), [FLATTEN, FC1]),
        (lambda m, x: m.fc1(m.fc1(x.flatten(1))), [FLATTEN, FC1, FC1]),
    ],
)
def test_ways_to_write_a_chain(
    run: Callable[[nn.Module, torch.Tensor], torch.Tensor], expected: list[dict[str, object]]
) -> None:
    assert chain_of(Two(run), (IMAGE,)) == expected


def branches(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    weight = module.get_parameter("fc1.weight" if float(x.sum()) > 0 else "fc2.weight")
    return F.linear(x.flatten(1), weight)


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.fc2(m.fc1(x.flatten(1))) + x.flatten(1),
        lambda m, x: m.fc1(x.flatten(1)) * 2,
        lambda m, x: m.fc1(torch.flatten(x)),
        lambda m, x: m.fc1(x.flatten(2).flatten(1, 2)),
        lambda m, x: F.softmax(m.fc1(x.flatten(1)), dim=1),
        lambda m, x: m.fc1(x.view(x.size(0), -1)).view(-1, 8),
        lambda m, x: (m.fc1(x.flatten(1)), x),
        lambda m, x: m.fc1(F.linear(x.flatten(1), m.fc2.weight)),
        lambda m, x: x.flatten(1) if m.fc1(x.flatten(1)) is None else m.fc1(x.flatten(1)).sort()[0],
        branches,
    ],
)
def test_what_is_no_chain(run: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
    assert chain_of(Two(run), (IMAGE,)) is None


@pytest.mark.parametrize("name", ["lenet-s4", "resnet-20"])
def test_convolutions_are_no_chain(name: str) -> None:
    module, _ = ZOO[name].build()
    assert chain_of(module, (torch.zeros(1, *ZOO[name].input_shape),)) is None


def test_layers_that_a_chain_does_not_have() -> None:
    x = torch.zeros(1, 16)
    assert chain_of(nn.Sequential(nn.Linear(16, 4), nn.PReLU()), (x,)) is None
    assert chain_of(nn.Sequential(nn.Linear(16, 4), nn.GELU()), (x,)) is None
    assert chain_of(nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4, affine=False)), (x,)) is None
    assert chain_of(nn.Sequential(nn.Linear(16, 4), nn.Dropout(), nn.Identity()), (x,)) == [
        {"op": "linear", "weight": "0.weight", "bias": "0.bias"}
    ]


def test_inputs_that_a_chain_does_not_take() -> None:
    linear = nn.Linear(16, 4)
    assert chain_of(linear, (torch.zeros(1, 16),)) == [{"op": "linear", "weight": "weight", "bias": "bias"}]
    assert chain_of(linear, (torch.zeros(1, 3, 16),)) is None
    assert chain_of(linear, (torch.zeros(1, 16), torch.zeros(1, 16))) is None
    text, _ = ZOO["text-encoder"].build()
    assert chain_of(text, (torch.zeros(1, 32, dtype=torch.int64),)) is None


def test_a_list_that_would_compute_something_else_is_not_given() -> None:
    model = nn.Sequential(nn.Linear(16, 4), nn.ReLU())
    model[0].register_forward_hook(lambda _layer, _inputs, output: output + 1)
    assert chain_of(model, (torch.zeros(1, 16),)) is None


def test_the_activations_are_these() -> None:
    assert ACTIVATIONS == ("relu", "tanh", "sigmoid")
