"""Fine-tuned values: gradients against autograd, codes that never move, checkpoints that code again without loss."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsepack.cli import run
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.training.shared_values import SharedValues, Sharing
from sparsepack.errors import DataError, UnsupportedError, UsageError
from sparsepack.exporters import export
from sparsepack.exporters.finetune import FineTuned, finetune_values
from sparsepack.exporters.parts import parts
from sparsepack.models.data import load_data
from sparsepack.models.source import source_from_record

TRAIN = {"epochs": 4, "learning_rate": 0.05}


def pruned(folder: Path, method: str = "magnitude", sparsity: float = 0.9) -> SparseCheckpoint:
    one = {"name": "run", "method": method, "sparsity": sparsity}
    recipe = {"version": 1, "model": "lenet-300-100", "data": "digits", "threads": 1, "train": TRAIN, "runs": [one]}
    return prune(load_recipe(recipe).prune_recipes()[0], folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> SparseCheckpoint:
    return pruned(tmp_path_factory.mktemp("magnitude") / "run")


def tuned(checkpoint: SparseCheckpoint, values: str, epochs: int = 2) -> FineTuned:
    source = source_from_record(checkpoint.metadata.model)
    return finetune_values(checkpoint, values, source=source, data=load_data("digits"), epochs=epochs)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradient_of_a_shared_value_is_the_sum_of_its_members(scaled: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    positions = torch.tensor([1, 3, 8, 9, 20, 23])
    members = torch.tensor([0, 2, 1, 1, 0, 2])
    factors = torch.tensor([3.0, -1.0, 0.0, 2.0, 5.0, -4.0]) if scaled else None
    table = torch.tensor([0.5, -0.25, 1.5])
    before = layer.weight.detach().clone()
    dynamics = SharedValues(
        layer, {"weight": Sharing("w", positions, members, factors)}, {"w": table}, {"w": torch.tensor(2.0)}
    )
    inputs, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    torch.autograd.backward(nn.functional.cross_entropy(layer(inputs), labels))
    assert dynamics.after_backward(0)
    # The oracle: autograd through the whole reparametrisation.
    moves = torch.zeros(3, requires_grad=True)
    shared = (table + 2.0 * moves)[members] * (1.0 if factors is None else factors)
    weight = before.reshape(-1).index_put((positions,), shared).reshape(4, 6)
    torch.autograd.backward(nn.functional.cross_entropy(nn.functional.linear(inputs, weight, layer.bias), labels))
    ((_, found),) = dynamics.named_parameters()
    assert moves.grad is not None
    torch.testing.assert_close(found.grad, moves.grad)
    # What is not shared stays, what is shared follows.
    torch.testing.assert_close(layer.weight.detach(), weight.detach(), rtol=0, atol=0)
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_tables_survive_a_kill() -> None:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    sharing = {"weight": Sharing("w", torch.arange(4), torch.tensor([0, 1, 1, 0]))}
    first, second = (SharedValues(m, sharing, {"w": torch.ones(2)}, {"w": torch.ones(2)}) for m in layers)
    with torch.no_grad():
        first.named_parameters()[0][1].copy_(torch.tensor([0.5, -2.0]))
    second.restore(first.tensors())
    assert layers[1].weight.reshape(-1).tolist() == [1.5, -1.0, -1.0, 1.5]


@pytest.mark.parametrize("values", ["codebook:2", "codebook:4", "int8"])
def test_tuned_weights_keep_their_codes_and_code_again_without_loss(
    values: str, checkpoint: SparseCheckpoint, tmp_path: Path
) -> None:
    found = tuned(checkpoint, values)
    after = {part.entry.name: part for part in parts(found.checkpoint, values)}
    for before in parts(checkpoint, values):
        name = before.entry.name
        expected = found.checkpoint.tensors[name]
        again = after[name]
        if before.coded is None:
            assert expected is checkpoint.tensors[name]
            continue
        assert again.coded is not None
        assert again.entry.error == 0.0
        np.testing.assert_array_equal(again.mask, checkpoint.tensors[name].mask)
        # The same codes, up to the numbers of entries that became equal or changed places.
        pairs = set(zip(before.coded.codes.tolist(), again.coded.codes.tolist(), strict=True))
        if values == "int8":
            assert all(a == b for a, b in pairs)
        else:
            assert len({old for old, _ in pairs}) == len(pairs)
    artifact = export(found.checkpoint, "packed", tmp_path / "x.spk", values=values)
    artifact.verify()
    found.checkpoint.save(tmp_path / "tuned.safetensors")
    SparseCheckpoint.load(tmp_path / "tuned.safetensors").verify()
    assert found.checkpoint.metadata.recipe["finetune_values"] == {"values": values, "epochs": 2}


def test_training_shared_values_wins_back_what_coding_lost(checkpoint: SparseCheckpoint) -> None:
    found = tuned(checkpoint, "codebook:1", epochs=6)
    assert found.before is not None
    assert found.coded is not None
    assert found.after is not None
    # One bit a weight ruins this network, and six shared values cannot win everything back: 0.95, 0.73, 0.75.
    assert found.coded < found.before - 0.1
    assert found.after > found.coded + 0.01


def test_the_same_command_gives_the_same_values(checkpoint: SparseCheckpoint) -> None:
    one, two = (tuned(checkpoint, "codebook:3", epochs=1).checkpoint for _ in range(2))
    assert [t.record.sha256 for t in one.tensors.values()] == [t.record.sha256 for t in two.tensors.values()]


def test_frozen_weights_outside_the_mask_stay_as_they_were_drawn(tmp_path: Path) -> None:
    frozen = pruned(tmp_path / "run", "freezenet")
    found = tuned(frozen, "codebook:3", epochs=1).checkpoint
    for name, tensor in frozen.tensors.items():
        if tensor.mask is not None:
            assert found.tensors[name].record.parametrisation == "frozen"
            np.testing.assert_array_equal(found.tensors[name].dense()[~tensor.mask], tensor.dense()[~tensor.mask])


def test_what_cannot_be_tuned_is_refused(
    checkpoint: SparseCheckpoint, checkpoint_of: Callable[..., SparseCheckpoint], tmp_path: Path
) -> None:
    source = source_from_record(checkpoint.metadata.model)
    with pytest.raises(UsageError, match="--values fp16 has none"):
        tuned(checkpoint, "fp16")
    with pytest.raises(DataError, match="name it with --data"):
        finetune_values(checkpoint, "int8", source=source, data=None, epochs=1)
    selected = pruned(tmp_path / "run", "edge-popup", 0.5)
    with pytest.raises(UnsupportedError, match="no weights that could be coded"):
        tuned(selected, "codebook:4", epochs=1)


def test_the_command_reports_accuracy_before_and_after(
    checkpoint: SparseCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path / "checkpoint.safetensors")
    base = ["export", str(tmp_path), "--to", "packed", "--values", "codebook:2", "-o", str(tmp_path / "x.spk")]
    assert run([*base, "--finetune-values", "1"]) == 0
    out = capsys.readouterr().out
    assert "before coding" in out
    assert "after 1 epochs of fine-tuning" in out
    assert run([*base, "--finetune-values", "1", "--json", "--force"]) == 0
    assert set(json.loads(capsys.readouterr().out)["accuracy"]) == {"before", "coded", "after"}
    assert run([*base, "--data", "digits", "--force"]) == 2
    assert "give one of them as well" in capsys.readouterr().err
    base[5] = "fp32"
    assert run([*base, "--finetune-values", "1", "--force"]) == 2
    assert "--values fp32 has none" in capsys.readouterr().err
