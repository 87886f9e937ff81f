"""Tickets from elsewhere (methods 3.10 to 3.12): another depth, a random mask, the space of the training."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.methods.lth.found_elsewhere import ELASTIC_TICKET
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores.random import random
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import parse_structure
from sparsepack.compressor.training.extrusion import Extrusion
from sparsepack.compressor.training.tape import Tape
from sparsepack.compressor.training.trajectory import moments
from sparsepack.compressor.transforms.elastic import ORDERS, block_map
from sparsepack.compressor.transforms.trajectory_space import project
from sparsepack.errors import ModelError, OutputExistsError, UsageError
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import TorchSource, load_source

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))\n"
    "class Block(nn.Module):\n"
    "    def __init__(self, taken, given):\n"
    "        super().__init__()\n"
    "        self.fc, self.bn = nn.Linear(taken, given), nn.BatchNorm1d(given)\n"
    "    def forward(self, x):\n"
    "        return self.bn(self.fc(x)).relu()\n"
    "class Deep(nn.Module):\n"
    "    def __init__(self, blocks):\n"
    "        super().__init__()\n"
    "        self.layer1 = nn.Sequential(Block(64, 16), *(Block(16, 16) for _ in range(blocks - 1)))\n"
    "        self.fc = nn.Linear(16, 10)\n"
    "    def forward(self, x):\n"
    "        return self.fc(self.layer1(x.flatten(1)))\n"
    "def three():\n"
    "    return Deep(3)\n"
    "def five():\n"
    "    return Deep(5)\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file of networks."""
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


