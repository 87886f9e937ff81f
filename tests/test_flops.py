"""Multiply-adds against published totals and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsepack.errors import ModelError
from sparsepack.models.flops import layer_macs
from sparsepack.models.zoo import ZOO


def macs_of(name: str, batch: int = 1) -> dict[str, int]:
    entry = ZOO[name]
    module, _ = entry.build()
    dtype = torch.int64 if entry.input_dtype == "int64" else torch.float32
    return layer_macs(module, (torch.ones((batch, *entry.input_shape), dtype=dtype),))


def test_resnet_50_takes_the_published_multiply_adds() -> None:
    # methods.md 9.5: 4.0892e9 for one 224x224 image.
    macs = macs_of("resnet-50")
    assert sum(macs.values()) == 4_089_184_256 and len(macs) == 54
    assert macs["conv1.weight"] == 112 * 112 * 64 * 147
    assert macs["layer2.0.conv2.weight"] == 28 * 28 * 128 * 128 * 9
    assert macs["fc.weight"] == 2048 * 1000


def test_vgg_16_takes_the_published_multiply_adds() -> None:
    # methods.md 2.9: 313.46 M for the variant with a 512x512 layer before the classifier.
    total = sum(macs_of("vgg-16").values())
    assert total + 512 * 512 == 313_463_808


def test_resnet_20_takes_the_closed_form() -> None:
    expected = 32 * 32 * 9 * (3 * 16 + 6 * 16 * 16)
    expected += 16 * 16 * 9 * (16 * 32 + 5 * 32 * 32) + 8 * 8 * 9 * (32 * 64 + 5 * 64 * 64) + 64 * 10
    assert sum(macs_of("resnet-20").values()) == expected == 40_551_040


@pytest.mark.parametrize("batch", [1, 3])
def test_a_linear_weight_takes_part_once_and_a_token_weight_once_a_token(batch: int) -> None:
    assert sum(macs_of("lenet-300-100", batch).values()) == 266_200
    macs = macs_of("text-encoder", batch)
    assert macs["blocks.1.key.weight"] == 32 * 64 * 64 and macs["classifier.weight"] == 64 * 4


def test_groups_strides_and_other_dimensions() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Conv1d(6, 2, 1, stride=3))
    assert layer_macs(model, (torch.zeros(5, 4, 11),)) == {"0.weight": 9 * 6 * 2 * 3, "1.weight": 3 * 2 * 6}
    assert layer_macs(nn.Conv3d(2, 3, 2), (torch.zeros(2, 2, 4, 4, 4),)) == {"weight": 27 * 3 * 2 * 8}


def test_a_layer_that_runs_twice_counts_twice_and_an_unused_one_not_at_all() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(4, 4)
            self.tied = nn.Linear(4, 4)
            self.tied.weight = self.used.weight
            self.unused = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.tied(self.used(self.used(x)))
            return y

    assert layer_macs(Twice(), (torch.zeros(2, 4),)) == {"used.weight": 48, "unused.weight": 0}


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_counts_its_projections(batch_first: bool) -> None:
    class Attend(nn.Module):
        def __init__(self, **sizes: int) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, **sizes)

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            if not batch_first:
                x, memory = x.transpose(0, 1), memory.transpose(0, 1)
            y: torch.Tensor = self.attention(x, memory, value=memory, need_weights=False)[0]
            return y

    x, memory = torch.zeros(2, 5, 8), torch.zeros(2, 7, 8)
    assert layer_macs(Attend(), (x, memory)) == {
        "attention.in_proj_weight": (5 + 7 + 7) * 64,
        "attention.out_proj.weight": 5 * 64,
    }
    assert layer_macs(Attend(kdim=3, vdim=3), (x, torch.zeros(2, 7, 3))) == {
        "attention.q_proj_weight": 5 * 64,
        "attention.k_proj_weight": 7 * 24,
        "attention.v_proj_weight": 7 * 24,
        "attention.out_proj.weight": 5 * 64,
    }


def test_the_fused_encoder_kernel_hides_nothing() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    macs = layer_macs(layer, (torch.zeros(2, 5, 8),))
    assert macs == {
        "self_attn.in_proj_weight": 5 * 192,
        "self_attn.out_proj.weight": 5 * 64,
        "linear1.weight": 5 * 128,
        "linear2.weight": 5 * 128,
    }
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    layer_macs(model, (torch.ones(2, 4),))
    assert model.training and model[1].training and not model[2].training
    assert model[1].num_batches_tracked == 0
    assert not model[0]._forward_hooks


def test_a_first_axis_that_is_no_batch_is_refused() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.fc(x.sum(dim=0, keepdim=True))
            return y

    with pytest.raises(ModelError, match=r"'fc\.weight' takes 12 multiply-adds for 5 samples"):
        layer_macs(Sums(), (torch.zeros(5, 4),))
