"""The space: order, exclusions, and which tensors stay dense under which structure."""

import pytest

from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Channel, Element, NofM
from sparsepack.errors import UnsupportedError, UsageError
from sparsepack.models.prunable import PrunableTensor

LENET_5 = [
    PrunableTensor("conv1.weight", (20, 1, 5, 5), "conv", 0, 25, 500),
    PrunableTensor("conv2.weight", (50, 20, 5, 5), "conv", 0, 500, 1250),
    PrunableTensor("fc1.weight", (500, 800), "linear", 0, 800, 500),
    PrunableTensor("fc2.weight", (10, 500), "linear", 0, 500, 10),
]


def test_everything_is_prunable_by_element() -> None:
    space = make_space(LENET_5, Element())
    assert space.names == ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")
    assert space.total == 430_500
    assert space.warnings == []


def test_names_and_globs_are_excluded() -> None:
    space = make_space(LENET_5, Element(), ["conv*", "fc2.weight"])
    assert space.names == ("fc1.weight",)
    assert space.excluded == ("conv1.weight", "conv2.weight", "fc2.weight")
    assert space.warnings == []


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"exclude: 'conv3\.weight' matches no prunable tensor\. Did you mean 'conv"):
        make_space(LENET_5, Element(), ["conv3.weight"])


def test_n_of_m_leaves_and_names_what_does_not_divide() -> None:
    space = make_space(LENET_5, NofM(2, 4))
    assert space.names == ("conv2.weight", "fc1.weight", "fc2.weight")
    assert space.warnings == ["'conv1.weight' stays dense: its reduction length 25 is no multiple of 4."]


def test_channel_leaves_the_outputs_of_the_network() -> None:
    space = make_space(LENET_5, Channel())
    assert space.names == ("conv1.weight", "conv2.weight", "fc1.weight")
    assert space.warnings == ["'fc2.weight' stays dense: its output units are the network's outputs."]


def test_channel_can_be_told_where_the_outputs_are() -> None:
    assert make_space(LENET_5, Channel(), outputs=["fc1.weight"]).names == (
        "conv1.weight",
        "conv2.weight",
        "fc2.weight",
    )
    assert make_space(LENET_5, Channel(), outputs=[]).total == 430_500


def test_excluded_tensors_are_not_warned_about() -> None:
    assert make_space(LENET_5, NofM(2, 4), ["conv1.weight"]).warnings == []


def test_nothing_left_is_an_error_with_the_reasons() -> None:
    with pytest.raises(UnsupportedError, match=r"structure 2:4\. 'conv1\.weight' stays dense: its reduction length 25"):
        make_space(LENET_5[:1], NofM(2, 4))
    with pytest.raises(UnsupportedError, match="Every prunable tensor is excluded"):
        make_space(LENET_5, Element(), ["*"])
    with pytest.raises(UnsupportedError, match="The model has none"):
        make_space([], Element())