def recipe(place: Path, method: str, *options: str, factory: str = "build", **given_settings: Any) -> PruneRecipe:
    wanted = {"data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1, "init": "uniform", **given_settings}
    if method != "dense":
        wanted = {"schedule": "one-shot", **wanted}
    return single_run(None, f"{place / 'net.py'}:{factory}", method=method, method_options=options, **wanted)


def masks_of(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    source = load_source(model)
    assert isinstance(source, TorchSource)
    return {name: tuple(tensor.shape) for name, tensor in source.build().state_dict().items()}


def blocks_taken(origin: dict[str, str], stage: str, count: int) -> list[int]:
    return [int(origin[f"{stage}.{number}.conv1.weight"].split(".")[1]) for number in range(count)]


def test_resnet_32_becomes_resnet_56_as_published() -> None:
    small, large = shapes_of("resnet-32"), shapes_of("resnet-56")
    # The authors' mapping for this pair: 0:0; 1:1,2; 2:3,4; 3:5,6; 4:7,8.
    for stage in ("layer1", "layer2", "layer3"):
        assert blocks_taken(block_map(small, large, "interpolate"), stage, 9) == [0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert blocks_taken(block_map(small, large, "append"), stage, 9) == [0, 1, 2, 3, 4, 1, 2, 3, 4]
        assert blocks_taken(block_map(large, small, "interpolate"), stage, 5) == [0, 1, 3, 5, 7]
        assert blocks_taken(block_map(large, small, "append"), stage, 5) == [0, 1, 2, 3, 4]
    origin = block_map(small, large, "interpolate")
    assert origin.keys() == large.keys()
    assert all(small[source] == large[name] for name, source in origin.items())
    assert origin["layer2.4.bn2.running_var"] == "layer2.2.bn2.running_var"
    assert origin["fc.weight"] == "fc.weight"


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_depth_is_the_same_network(order: str) -> None:
    shapes = shapes_of("resnet-20")
    assert block_map(shapes, shapes, order) == {name: name for name in shapes}


def test_networks_of_another_family_are_refused() -> None:
    with pytest.raises(ModelError, match=r"of another family: it has no tensor for 'conv1\.weight'"):
        block_map(shapes_of("resnet-20"), shapes_of("vgg-16"), "append")
    wide = {**shapes_of("resnet-20"), "extra.weight": (3, 3)}
    with pytest.raises(ModelError, match=r"this one has no 'extra\.weight'"):
        block_map(wide, shapes_of("resnet-20"), "append")


def test_a_stretched_ticket_has_the_blocks_masks_and_early_values(place: Path) -> None:
    ticket = prune(recipe(place, "lottery-ticket", "rewind_step=4", factory="three", sparsity=0.7), place / "ticket")
    early = Tape(place / "ticket" / "tape").read("step-4")
    option = f"ticket={place / 'ticket'}"
    started = prune(recipe(place, "elastic-ticket", option, factory="five", epochs=0), place / "started")
    for number, source in enumerate([0, 1, 1, 2, 2]):
        name, origin = f"layer1.{number}.fc.weight", f"layer1.{source}.fc.weight"
        np.testing.assert_array_equal(masks_of(started)[name], masks_of(ticket)[origin])
        np.testing.assert_array_equal(started.dense_state()[name], early[origin] * masks_of(ticket)[origin])
        for rest in ("fc.bias", "bn.weight", "bn.running_mean"):
            np.testing.assert_array_equal(
                started.dense_state()[f"layer1.{number}.{rest}"], early[f"layer1.{source}.{rest}"]
            )
    assert any("finds it itself, and was asked for 0.5000" in warning for warning in started.metadata.warnings)
    trained = prune(recipe(place, "elastic-ticket", option, "first_step=4", factory="five"), place / "trained")
    for name, mask in masks_of(trained).items():
        np.testing.assert_array_equal(mask, masks_of(started)[name])
        assert not trained.dense_state()[name][~mask].any()
        assert (trained.dense_state()[name] != started.dense_state()[name]).any()


def test_at_the_same_depth_it_repeats_the_ticket_s_own_training(place: Path) -> None:
    ticket = prune(recipe(place, "lottery-ticket", factory="three"), place / "ticket")
    again = prune(recipe(place, "elastic-ticket", f"ticket={place / 'ticket'}", factory="three"), place / "again")
    for name, array in ticket.dense_state().items():
        np.testing.assert_array_equal(again.dense_state()[name], array)


def test_another_ticket_is_another_run(place: Path) -> None:
    ticket: dict[str, Any] = {"factory": "three", "epochs": 0}
    prune(recipe(place, "lottery-ticket", **ticket), place / "ticket")
    stretched = recipe(place, "elastic-ticket", f"ticket={place / 'ticket'}", factory="five", epochs=0)
    first = prune(stretched, place / "run")
    assert prune(stretched, place / "run").metadata == first.metadata
    prune(recipe(place, "lottery-ticket", seed=1, **ticket), place / "ticket", force=True)
    with pytest.raises(OutputExistsError, match="holds the run of another recipe or model"):
        prune(stretched, place / "run")


def test_an_elastic_ticket_needs_a_ticket(place: Path) -> None:
    with pytest.raises(UsageError, match="name the folder of its run with the option ticket"):
        prune(recipe(place, "elastic-ticket", factory="three"), place / "run")
    prune(recipe(place, "magnitude", factory="three", epochs=0), place / "magnitude")
    with pytest.raises(UsageError, match="keeps no weights of an early step, so it is no ticket's run"):
        prune(recipe(place, "elastic-ticket", f"ticket={place / 'magnitude'}", factory="three"), place / "other")


def test_the_declared_orders_are_those_of_the_transform() -> None:
    (order,) = [option for option in ELASTIC_TICKET.options if option.name == "order"]
    assert order.choices == ORDERS


def extruded(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "stage" and line["stage"].startswith("extruding")]


def test_what_the_drawn_mask_leaves_out_is_empty_before_it_is_removed(place: Path) -> None:
    options = ("extrusion_rate=0.02", "ceiling=50.0", "update_interval=1")
    run = prune(recipe(place, "dual-lottery-ticket", *options, epochs=12), place / "run")
    (stage,) = extruded(place / "run")
    assert 0 <= stage["removed_norm_share"] < 0.05
    scores = random({name: mask.shape for name, mask in masks_of(run).items()}, 0)
    for name, mask in masks_of(run).items():
        # Half of each tensor, those of the highest draws.
        assert mask.sum() == mask.size - round(mask.size / 2)
        assert scores[name][mask].min() > scores[name][~mask].max()
        assert not run.dense_state()[name][~mask].any()


def test_without_a_loss_the_removed_part_decays_by_the_product_of_its_coefficients() -> None:
    module = nn.Linear(6, 4, bias=False)
    form = parse_structure("element")
    rule = MaskRule(make_space(prunable_tensors(module), form), form, "uniform")
    before = module.weight.detach().clone()
    dynamics = Extrusion(module, {}, rule, 0.5, seed=3, ceiling=1.0, end=50, every=5)
    optimiser = torch.optim.SGD(dynamics.parameter_groups(), lr=0.1)
    dynamics.attach(optimiser)
    left = 1.0
    for step in range(120):
        dynamics.before_forward(step)
        module.weight.grad = torch.zeros_like(module.weight)
        dynamics.after_backward(step)
        optimiser.step()
        # Ten even increments, one every five steps, then the ceiling.
        left *= 1 - 0.1 * min(1.0, (step // 5 + 1) / 10)
    scores = random({"weight": (4, 6)}, 3)["weight"]
    kept = torch.from_numpy(scores >= np.sort(scores, axis=None)[12])
    assert torch.equal(module.weight[kept], before[kept])
    torch.testing.assert_close(module.weight[~kept], before[~kept] * left, rtol=1e-4, atol=0)
    dynamics.finish()
    assert dynamics.figures()["removed_norm_share"] == pytest.approx(left, rel=1e-4)
    assert left < 1e-3
    assert torch.equal(dynamics.masks["weight"], kept)
    assert not module.weight[~kept].any()


def test_cycles_remove_more_and_more_of_one_draw(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, np.ndarray]] = []
    finish = Extrusion.finish

    def watched(self: Extrusion) -> None:
        # What the cycle before removed has not come back.
        parameters = dict(self.module.named_parameters())
        for name, mask in (seen[-1] if seen else {}).items():
            assert not parameters[name].detach().numpy()[~mask].any()
        finish(self)
        seen.append({name: mask.numpy().copy() for name, mask in self.masks.items()})

    monkeypatch.setattr(Extrusion, "finish", watched)
    settings_: dict[str, Any] = {"schedule": "iterative", "rounds": 3, "sparsity": 1 - 0.5**3}
    cycled = prune(recipe(place, "dual-lottery-ticket", "update_interval=1", **settings_), place / "cycled")
    assert len(seen) == 3
    sizes = [sum(int(mask.sum()) for mask in masks.values()) for masks in seen]
    total = 64 * 24 + 24 * 10
    assert sizes == pytest.approx([total / 2, total / 4, total / 8], abs=1)
    for earlier, later in pairwise(seen):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)
    monkeypatch.undo()
    once = prune(recipe(place, "dual-lottery-ticket", epochs=0, sparsity=1 - 0.5**3), place / "once")
    for name, mask in masks_of(once).items():
        np.testing.assert_array_equal(masks_of(cycled)[name], mask)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_projection_is_that_of_the_singular_vectors(seed: int, count: int, rank: int) -> None:
    draw = np.random.default_rng(seed)
    rows = {"a": draw.standard_normal((count, 3, 2)), "b": draw.standard_normal((count, 4))}
    weights = {"a": draw.standard_normal((3, 2)), "b": draw.standard_normal(4)}

    def joined(parts: dict[str, Any]) -> Any:
        return np.concatenate([parts["a"].reshape(*parts["a"].shape[:-2], 6), parts["b"]], axis=-1)

    matrix = joined(rows)
    mean = matrix.mean(axis=0)
    directions = np.linalg.svd(matrix - mean, full_matrices=False)[2][: min(rank, count - 1)]
    projector = directions.T @ directions
    found = project(rows, weights, rank)
    np.testing.assert_allclose(joined(found), mean + projector @ (joined(weights) - mean), atol=1e-8)
    assert np.linalg.matrix_rank(projector) <= rank
    # Projecting again changes nothing.
    np.testing.assert_allclose(joined(project(rows, found, rank)), joined(found), atol=1e-8)


def test_at_full_rank_the_projected_ticket_is_the_rewound_one(place: Path) -> None:
    ticket = prune(recipe(place, "lottery-ticket", "rewind_step=6"), place / "ticket")
    options = ("rewind_step=6", "rank=99", "snapshots=4", "share=0.5")
    ours = prune(recipe(place, "inertial-manifold", *options), place / "ours")
    trajectory = Tape(place / "ours" / "tape").read("trajectory")
    # Steps 0, 4, 8, 12 of 23, and the one that is rewound to.
    assert len(trajectory["1.weight"]) == 5
    early = Tape(place / "ours" / "tape").read("step-6")
    np.testing.assert_array_equal(trajectory["1.weight"][2], early["1.weight"])
    for name, mask in masks_of(ticket).items():
        np.testing.assert_array_equal(masks_of(ours)[name], mask)
        np.testing.assert_allclose(ours.dense_state()[name], ticket.dense_state()[name], rtol=0.05, atol=2e-3)
    flat = prune(recipe(place, "inertial-manifold", *options, "rank=1"), place / "flat")
    assert any(np.abs(flat.dense_state()[name] - ticket.dense_state()[name]).max() > 0.01 for name in masks_of(flat))


def test_a_trajectory_needs_a_training(place: Path) -> None:
    with pytest.raises(UsageError, match="shows where to rewind to for method 'inertial-manifold'"):
        prune(recipe(place, "inertial-manifold", epochs=0), place / "run")


def test_moments_are_even_and_hold_the_rewound_step() -> None:
    assert moments(5, 100, 0) == (0, 25, 50, 75, 100)
    assert moments(3, 10, 7) == (0, 5, 7, 10)
    assert moments(10, 2, 0) == (0, 1, 2)
