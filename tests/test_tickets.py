"""Kinds of lottery tickets (methods 3.2 to 3.5, 3.8, 3.9): limits, truth tables and counts."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.methods import METHODS, find_method
from sparsepack.compressor.methods.lth.studies import MASK_CRITERIA, REINITIALISED_TICKET, TICKET_CHECK
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.plans import Train, make_plan
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import make_rule
from sparsepack.compressor.scores.layer_adaptive import layer_adaptive_magnitude
from sparsepack.compressor.scores.ticket_criteria import CRITERIA, ticket_criterion
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.training.frozen import PartlyFrozen
from sparsepack.compressor.training.optimisers import make_optimiser
from sparsepack.compressor.training.views import VIEWS
from sparsepack.compressor.transforms import checks, kept_weights, pruned_weights
from sparsepack.errors import UsageError
from sparsepack.models.data import load_data
from sparsepack.models.prunable import prunable_tensors

Floats = npt.NDArray[np.float32]

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))\n"
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small network of the user's own."""
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def recipe(model: str, method: str, *options: str, **settings: Any) -> PruneRecipe:
    wanted = {"data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1, "init": "uniform", **settings}
    if method != "dense":
        wanted = {"schedule": "one-shot", **wanted}
    return single_run(None, model, method=method, method_options=options, **wanted)


def masks_of(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def dense_run(model: str, folder: Path, **settings: Any) -> dict[str, np.ndarray]:
    return prune(recipe(model, "dense", sparsity=None, **settings), folder).dense_state()


distinct = arrays(np.float32, st.integers(1, 30), elements=st.integers(-60, 60).map(lambda v: v / 8), unique=True)


@given(distinct)
def test_lamp_is_its_formula_and_ranks_as_magnitude_within_a_layer(weights: Floats) -> None:
    scores = layer_adaptive_magnitude({"w": weights})["w"]
    squares = weights.astype(np.float64) ** 2
    order = sorted(range(weights.size), key=lambda i: (-squares[i], i))
    for place, index in enumerate(order):
        not_smaller = sum(squares[other] for other in order[: place + 1])
        assert scores[index] == pytest.approx(squares[index] / not_smaller if squares[index] else 0.0, rel=1e-12)
    if weights.any():
        assert scores.max() == 1
        scaled = layer_adaptive_magnitude({"w": weights * np.float32(4)})["w"]
        np.testing.assert_array_equal(scaled, scores)


def test_lamp_empties_no_layer_before_every_other_is_down_to_one_weight(model: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 50), nn.Linear(50, 2))
    random = np.random.default_rng(0)
    weights = {
        "0.weight": random.standard_normal((50, 4)).astype(np.float32),
        "1.weight": 1e-3 * random.standard_normal((2, 50)).astype(np.float32),
    }
    rule, _ = make_rule(recipe(model, "lamp"), prunable_tensors(module))
    kept = rule.select(layer_adaptive_magnitude(weights), 1 - 2 / 300)
    assert [int(mask.sum()) for mask in kept.values()] == [1, 1]


def test_criteria_on_one_weight_in_each_quadrant() -> None:
    first = np.array([2.0, -2.0, 0.1, 0.2], np.float32)
    last = np.array([3.0, -0.5, 1.0, -0.1], np.float32)
    best = {
        "large_final": 0,
        "small_final": 3,
        "large_init": 0,
        "small_init": 2,
        "large_init_large_final": 0,
        "small_init_small_final": 3,
        "magnitude_increase": 0,
        "movement": 1,
    }
    assert set(best) == set(CRITERIA)
    for criterion, index in best.items():
        scores = ticket_criterion({"w": first}, {"w": last}, criterion)["w"]
        assert int(np.argmax(scores)) == index, criterion
    same = ticket_criterion({"w": first}, {"w": last}, "small_final", "same_sign")["w"]
    assert np.isneginf(same).tolist() == [False, False, False, True]
    other = ticket_criterion({"w": first}, {"w": last}, "large_final", "different_sign")["w"]
    assert np.isneginf(other).tolist() == [True, True, True, False]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.booleans())
