"""Every method with every structure, allocation and schedule that its table allows: one suite for all of them.

For each: the checkpoint is valid, its sparsity exact, it saves, loads and verifies, and the same recipe gives the same
bytes. What the table does not allow is refused with the reason. A new method is tested here by being in the table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsepack.compressor.allocation import ALLOCATIONS
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.methods import METHODS, Method
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.structure import recorded_structure
from sparsepack.errors import UnsupportedError
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.source import TorchSource, load_source

# The first convolution has a reduction length of 9, which no block of four divides; the last layer has the outputs.
# A second network has batch normalisation after every layer but the last, under the same names.
NETWORK = (
    "import torch\n"
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(\n"
    "        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU(),\n"
    "        nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 3))\n"
    "class Recurrent(nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.input, self.recurrent, self.fc = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3)\n"
    "    def forward(self, x):\n"
    "        state = x.new_zeros(len(x), 12)\n"
    "        for row in x[:, 0].unbind(1):\n"
    "            state = (self.input(row) + self.recurrent(state)).tanh()\n"
    "        return self.fc(state)\n"
    "class Direct(nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.hidden, self.fc = nn.Linear(64, 12), nn.Linear(76, 3)\n"
    "    def forward(self, x):\n"
    "        x = x.flatten(1)\n"
    "        return self.fc(torch.cat([self.hidden(x).sigmoid(), x], 1))\n"
    "def normalised():\n"
    "    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2),\n"
    "        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()), nn.Flatten(), nn.Linear(32, 12),\n"
    "        nn.Sequential(nn.BatchNorm1d(12), nn.ReLU()), nn.Linear(12, 3)]\n"
    "    return nn.Sequential(*layers)\n"
)
# These look at a recurrence or a direct link, which the other network has not; the head is spared.
OWN_NETWORK = {
    "temporal-jacobian": ("Recurrent", {"input.weight": 96, "recurrent.weight": 144}),
    "rvfl": ("Direct", {"hidden.weight": 768}),
}
WEIGHTS = {"0.weight": 36, "3.weight": 288, "6.weight": 384, "8.weight": 36}
STRUCTURES = {
    "element": "element",
    "N:M": "2:4",
    "block": "block:2x2",
    "channel": "channel",
    "input-channel": "input-channel",
    "hybrid": "hybrid",
    "fully-connected": "fully-connected",
}
SPARSITY = 0.6
# What a method cannot do without.
OPTIONS: dict[str, dict[str, Any]] = {
    "ticket-transfer": {"source_optimiser": "adam"},
    "snip-isometry": {"isometry_steps": 3},
    "neural-tangent-transfer": {"transfer_epochs": 1, "transfer_batch": 8, "mask_interval": 3},
    "prac": {"fewest": 10},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model file and a data file."""
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "net.py").write_text(NETWORK)
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = (random.standard_normal((48, 1, 8, 8)) + labels[:, None, None, None]).astype(np.float32)
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    before = torch.get_num_threads()
    yield folder
    torch.set_num_threads(before)


# Options that keep a run short, for the methods that have them.
SMALL: dict[str, Any] = {
    "update_interval": 2,
    "samples": 8,
    "batches": 2,
    "batch_size": 8,
    "candidates": 3,
    "tasks": 2,
    "values": 3,
}

# Methods that rank channels by the scales of batch normalisation, or train nothing else.
NORMALISED = ("network-slimming", "early-bird", "batchnorm-only")

# An allocation says where these begin; which layer has how many weights is what they learn.
REDISTRIBUTES = ("dsr", "snfs")

# With these every choice is combined with every other. With the rest, each structure and schedule goes with the others'
# defaults, and so does one further allocation, another one from method to method: allocating knows no method.
EXHAUSTIVE = ("magnitude", "lottery-ticket", "snip", "rigl")


