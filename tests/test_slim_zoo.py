"""Zoo models and other families at 30 % and 50 % of their channels compute what the masked graphs compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from architectures import ARCHITECTURES, examples_of, initialised
from exact import run_in_double
from graphs import run
from masking import masked_pair
from torch import Tensor, nn

from sparsepack.exporters.slim import slim
from sparsepack.exporters.slim_account import Account
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.invariant import loose_cells
from sparsepack.models.graph.lowering import to_onnx
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.source import InputSpec, TorchSource, load_source
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes.measure.parity import BOUND, compare

# A smaller image changes nothing in the graph but the time that this takes.
SMALLER = {"resnet-50": {"input_shape": [3, 64, 64], "classes": 10}}
# Other depths and widths of networks that are here, the two of a hundred million weights, and the unrolled LSTM, whose
# units are all fixed by its recurrence.
ALIKE = {"lstm", "conv-2", "resnet-32", "resnet-56", "wrn-28-10", "vgg-19", "resnet-18", "vgg-11", "alexnet"}
# Random weights amplify float32 rounding through many layers; the comparison in double precision shows that it is
# nothing else.
BOUNDS = {"resnet-50": 5e-4, "conv-6": 5e-4}


def slimmed_accounts(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[Tensor], spec: InputSpec, bound: float
) -> list[Account]:
    """Slim at both ratios, hold everything against the masked graph and return the accounts."""
    dense = prepared(to_onnx(module, examples[:1], [spec]))
    dimensions = analyse(dense)
    assert not loose_cells(dimensions)
    groups = find_groups(dimensions)
    free = [group for group in groups if not group.pinned]
    feeds = {spec.name: inputs[0].numpy()}
    accounts = []
    for ratio in (0.3, 0.5):
        settled, masked = masked_pair(module, examples, dimensions, groups, ratio)
        slimmed = slim(settled, ratio)
        onnx.checker.check_model(slimmed.model, full_check=True)
        assert list(dense.graph.output) == list(slimmed.model.graph.output)
        (expected,), (found,) = run(masked, feeds), run(slimmed.model, feeds)
        error = compare(expected, found).error
        assert error is not None and error < bound
        (exact,), (again,) = run_in_double(masked, feeds), run_in_double(slimmed.model, feeds)
        assert (compare(exact, again).error or 0.0) < 1e-9
        after = {row.name: row.units[1] for row in slimmed.account.groups}
        for group in free:
            assert after[group.name] == max(int(group.width * (1 - ratio) + 1e-9), 1), group.name
        stored = sum(int(np.prod(t.dims)) for t in slimmed.model.graph.initializer if t.data_type == 1)
        assert slimmed.account.parameters[1] == stored
        accounts.append(slimmed.account)
    return accounts


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ALIKE])
def test_zoo_models_slim_to_the_masked_function(name: str) -> None:
    source = load_source(name, options=SMALLER.get(name))
    assert isinstance(source, TorchSource)
    module, (spec,) = source.build().eval(), source.record.inputs
    inputs = source.example_inputs(16, seed=5)
    accounts = slimmed_accounts(module, source.example_inputs(16, seed=3), inputs, spec, BOUNDS.get(name, BOUND))
    for ratio, account in zip((0.3, 0.5), accounts, strict=True):
        # Activations are cut on both sides of most layers, so that far more than the ratio of the weights goes.
        assert 1 - account.macs[1] / account.macs[0] > (0.25 if name in ("text-encoder", "vit-tiny", "rvfl") else ratio)


@pytest.mark.parametrize("name", ["densenet", "shufflenet", "shufflenet-v2", "unet", "lstm-tagger"])
def test_other_families_slim_to_the_masked_function(name: str) -> None:
    build, spec = ARCHITECTURES[name]
    module = initialised(build)
    accounts = slimmed_accounts(module, examples_of(spec, 16, 1), examples_of(spec, 16, 2), spec, BOUND)
    for account in accounts:
        assert account.macs[1] < 0.7 * account.macs[0]
    if name == "lstm-tagger":
        # The hidden units of the recurrence stay, and the account says so.
        assert any("LSTM" in reason for row in accounts[0].groups for reason in row.pinned)


def test_the_comparison_sees_a_network_that_is_slimmed_wrongly() -> None:
    build, spec = ARCHITECTURES["unet"]
    module = initialised(build)
    dimensions = analyse(prepared(to_onnx(module, examples_of(spec, 2, 1), [spec])))
    groups = find_groups(dimensions)
    settled, masked = masked_pair(module, examples_of(spec, 16, 1), dimensions, groups, 0.5)
    slimmed = slim(settled, 0.5).model
    bias = next(t for t in slimmed.graph.initializer if t.name == "rise1.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 0.1
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    feeds = {"input": examples_of(spec, 16, 2)[0].numpy()}
    error = compare(run(masked, feeds)[0], run(slimmed, feeds)[0]).error
    assert error is not None and error > 10 * BOUND