def test_a_quadrant_keeps_a_corner_of_the_plane_of_both_ranks(seed: int, count: int, large: bool) -> None:
    random = np.random.default_rng(seed)
    first, last = random.standard_normal((2, count)).astype(np.float32)
    criterion = "large_init_large_final" if large else "small_init_small_final"
    scores = ticket_criterion({"w": first}, {"w": last}, criterion)["w"]
    ranks = [np.argsort(np.argsort(np.abs(values))) for values in (first, last)]
    for corner in range(count):
        inside = (ranks[0] >= corner) & (ranks[1] >= corner) if large else (ranks[0] <= corner) & (ranks[1] <= corner)
        size = int(inside.sum())
        if 0 < size < count:
            # No weight outside the corner scores above one inside.
            assert scores[inside].min() > scores[~inside].max()


def test_large_final_with_rewinding_and_zeros_is_the_lottery_ticket(model: str, tmp_path: Path) -> None:
    ours = prune(recipe(model, "mask-criteria", allocation="global"), tmp_path / "criteria")
    theirs = prune(recipe(model, "lottery-ticket"), tmp_path / "ticket")
    for name, array in theirs.dense_state().items():
        assert ours.dense_state()[name].tobytes() == array.tobytes()


def test_learning_rate_rewinding_keeps_the_trained_weights(model: str, tmp_path: Path) -> None:
    settings = {"epochs": 1, "batch_size": 128}
    trained = dense_run(model, tmp_path / "dense", **settings)
    data = load_data("digits")
    assert data is not None
    end = data.steps(128)
    kept = prune(recipe(model, "learning-rate-rewinding", f"rewind_step={end}", **settings), tmp_path / "kept")
    smallest, largest = [], []
    for name, mask in masks_of(kept).items():
        np.testing.assert_array_equal(kept.dense_state()[name][mask], trained[name][mask])
        smallest.append(np.abs(trained[name][mask]).min())
        largest.append(np.abs(trained[name][~mask]).max())
    # The largest of both layers together stayed.
    assert min(smallest) >= max(largest)
    again = prune(recipe(model, "learning-rate-rewinding", **settings), tmp_path / "again")
    assert any((again.dense_state()[name] != kept.dense_state()[name]).any() for name in trained)
    plan = make_plan(
        recipe(model, "learning-rate-rewinding", schedule="iterative", sparsity=0.9),
        find_method("learning-rate-rewinding"),
        0.9,
    )
    assert sum(isinstance(stage, Train) for stage in plan) == 12


@pytest.mark.parametrize("kept", ["sign-sigma", "sign", "random-sign", "shuffle", "reinitialise"])
def test_what_kept_weights_begin_with(model: str, tmp_path: Path, kept: str) -> None:
    initial = dense_run(model, tmp_path / "initial", epochs=0)
    run = prune(recipe(model, "reinitialised-ticket", f"kept={kept}", epochs=0), tmp_path / "run")
    for name, mask in masks_of(run).items():
        found, early = run.dense_state()[name], initial[name]
        assert not found[~mask].any()
        sigma = np.float32(np.std(early, ddof=1))
        if kept == "sign-sigma":
            np.testing.assert_allclose(found[mask], sigma * np.sign(early[mask]), rtol=1e-6)
        elif kept == "sign":
            np.testing.assert_array_equal(found[mask], np.sign(early[mask]))
        elif kept == "random-sign":
            np.testing.assert_allclose(np.abs(found[mask]), sigma, rtol=1e-6)
            assert 0.3 < (np.sign(found[mask]) == np.sign(early[mask])).mean() < 0.7
        else:
            assert (found[mask] != early[mask]).mean() > 0.9
            if kept == "shuffle":
                assert np.isin(found[mask], early).all()


def test_biases_are_treated_too_when_asked(model: str, tmp_path: Path) -> None:
    initial = dense_run(model, tmp_path / "initial", epochs=0)
    run = prune(recipe(model, "reinitialised-ticket", "kept=sign", "biases=true", epochs=0), tmp_path / "run")
    for name in ("1.bias", "3.bias"):
        np.testing.assert_array_equal(run.dense_state()[name], np.sign(initial[name]))