def combinations(method: Method) -> Iterator[tuple[str, str, str]]:
    defaults = (method.structures[0], method.allocations[0], method.schedules[0])
    others = method.allocations[1:]
    further = others[list(METHODS).index(method.name) % len(others)] if others else None
    for structure in method.structures:
        for allocation in method.allocations:
            for schedule in method.schedules:
                choice = (structure, allocation, schedule)
                if structure == "N:M":
                    # Blocks have one density and nothing between dense and it.
                    if (allocation, schedule) == ("uniform", "one-shot"):
                        yield choice
                elif (method.name in EXHAUSTIVE and structure != "block") or (
                    sum(map(str.__ne__, choice, defaults)) <= 1 and allocation in (defaults[1], further)
                ):
                    yield choice


ALLOWED = [(name, *choice) for name, method in METHODS.items() for choice in combinations(method)]
REFUSED = [
    (name, kind, choice)
    for name, method in METHODS.items()
    for kind, choices, allowed in (
        ("structure", STRUCTURES, method.structures),
        ("allocation", (*ALLOCATIONS, "explicit"), method.allocations),
        ("schedule", ("one-shot", "iterative", "gradual"), method.schedules),
    )
    for choice in choices
    # Where nothing is pruned, no block keeps half, which is what it is told first.
    if choice not in allowed and not (choice == "N:M" and method.mask_from is None)
]


def recipe_for(place: Path, name: str, **choices: Any) -> PruneRecipe:
    if choices.get("allocation") == "explicit":
        choices |= {"allocation": {"0.weight": 0.5, "*": 0.25}, "sparsity": None}
    if METHODS[name].mask_from is None or METHODS[name].sparsity is not None:
        choices["sparsity"] = None
    factory = OWN_NETWORK[name][0] if name in OWN_NETWORK else "normalised" if name in NORMALISED else "build"
    plain = {
        "version": 1,
        "model": f"{place / 'net.py'}:{factory}",
        "data": f"npz:{place / 'data.npz'}",
        "seed": 1,
        "threads": 1,
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.05},
        "runs": [{"name": "run", "method": name, "init": METHODS[name].initialiser, "sparsity": SPARSITY, **choices}],
    }
    return load_recipe(plain).prune_recipes()[0]


@pytest.mark.parametrize(("name", "structure", "allocation", "schedule"), ALLOWED)
def test_a_checkpoint_that_holds_what_was_asked_for(
    place: Path, tmp_path: Path, name: str, structure: str, allocation: str, schedule: str
) -> None:
    choices: dict[str, Any] = {
        "structure": STRUCTURES[structure],
        "allocation": allocation,
        "schedule": schedule,
        "sparsity": 0.5 if structure == "N:M" else SPARSITY,
    }
    small = {key: value for key, value in SMALL.items() if key in METHODS[name].defaults}
    choices["options"] = small | OPTIONS.get(name, {})
    if name == "elastic-ticket":
        prune(recipe_for(place, "lottery-ticket", sparsity=SPARSITY, schedule="one-shot"), tmp_path / "ticket")
        choices["options"]["ticket"] = str(tmp_path / "ticket")
    if schedule == "iterative":
        choices["rounds"] = 2
    recipe = recipe_for(place, name, **choices)
    made = prune(recipe, tmp_path / "run")
    loaded = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    loaded.verify()
    assert loaded.metadata == made.metadata
    check_state(place, loaded, recipe)
    check_masks(loaded, recipe, structure)
    prune(recipe, tmp_path / "again")
    first, second = (tmp_path / run / "checkpoint.safetensors" for run in ("run", "again"))
    assert first.read_bytes() == second.read_bytes()


def check_state(place: Path, checkpoint: SparseCheckpoint, recipe: PruneRecipe) -> None:
    """The network takes the state, every value is finite, and masked-out entries are zero or as the seed drew them."""
    source = load_source(recipe.model, options={"input_shape": [1, 8, 8]}, allow_import=True)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.dense_state().items()})
    assert all(np.isfinite(array).all() for array in checkpoint.dense_state().values())
    for tensor in checkpoint.tensors.values():
        if tensor.mask is None:
            continue
        outside = tensor.dense()[~tensor.mask]
        if METHODS[recipe.method].frozen:
            assert tensor.record.seed is not None
            np.testing.assert_array_equal(outside, rebuild(tensor.record.seed, tensor.record.shape)[~tensor.mask])
        elif not METHODS[recipe.method].masks_coefficients:
            assert not outside.any()
        # Tensors that have no filters have no basis of them.
        plain = METHODS[recipe.method].parametrisation == "basis" and len(tensor.record.shape) < 3
        assert tensor.record.parametrisation == ("identity" if plain else METHODS[recipe.method].parametrisation)
        assert tensor.record.structure == recorded_structure(recipe.structure)


