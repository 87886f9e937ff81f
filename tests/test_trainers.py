"""The sparsifier under other people's trainers: the example runs, and a run that goes on ends in the same bits.

Skipped, with the reason, where PyTorch Lightning is not installed; ``make trainers`` installs it and runs this file.
"""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sparsepack.exporters import open_artifact
from sparsepack.models.data import load_data

EXAMPLE = Path(__file__).parents[1] / "examples" / "lightning_trainer.py"
# What Lightning 2.6 says of the torch that it runs on, and of a loader that works in one process.
THEIRS = (
    "ignore:.*isinstance\\(treespec, LeafSpec\\).*",
    "ignore:.*does not have many workers.*",
    "ignore:.*exists and is not empty.*",
    "ignore:.*number of training batches.*log_every_n_steps.*",
)

pytestmark = [pytest.mark.lightning, *(pytest.mark.filterwarnings(warning) for warning in THEIRS)]


@pytest.fixture(autouse=True)
def _installed() -> None:
    if importlib.util.find_spec("pytorch_lightning") is None:
        if os.environ.get("SPARSEPACK_REQUIRE_TRAINERS") == "1":
            pytest.fail("PyTorch Lightning is not installed")
        pytest.skip("PyTorch Lightning is not installed (make trainers)")


def test_the_lightning_example_runs_and_its_artifact_opens(tmp_path: Path) -> None:
    output = tmp_path / "lightning.spk"
    done = subprocess.run([sys.executable, EXAMPLE, output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # 1,437 examples in batches of 32 are 45; every two of them, and the odd last one, are a step.
    assert "138 steps, sparsity 0.900" in done.stdout
    tensors = open_artifact(output).tensors()
    built = runpy.run_path(str(EXAMPLE))["build"]()
    built.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    data = load_data("digits")
    assert data is not None
    inputs, labels = data.test()
    accuracy = float((built.eval()(inputs).argmax(dim=1) == labels).float().mean())
    assert f"accuracy {accuracy:.3f}" in done.stdout
    assert accuracy > 0.85
    assert np.mean(tensors["1.weight"] == 0) > 0.8


def test_a_lightning_run_that_goes_on_ends_in_the_same_bits(tmp_path: Path) -> None:
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import ModelCheckpoint

    data = load_data("digits")
    assert data is not None
    inputs, labels = next(data.batches("train", 256))
    loader = DataLoader(TensorDataset(inputs, labels), 32)
    classifier = runpy.run_path(str(EXAMPLE))["SparseClassifier"]

    def fit(start: Path | None) -> Any:
        torch.manual_seed(0)
        module = classifier(inputs[:2], 4 * 4)
        trainer = lightning.Trainer(
            max_epochs=4,
            accelerator="cpu",
            accumulate_grad_batches=2,
            logger=False,
            callbacks=[ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader, ckpt_path=start)
        assert trainer.global_step == module.sparsifier.steps == 16
        return module

    whole, resumed = fit(None), fit(tmp_path / "epoch=1.ckpt")
    for (name, one), two in zip(whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    masks = whole.sparsifier.masks
    assert all(torch.equal(resumed.sparsifier.masks[name], mask) for name, mask in masks.items())
    assert whole.sparsifier.sparsity == pytest.approx(0.9, abs=1e-3)
