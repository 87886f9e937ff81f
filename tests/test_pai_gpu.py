"""Masks at initialisation computed on a GPU against the CPU's: the same but for weights whose scores all but tie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
@pytest.mark.parametrize("model", ["lenet-5-caffe", "resnet-20"])
def test_masks_of_a_gpu_agree_with_those_of_the_cpu_up_to_ties(tmp_path: Path, model: str, method: str) -> None:
    masks = {}
    for device in ("cpu", "cuda"):
        options: dict[str, Any] = {"method": method, "data": "digits", "sparsity": 0.9, "epochs": 0, "threads": 1}
        recipe = single_run(None, model, device=device, init="kaiming-normal", **options)
        made = prune(recipe, tmp_path / device)
        masks[device] = np.concatenate([t.mask.reshape(-1) for t in made.tensors.values() if t.mask is not None])
    assert masks["cpu"].sum() == masks["cuda"].sum()
    # Sums in another order move scores by about 1e-6 of their size; that many weights lie that close to the threshold.
    assert (masks["cpu"] != masks["cuda"]).mean() < 1e-3
