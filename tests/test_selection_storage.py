"""What sparse selection leaves in a checkpoint (methods 6): masks, signs and choices over a seed, no weight."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.models.seeding.rebuild import rebuild

NAMES = ("fc1.weight", "fc2.weight", "fc3.weight")


def selected(folder: Path, method: str, *options: str, **wanted: Any) -> SparseCheckpoint:
    asked = {"method": method, "data": "digits", "sparsity": 0.6, "epochs": 1, "threads": 1, "seed": 2, **wanted}
    prune(single_run(None, "lenet-300-100", method_options=options, **asked), folder / "run")
    checkpoint = SparseCheckpoint.load(folder / "run" / "checkpoint.safetensors")
    checkpoint.verify()
    return checkpoint


@pytest.mark.parametrize(
    ("method", "kind", "parts"),
    [
        ("supermask", "selected", ()),
        ("biprop", "signs", ("scale", "signs")),
        ("signed-supermask", "signs", ("signs",)),
        ("peek-a-boo", "signs", ("signs",)),
        ("iterand", "options", ("choices",)),
        ("supsup", "masks", ("masks",)),
        ("lottery-jackpots", "identity", ()),
    ],
)
def test_what_is_stored(tmp_path: Path, method: str, kind: str, parts: tuple[str, ...]) -> None:
    options = ("update_interval=4",) if method == "iterand" else ()
    checkpoint = selected(tmp_path, method, *options)
    for name in NAMES:
        tensor = checkpoint.tensors[name]
        assert (tensor.record.parametrisation, tensor.record.parts) == (kind, parts)
        assert (tensor.values is None) == (method != "lottery-jackpots")
    if method == "peek-a-boo":
        # Biases are trained beside the signs.
        assert checkpoint.tensors["fc1.bias"].dense().any()
    assert not checkpoint.metadata.warnings


def test_one_bit_a_kept_weight_for_signs_and_one_number_a_tensor_for_the_scale(tmp_path: Path) -> None:
    checkpoint = selected(tmp_path, "biprop")
    for name in NAMES:
        tensor = checkpoint.tensors[name]
        assert tensor.parts["signs"].nbytes == (tensor.kept + 7) // 8
        assert tensor.parts["scale"].nbytes == 4
        scale = tensor.parts["scale"][0]
        assert set(np.unique(tensor.dense())) == {-scale, np.float32(0), scale}


def test_binary_weights_over_a_seed_take_their_signs_from_it(tmp_path: Path) -> None:
    checkpoint = selected(tmp_path, "biprop", init="signed-constant")
    for name in NAMES:
        tensor = checkpoint.tensors[name]
        assert tensor.record.parts == ("scale",)
        assert tensor.record.seed is not None
        drawn = rebuild(tensor.record.seed, tensor.record.shape)
        np.testing.assert_array_equal(np.sign(tensor.dense()), np.sign(drawn) * tensor.mask)


def test_signs_turn_round_and_magnitudes_stay(tmp_path: Path) -> None:
    for method in ("signed-supermask", "peek-a-boo"):
        checkpoint = selected(tmp_path / method, method)
        turned = 0
        for name in NAMES:
            tensor = checkpoint.tensors[name]
            assert tensor.record.seed is not None
            assert tensor.mask is not None
            drawn, dense = rebuild(tensor.record.seed, tensor.record.shape), tensor.dense()
            np.testing.assert_array_equal(np.abs(dense), np.abs(drawn) * tensor.mask)
            turned += int((dense[tensor.mask] != drawn[tensor.mask]).sum())
        assert turned


def test_rescaled_supermasks_are_drawn_with_a_larger_bound(tmp_path: Path) -> None:
    plain, scaled = (
        selected(tmp_path / flag, "supermask", f"rescale={flag}", epochs=0, allocation="uniform")
        for flag in ("false", "true")
    )
    for name in NAMES:
        first, second = plain.tensors[name], scaled.tensors[name]
        assert first.record.seed is not None
        assert second.record.seed is not None
        assert first.mask is not None
        factor = first.mask.size / first.kept
        assert second.record.seed.bound == pytest.approx(first.record.seed.bound * factor, rel=1e-6)
        np.testing.assert_allclose(second.dense(), first.dense() * np.float32(factor), rtol=1e-6)


def test_slots_store_the_number_of_each_value(tmp_path: Path) -> None:
    checkpoint = selected(tmp_path, "slot-machines", "values=5", sparsity=None)
    for name in NAMES:
        tensor = checkpoint.tensors[name]
        assert (tensor.record.parametrisation, tensor.record.count) == ("options", 5)
        assert tensor.mask is None
        assert tensor.parts["choices"].dtype == np.uint8
        assert set(np.unique(tensor.parts["choices"])) == set(range(5))
        assert tensor.record.seed is not None
        # Number 0 is what the seed record draws for the tensor itself.
        first = tensor.parts["choices"].reshape(tensor.record.shape) == 0
        drawn = rebuild(tensor.record.seed, tensor.record.shape)
        np.testing.assert_array_equal(tensor.dense()[first], drawn[first])


def test_redrawn_weights_store_the_number_of_their_draw(tmp_path: Path) -> None:
    checkpoint = selected(tmp_path, "iterand", "update_interval=4", "redraw=0.5", init="uniform", epochs=6)
    returned = 0
    for name in NAMES:
        tensor = checkpoint.tensors[name]
        assert tensor.record.seed is not None
        assert tensor.mask is not None
        drawn = rebuild(tensor.record.seed, tensor.record.shape)
        kept, numbers = tensor.dense()[tensor.mask], tensor.parts["choices"]
        assert int(numbers.max()) < tensor.record.count
        returned += int((numbers > 0).sum())
        np.testing.assert_array_equal(kept[numbers == 0], drawn[tensor.mask][numbers == 0])
        assert (kept[numbers > 0] != drawn[tensor.mask][numbers > 0]).all()
    assert returned


def test_redrawing_needs_an_initialiser(tmp_path: Path) -> None:
    from sparsepack.errors import UsageError

    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    asked: dict[str, Any] = {"method": "iterand", "data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1}
    with pytest.raises(UsageError, match="the model brings its own; name an initialiser with init"):
        prune(single_run(None, f"{tmp_path / 'net.py'}:build", **asked), tmp_path / "run")


def test_jackpots_leave_the_trained_weights_as_they_are(tmp_path: Path) -> None:
    dense = selected(tmp_path / "dense", "dense", sparsity=None)
    asked: dict[str, Any] = {"method": "lottery-jackpots", "data": "digits", "sparsity": 0.8, "threads": 1}
    model = str(tmp_path / "dense" / "run" / "checkpoint.safetensors")
    found = prune(single_run(None, model, fine_tune_epochs=2, **asked), tmp_path / "run")
    magnitude = prune(single_run(None, model, fine_tune_epochs=0, **asked), tmp_path / "magnitude")
    moved = 0
    for name in NAMES:
        tensor, trained = found.tensors[name], dense.tensors[name].dense()
        assert tensor.mask is not None
        np.testing.assert_array_equal(tensor.dense(), np.where(tensor.mask, trained, np.float32(0)))
        moved += int((tensor.mask != magnitude.tensors[name].mask).sum())
    assert moved
    # The search begins at the largest magnitudes of all layers.
    every = np.concatenate([np.abs(dense.tensors[name].dense()).reshape(-1) for name in NAMES])
    kept = np.concatenate([np.asarray(magnitude.tensors[name].mask).reshape(-1) for name in NAMES])
    assert every[kept].min() >= every[~kept].max()