def spares_head(recipe: PruneRecipe) -> bool:
    return METHODS[recipe.method].spares_head


def check_masks(checkpoint: SparseCheckpoint, recipe: PruneRecipe, structure: str) -> None:
    masks = {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}
    kept = sum(int(mask.sum()) for mask in masks.values())
    if METHODS[recipe.method].mask_from is None:
        assert masks == {}
        return
    if structure == "N:M":
        # Along the reduction: inputs of a linear layer, (height, width, input) of a convolution.
        assert set(masks) == set(WEIGHTS) - {"0.weight"}
        for mask in masks.values():
            rows = np.moveaxis(mask, 1, -1).reshape(-1, 4)
            assert (rows.sum(axis=1) == 2).all()
        return
    if structure == "block":
        # The first layer is 4 x 9, the last 3 x 12: neither divides into blocks of two rows and columns.
        assert set(masks) == set(WEIGHTS) - {"0.weight", "8.weight"}
        for mask in masks.values():
            tiles = mask.reshape(len(mask) // 2, 2, -1, 2).sum(axis=(1, 3))
            assert set(np.unique(tiles)) <= {0, 4}
        total = sum(WEIGHTS[name] for name in masks)
        assert total - round(SPARSITY * total) - 4 * len(masks) < kept <= total - round(SPARSITY * total)
        return
    if structure == "channel":
        # Whole units; those of the last layer are the network's outputs and stay.
        assert set(masks) == set(WEIGHTS) - {"8.weight"}
        for mask in masks.values():
            units = mask.reshape(len(mask), -1)
            assert (units.all(axis=1) | ~units.any(axis=1)).all()
        total = sum(WEIGHTS[name] for name in masks)
        wanted = total - round(SPARSITY * total) if isinstance(recipe.allocation, str) else 18 + 72 + 96
        # Within one unit of the budget, never above it.
        assert wanted - max(9, 36, 32) < kept <= wanted
        return
    weights = {name: size for name, size in WEIGHTS.items() if name != "8.weight" or not spares_head(recipe)}
    if METHODS[recipe.method].only_head:
        weights = {"8.weight": WEIGHTS["8.weight"]}
    weights = OWN_NETWORK[recipe.method][1] if recipe.method in OWN_NETWORK else weights
    if structure == "fully-connected":
        weights = {name: weights[name] for name in ("6.weight", "8.weight")}
    assert set(masks) == set(weights)
    total = sum(weights.values())
    own = METHODS[recipe.method].sparsity
    sparsity = SPARSITY if own is None else own
    if not METHODS[recipe.method].exact:
        assert 0 < kept < total
    elif isinstance(recipe.allocation, str):
        assert kept == total - round(sparsity * total)
    else:
        wanted_counts = [18, 72, 96] if spares_head(recipe) else [18, 72, 96, 9]
        assert kept == sum(wanted_counts)
        if recipe.method not in REDISTRIBUTES:
            assert [int(mask.sum()) for mask in masks.values()] == wanted_counts
    if recipe.allocation == "uniform" and recipe.method not in REDISTRIBUTES and METHODS[recipe.method].exact:
        assert all(abs(int(masks[name].sum()) - (1 - sparsity) * weights[name]) < 1 for name in masks)


@pytest.mark.parametrize(("name", "kind", "choice"), REFUSED)
def test_what_a_method_does_not_allow_is_refused_with_the_reason(
    place: Path, name: str, kind: str, choice: str
) -> None:
    choices: dict[str, Any] = {kind: STRUCTURES[choice] if kind == "structure" else choice}
    if "N:M" in (choice, METHODS[name].structures[0]):
        choices["sparsity"] = 0.5
    with pytest.raises(UnsupportedError, match=f"method '{name}' does not go with {kind} '{choice}': .+ Choose from"):
        recipe_for(place, name, **choices)
