"""Structures: layouts against hand-made goldens, group norms against torch, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.structure import Channel, Element, NofM, from_blocks, parse_structure, to_blocks
from sparsepack.errors import UsageError
from sparsepack.models.prunable import PrunableTensor


def tensor(*shape: int, output_axis: int = 0) -> PrunableTensor:
    return PrunableTensor("w", shape, "conv" if len(shape) > 2 else "linear", output_axis, 0, 0)


def test_parse() -> None:
    assert parse_structure("element") == Element()
    assert parse_structure("channel") == Channel()
    assert parse_structure("2:4") == NofM(2, 4)
    assert [parse_structure(text).text for text in ("element", "channel", "16:32")] == ["element", "channel", "16:32"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filter", "unknown structure 'filter'. Choose from: element, N:M"),
        ("2:", "unknown structure"),
        ("4:2", "needs 1 <= N < M"),
        ("0:4", "needs 1 <= N < M"),
        ("4:4", "needs 1 <= N < M"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_structure(text)


def test_linear_blocks_run_along_the_inputs() -> None:
    weight = np.arange(16).reshape(2, 8)
    assert to_blocks(weight, 0, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_onnx_matmul_blocks_run_along_k() -> None:
    weight = np.arange(8).reshape(4, 2)  # [K, N]
    assert to_blocks(weight, 1, 4).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_convolution_blocks_run_along_the_input_channels_at_each_kernel_position() -> None:
    # [O=1, I=4, kH=1, kW=2]; channels-last order is (kH, kW, I).
    weight = np.array([[[[0, 1]], [[10, 11]], [[20, 21]], [[30, 31]]]])
    assert to_blocks(weight, 0, 4).tolist() == [[0, 10, 20, 30], [1, 11, 21, 31]]
    # Two input channels: a block of four spans two kernel positions.
    assert to_blocks(weight[:, :2], 0, 4).tolist() == [[0, 10, 1, 11]]


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple),
    output_axis=st.integers(0, 1),
    data=st.data(),
)
def test_blocks_come_back(shape: tuple[int, ...], output_axis: int, data: st.DataObject) -> None:
    length = math.prod(shape) // shape[output_axis]
    m = data.draw(st.sampled_from([d for d in range(1, length + 1) if length % d == 0]))
    array = np.arange(math.prod(shape)).reshape(shape)
    blocks = to_blocks(array, output_axis, m)
    back = from_blocks(blocks, shape, output_axis)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, array)
    # No block mixes two output units.
    units = np.broadcast_to(
        np.arange(shape[output_axis]).reshape([-1 if a == output_axis else 1 for a in range(len(shape))]), shape
    )
    rows = to_blocks(np.ascontiguousarray(units), output_axis, m)
    assert (rows == rows[:, :1]).all()


def test_reduction_length_decides_what_n_of_m_fits() -> None:
    structure = NofM(2, 4)
    assert structure.eligible(tensor(64, 64, 3, 3)) is None
    assert structure.eligible(tensor(16, 6, 2, 2)) is None  # 24
    assert structure.eligible(tensor(64, 3, 7, 7)) == "its reduction length 147 is no multiple of 4"
    assert structure.eligible(tensor(8, 10, output_axis=1)) is None
    assert structure.eligible(tensor(10, 8, output_axis=1)) == "its reduction length 10 is no multiple of 4"


def test_n_of_m_says_which_sparsities_are_possible() -> None:
    assert NofM(2, 4).reachable(0.5) is None
    assert NofM(1, 3).reachable(1 - 1 / 3) is None
    reason = NofM(2, 4).reachable(0.9)
    assert reason is not None
    assert "its sparsity is 0.5, not 0.9" in reason
    assert "0.25 (3:4), 0.5 (2:4), 0.75 (1:4)" in reason


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf, -math.inf])
@pytest.mark.parametrize("output_axis", [0, 1])
def test_channel_norms_equal_torch(norm: float, output_axis: int) -> None:
    weight = np.random.default_rng(3).standard_normal((4, 5, 3, 2))
    given_tensor = tensor(4, 5, 3, 2, output_axis=output_axis)
    rest = [axis for axis in range(4) if axis != output_axis]
    expected = torch.linalg.vector_norm(torch.from_numpy(weight), norm, dim=rest).numpy()
    scores = Channel(norm).group_scores(np.abs(weight), given_tensor)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    size = Channel().groups(given_tensor).size
    share = {1.0: size, 2.0: math.sqrt(size)}.get(norm, 1)
    np.testing.assert_allclose(
        Channel(norm).group_scores(np.abs(weight), given_tensor, normalise=True), expected / share, rtol=1e-12
    )


def test_channel_refuses_another_norm() -> None:
    with pytest.raises(UsageError, match=r"channel norm 3\.0 is not known; choose 1, 2, inf or -inf"):
        Channel(3.0).group_scores(np.ones((2, 2)), tensor(2, 2))


def test_channel_expands_to_whole_output_units() -> None:
    mask = Channel().expand(np.array([True, False, True]), tensor(3, 2, 2))
    assert mask.tolist() == [[[True] * 2] * 2, [[False] * 2] * 2, [[True] * 2] * 2]
    across = Channel().expand(np.array([True, False]), tensor(3, 2, output_axis=1))
    assert across.tolist() == [[True, False]] * 3
    across[0, 0] = False  # a mask of its own, not a view with shared memory
    assert across[1, 0]


def test_group_counts() -> None:
    weight = tensor(8, 4, 3, 3)
    assert (Element().groups(weight).count, Element().groups(weight).size) == (288, 1)
    assert (Channel().groups(weight).count, Channel().groups(weight).size) == (8, 36)
    assert (NofM(2, 4).groups(weight).count, NofM(2, 4).groups(weight).size) == (72, 4)
