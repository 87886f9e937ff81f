"""Li et al. 2017, table 1, by the catalogue's method: the masks of `l1-filters` on VGG-16-A and ResNet-56-A."""

from pathlib import Path
from typing import Any

import numpy as np

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.models.source import TorchSource, load_source

# Two fully connected layers, as the paper's count has it.
VGG = (
    "import torch\n"
    "from torch import nn\n"
    "def build():\n"
    "    torch.manual_seed(0)\n"
    "    layers, width = [], 3\n"
    "    for size in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):\n"
    "        if size:\n"
    "            layers += [nn.Conv2d(width, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU()]\n"
    "            width = size\n"
    "        else:\n"
    "            layers += [nn.MaxPool2d(2)]\n"
    "    head = [nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]\n"
    "    return nn.Sequential(*layers, *head)\n"
)


Arrays = dict[str, np.ndarray[Any, Any]]


def pruned(folder: Path, model: str, densities: dict[str, float]) -> tuple[SparseCheckpoint, Arrays]:
    np.savez(
        folder / "none.npz",
        x_train=np.zeros((2, 3, 32, 32), np.float32),
        y_train=np.array([0, 9]),
        x_test=np.zeros((2, 3, 32, 32), np.float32),
        y_test=np.array([0, 9]),
    )
    plain = {
        "version": 1,
        "model": model,
        "data": f"npz:{folder / 'none.npz'}",
        "threads": 1,
        "train": {"epochs": 0},
        "runs": [{"name": "run", "method": "l1-filters", "allocation": {**densities, "*": 1.0}}],
    }
    made = prune(load_recipe(plain).prune_recipes()[0], folder / "run")
    # Which output units stay, by weight; a tensor that is not masked keeps all.
    kept: Arrays = {}
    for name, tensor in made.tensors.items():
        if tensor.record.role == "prunable":
            shape = tensor.record.shape
            mask = np.ones(shape, np.bool_) if tensor.mask is None else tensor.mask
            kept[name] = np.asarray(mask.reshape(shape[0], -1).any(axis=1))
    return made, kept


def smallest(weights: np.ndarray[Any, Any], count: int) -> set[int]:
    norms = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(axis=1)
    return set(np.argsort(norms, kind="stable")[:count].tolist())


def test_vgg_16_a(tmp_path: Path) -> None:
    (tmp_path / "vgg.py").write_text(VGG)
    source = load_source(f"{tmp_path / 'vgg.py'}:build", options={"input_shape": [3, 32, 32]}, allow_import=True)
    assert isinstance(source, TorchSource)
    dense = {name: p.detach().numpy() for name, p in source.build().named_parameters() if p.dim() == 4}
    names = list(dense)
    halved = [names[0], *names[7:13]]
    _, kept = pruned(tmp_path, f"{tmp_path / 'vgg.py'}:build", dict.fromkeys(halved, 0.5))
    for name in halved:
        assert set(np.flatnonzero(~kept[name]).tolist()) == smallest(dense[name], len(dense[name]) // 2)
    sides = (32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2)
    weights, macs = [0, 0], [0, 0]
    inputs = [3, 3]
    for name, side in zip(names, sides, strict=True):
        outputs = (len(kept[name]), int(kept[name].sum()))
        for i in (0, 1):
            weights[i] += 9 * inputs[i] * outputs[i]
            macs[i] += 9 * inputs[i] * outputs[i] * side * side
            inputs[i] = outputs[i]
    for i in (0, 1):
        weights[i] += inputs[i] * 512 + 5120
        macs[i] += inputs[i] * 512 + 5120
    assert weights == [14_977_728, 5_390_176]
    assert [round(100 * (1 - b / a), 1) for a, b in (weights, macs)] == [64.0, 34.2]


def test_resnet_56_a(tmp_path: Path) -> None:
    firsts = [f"layer{stage}.{block}.conv1.weight" for stage in (1, 2, 3) for block in range(9)]
    densities = {}
    for number, name in enumerate(firsts):
        width = (16, 32, 64)[number // 9]
        if 2 * (number + 1) not in (16, 20, 38, 54):
            # What stays is rounded down: 14 of 16, 28 of 32, 57 of 64.
            densities[name] = int(0.9 * width) / width
    made, kept = pruned(tmp_path, "resnet-56", densities)
    shapes = {name: tensor.record.shape for name, tensor in made.tensors.items() if tensor.record.role == "prunable"}
    weights, macs = [0, 0], [0, 0]
    for name, shape in shapes.items():
        side = {"layer2": 16, "layer3": 8, "fc": 1}.get(name.split(".")[0], 32)
        inputs = [int(np.prod(shape[1:]))] * 2
        if name.endswith("conv2.weight"):
            inputs[1] = 9 * int(kept[name.replace("conv2", "conv1")].sum())
        for i, outputs in enumerate((shape[0], int(kept[name].sum()))):
            weights[i] += inputs[i] * outputs
            macs[i] += inputs[i] * outputs * side * side
    assert weights[0] == 848_944
    assert [round(100 * (1 - b / a), 1) for a, b in (weights, macs)] == [9.4, 10.4]