def test_freeze_or_zero_follows_the_movement_of_each_weight(model: str, tmp_path: Path) -> None:
    initial = dense_run(model, tmp_path / "initial", epochs=0)
    trained = dense_run(model, tmp_path / "trained")
    ticket = prune(recipe(model, "mask-criteria"), tmp_path / "ticket")
    mixed = prune(recipe(model, "mask-criteria", "pruned=freeze-or-zero"), tmp_path / "mixed")
    frozen = prune(recipe(model, "mask-criteria", "pruned=freeze"), tmp_path / "frozen")
    for name, kept in masks_of(ticket).items():
        away = np.abs(trained[name]) >= np.abs(initial[name])
        np.testing.assert_array_equal(masks_of(mixed)[name], kept | away)
        outside = mixed.dense_state()[name][~kept]
        np.testing.assert_array_equal(outside, np.where(away, initial[name], 0)[~kept])
        assert masks_of(frozen)[name].all()
        np.testing.assert_array_equal(frozen.dense_state()[name][~kept], initial[name][~kept])
        # Those that are trained moved.
        assert (frozen.dense_state()[name][kept] != initial[name][kept]).mean() > 0.9


def test_what_a_round_froze_or_zeroed_stays_so_in_the_next(model: str, tmp_path: Path) -> None:
    initial = dense_run(model, tmp_path / "initial", epochs=0)
    options = ("criterion=large_final", "pruned=freeze-or-zero")
    once = prune(recipe(model, "mask-criteria", *options, sparsity=0.5), tmp_path / "once")
    twice = prune(
        recipe(model, "mask-criteria", *options, sparsity=0.75, schedule="iterative", rounds=2), tmp_path / "twice"
    )
    ticket = prune(recipe(model, "mask-criteria", sparsity=0.5), tmp_path / "ticket")
    for name, kept in masks_of(ticket).items():
        frozen = masks_of(once)[name] & ~kept
        assert frozen.any()
        assert not frozen.all()
        # The first round of both is the same; what it decided about the weights outside the ticket holds on.
        assert masks_of(twice)[name][frozen].all()
        np.testing.assert_array_equal(twice.dense_state()[name][frozen], initial[name][frozen])
        assert not masks_of(twice)[name][~kept & ~frozen].any()


def test_fixed_weights_survive_decay_and_momentum() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    before = layer.weight.detach().clone()
    masks = {"weight": torch.tensor([[True, True, False], [True, True, True]])}
    fixed = {"weight": torch.tensor([[False, True, False], [True, False, False]])}
    with torch.no_grad():
        layer.weight[~masks["weight"]] = 0
    settings = recipe("lenet-300-100", "mask-criteria").train
    dynamics = PartlyFrozen(layer, masks, fixed, settings)
    optimiser = make_optimiser(dynamics.parameter_groups(), settings)
    dynamics.attach(optimiser)
    for step in range(3):
        optimiser.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        dynamics.after_backward(step)
        optimiser.step()
    dynamics.finish()
    assert torch.equal(layer.weight[fixed["weight"]], before[fixed["weight"]])
    assert not layer.weight[~masks["weight"]].any()
    moved = masks["weight"] & ~fixed["weight"]
    assert (layer.weight[moved] != before[moved]).all()
    assert torch.equal(dynamics.masks["weight"], masks["weight"])


@pytest.mark.parametrize("check", checks.CHECKS)
def test_sanity_checks_keep_the_counts_and_destroy_one_thing(model: str, tmp_path: Path, check: str) -> None:
    ticket = prune(recipe(model, "lottery-ticket", epochs=2), tmp_path / "ticket")
    checked = prune(recipe(model, "ticket-sanity-check", f"check={check}", epochs=2), tmp_path / "checked")
    pairs = [(masks_of(ticket)[name], masks_of(checked)[name]) for name in masks_of(ticket)]
    assert sum(int(mask.sum()) for mask, _ in pairs) == sum(int(mask.sum()) for _, mask in pairs)
    if check == "shuffle-mask":
        for ours, theirs in pairs:
            assert ours.sum() == theirs.sum()
            # Two random masks of this density agree in about half of the places.
            assert 0.4 < (ours == theirs).mean() < 0.7
    elif check in ("shuffle-weights", "reinitialise"):
        assert all((ours == theirs).all() for ours, theirs in pairs)
        assert checked.dense_state()["1.weight"].tobytes() != ticket.dense_state()["1.weight"].tobytes()
    elif check == "invert":
        assert not any((ours & theirs).any() for ours, theirs in pairs)
    else:
        assert any((ours != theirs).any() for ours, theirs in pairs)


