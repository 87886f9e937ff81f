"""What may be pruned, and the bridge between tensors and arrays."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsepack.models.prunable import PrunableTensor, fans, prunable_tensors
from sparsepack.models.tensors import to_numpy, to_torch


def names(module: nn.Module) -> list[str]:
    return [tensor.name for tensor in prunable_tensors(module)]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.conv = nn.Conv2d(4, 6, (3, 2), groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.attention = nn.MultiheadAttention(8, 2)
        self.cross = nn.MultiheadAttention(8, 2, kdim=5, vdim=3)
        self.head = nn.Linear(8, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2)


def test_weights_of_convolutions_and_linear_layers_in_state_dict_order() -> None:
    found = prunable_tensors(Mixed(), {"head.weight": 24})
    assert found == [
        PrunableTensor("conv.weight", (6, 2, 3, 2), "conv", 0, 12, 36),
        PrunableTensor("attention.in_proj_weight", (24, 8), "linear", 0, 8, 24),
        PrunableTensor("attention.out_proj.weight", (8, 8), "linear", 0, 8, 8),
        PrunableTensor("cross.q_proj_weight", (8, 8), "linear", 0, 8, 8),
        PrunableTensor("cross.k_proj_weight", (8, 5), "linear", 0, 5, 8),
        PrunableTensor("cross.v_proj_weight", (8, 3), "linear", 0, 3, 8),
        PrunableTensor("cross.out_proj.weight", (8, 8), "linear", 0, 8, 8),
        PrunableTensor("head.weight", (3, 8), "linear", 0, 8, 3, 24),
    ]
    order = list(Mixed().state_dict())
    assert [order.index(tensor.name) for tensor in found] == sorted(order.index(tensor.name) for tensor in found)
    assert found[0].size == 72


@pytest.mark.parametrize(
    "layer", [nn.Linear(7, 5), nn.Conv1d(6, 4, 3), nn.Conv2d(8, 6, (3, 5), groups=2), nn.Conv3d(2, 3, 2)]
)
def test_fans_are_those_of_the_framework(layer: nn.Linear | nn.Conv2d) -> None:
    (tensor,) = prunable_tensors(layer)
    assert (tensor.fan_in, tensor.fan_out) == nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert fans(tensor.shape) == (tensor.fan_in, tensor.fan_out)


def test_tied_weights_appear_once_under_their_first_name() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert names(nn.Sequential(first, second)) == ["0.weight"]
    assert names(nn.Sequential(first, first)) == ["0.weight"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_weight_without_entries_is_not_prunable() -> None:
    assert prunable_tensors(nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2), nn.Conv2d(2, 0, 3))) == []


def test_a_linear_weight_tied_to_an_embedding_is_not_prunable() -> None:
    embedding, head = nn.Embedding(9, 4), nn.Linear(4, 9)
    head.weight = embedding.weight
    assert names(nn.Sequential(embedding, head)) == []
    assert names(nn.Sequential(head, embedding)) == []


def test_a_reparametrised_weight_is_not_prunable() -> None:
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    parametrize.register_parametrization(model[0], "weight", Double())
    assert names(model) == ["1.weight"]


def test_a_subclass_of_a_layer_is_prunable() -> None:
    class Scaled(nn.Linear):
        pass

    assert names(Scaled(2, 2)) == ["weight"]


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_a_tensor_comes_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.arange(max(1, int(np.prod(shape)))).to(torch.float32) - 1.5)[: int(np.prod(shape))]
    tensor = tensor.reshape(shape).to(dtype)
    array = to_numpy(tensor)
    assert array.shape == shape and array.dtype.name == str(dtype).removeprefix("torch.")
    back = to_torch(array)
    assert back.dtype == dtype and back.shape == tensor.shape
    assert torch.equal(back.to(torch.float64), tensor.to(torch.float64))


def test_bfloat16_keeps_its_values() -> None:
    array = to_numpy(torch.tensor([1.0, -2.5], dtype=torch.bfloat16))
    assert array.dtype == ml_dtypes.bfloat16 and array.astype(np.float32).tolist() == [1.0, -2.5]


def test_tensors_and_arrays_share_memory_where_they_can() -> None:
    tensor = torch.zeros(4)
    to_numpy(tensor)[1] = 5.0
    assert tensor[1] == 5.0
    array = np.zeros(3, np.float32)
    to_torch(array)[2] = 7.0
    assert array[2] == 7.0


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    frozen = np.arange(4, dtype=np.float32)
    frozen.setflags(write=False)
    assert to_torch(frozen).tolist() == [0, 1, 2, 3]
    assert to_torch(np.arange(4.0)[::-1]).tolist() == [3, 2, 1, 0]
    assert to_torch(np.arange(3, dtype=">f4")).tolist() == [0, 1, 2]
    assert to_torch(np.arange(6.0).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_parameter_with_a_gradient_converts() -> None:
    assert to_numpy(nn.Linear(2, 2).weight).shape == (2, 2)