def test_views_keep_what_they_do_not_destroy() -> None:
    data = load_data("digits")
    assert data is not None
    labels = VIEWS["random-labels"](data, 1)
    np.testing.assert_array_equal(np.bincount(labels.train_labels), np.bincount(data.train_labels))
    assert (labels.train_labels != data.train_labels).mean() > 0.8
    np.testing.assert_array_equal(labels.test_labels, data.test_labels)
    pixels = VIEWS["shuffled-pixels"](data, 1)
    flat, before = (d.train_inputs.reshape(len(d.train_inputs), -1) for d in (pixels, data))
    np.testing.assert_array_equal(np.sort(flat, axis=1), np.sort(before, axis=1))
    # One order for all: pixels that are always 0 stay as many.
    assert (flat == 0).all(axis=0).sum() == (before == 0).all(axis=0).sum()
    np.testing.assert_array_equal(pixels.test_inputs, data.test_inputs)


def test_a_ticket_from_the_same_data_differs_from_the_ticket_in_the_classifier_alone(
    model: str, tmp_path: Path
) -> None:
    ticket = prune(recipe(model, "lottery-ticket", epochs=2), tmp_path / "ticket")
    moved = prune(recipe(model, "ticket-transfer", "source_data=digits", epochs=2), tmp_path / "moved")
    for name, mask in masks_of(ticket).items():
        np.testing.assert_array_equal(masks_of(moved)[name], mask)
    plan = make_plan(recipe(model, "ticket-transfer", "source_optimiser=adam"), find_method("ticket-transfer"), 0.5)
    trainings = [stage for stage in plan if isinstance(stage, Train)]
    assert [stage.settings.optimiser for stage in trainings] == ["adam", "sgd"]
    with pytest.raises(UsageError, match="from other data or another optimiser"):
        prune(recipe(model, "ticket-transfer"), tmp_path / "none")


def test_source_data_of_another_shape_is_refused(model: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.standard_normal((20, 3, 5)).astype(np.float32)
    labels = np.arange(20) % 10
    np.savez(tmp_path / "other.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(UsageError, match="does not have the inputs and the number of classes of 'digits'"):
        prune(recipe(model, "ticket-transfer", f"source_data=npz:{tmp_path / 'other.npz'}"), tmp_path / "run")


def test_drawing_again_needs_an_initialiser(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the model brings its own; name an initialiser with init"):
        prune(recipe(model, "reinitialised-ticket", init=None), tmp_path / "run")


def bert_base() -> nn.Module:
    """The linear layers of bert-base and a two-class head, without memory."""
    with torch.device("meta"):
        blocks = [
            nn.ModuleList([*(nn.Linear(768, 768) for _ in range(4)), nn.Linear(768, 3072), nn.Linear(3072, 768)])
            for _ in range(12)
        ]
        return nn.ModuleList([nn.Embedding(30522, 768), *blocks, nn.Linear(768, 768), nn.Linear(768, 2)])


def test_bert_tickets_prune_the_encoder_and_the_pooler(model: str) -> None:
    method = METHODS["bert-ticket"]
    assert method.spares_head
    assert sum(tensor.size for tensor in prunable_tensors(bert_base())[:-1]) == 85_524_480
    assert method.defaults["rate"] == 0.1


def test_the_options_of_a_declaration_are_those_of_its_pieces() -> None:
    options = {option.name: option for method in (MASK_CRITERIA, TICKET_CHECK) for option in method.options}
    assert options["kept"].choices == kept_weights.ACTIONS
    assert options["pruned"].choices == pruned_weights.ACTIONS
    assert options["check"].choices == checks.CHECKS
    drawn = {option.name: option for option in REINITIALISED_TICKET.options}
    assert drawn["kept"].choices == kept_weights.ACTIONS[1:]


@pytest.mark.parametrize(("first", "last"), list(product([-1.0, 0.5], [-2.0, 0.25, -0.5])))
def test_moving_away_is_not_moving_towards_zero(first: float, last: float) -> None:
    assert pruned_weights.moved_away(np.array([first]), np.array([last])).tolist() == [not abs(last) < abs(first)]
