"""What a training hands over in place of weights: into the checkpoint, refused where it decodes to something else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.parametrisations import Handover, basis, options, signs
from sparsepack.compressor.sparsifier import Sparsifier
from sparsepack.compressor.training.sparse_selection.edge_popup import EdgePopup
from sparsepack.errors import ModelError
from sparsepack.models.tensors import to_numpy

NETWORK = """
from torch import nn


def build():
    import torch
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(1, 6)
"""


def trained(folder: Path, init: str | None = "signed-constant") -> SparseCheckpoint:
    """One step of a method that selects random weights."""
    (folder / "network.py").write_text(NETWORK)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    sparsifier = Sparsifier(module, torch.zeros(1, 6), method="edge-popup", sparsity=0.5, total_steps=1, init=init)
    sparsifier.attach(torch.optim.SGD(sparsifier.parameters(), lr=0.1))
    loss = module(torch.ones(4, 6)).square().sum()
    loss.backward()
    sparsifier.step()
    sparsifier.finish()
    made = sparsifier.checkpoint(f"{folder / 'network.py'}:build")
    for name, dense in made.dense_state().items():
        np.testing.assert_array_equal(dense, to_numpy(module.state_dict()[name]))
    return made


def test_parts_stand_in_the_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def handover(dynamics: EdgePopup) -> dict[str, Handover]:
        """The first candidate of each weight is the weight as it was drawn."""
        found = {}
        for name, mask in dynamics.masks.items():
            kept = mask.numpy()
            chosen = options.parts_of(np.zeros(kept.shape, np.int64), 4, kept)
            found[name] = Handover("options", chosen, count=4)
        return found

    monkeypatch.setattr(EdgePopup, "handover", handover)
    made = trained(tmp_path)
    made.save(tmp_path / "c.safetensors")
    loaded = SparseCheckpoint.load(tmp_path / "c.safetensors")
    loaded.verify()
    weight = loaded.tensors["0.weight"]
    assert (weight.record.parametrisation, weight.record.count, weight.record.parts) == ("options", 4, ("choices",))
    assert weight.values is None
    assert weight.kept == 24
    assert not loaded.metadata.warnings
    assert loaded.tensors["0.bias"].record.parametrisation == "identity"


def test_other_weights_than_the_trained_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def handover(dynamics: EdgePopup) -> dict[str, Handover]:
        kept = dynamics.masks["0.weight"].numpy()
        return {"0.weight": Handover("options", options.parts_of(np.ones(kept.shape, np.int64), 2, kept), count=2)}

    monkeypatch.setattr(EdgePopup, "handover", handover)
    with pytest.raises(
        ModelError, match=r"'edge-popup' hands over options for tensor '0\.weight' that decode to other"
    ):
        trained(tmp_path)


def test_without_a_seed_the_signs_are_stored_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The scale alone relies on the seed's signs; a network that brings its weights has none."""

    def handover(dynamics: EdgePopup) -> dict[str, Handover]:
        found = {}
        for name, mask in dynamics.masks.items():
            weight = dict(dynamics.module.named_parameters())[name].data
            torch.mul(weight.sign(), 0.25, out=weight)
            found[name] = Handover("signs", signs.parts_of(mask.numpy(), scale=np.float32(0.25)))
        return found

    monkeypatch.setattr(EdgePopup, "handover", handover)
    seeded = trained(tmp_path)
    assert seeded.tensors["0.weight"].record.parts == ("scale",)
    brought = trained(tmp_path, init=None)
    assert brought.tensors["0.weight"].record.parts == ("scale", "signs")
    assert brought.tensors["0.weight"].record.seed is None


def test_what_cannot_be_stored_without_a_seed_is_stored_as_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def handover(dynamics: EdgePopup) -> dict[str, Handover]:
        kept = dynamics.masks["0.weight"].numpy()
        return {"0.weight": Handover("options", options.parts_of(np.zeros(kept.shape, np.int64), 2, kept), count=2)}

    monkeypatch.setattr(EdgePopup, "handover", handover)
    made = trained(tmp_path, init=None)
    assert made.tensors["0.weight"].record.parametrisation == "identity"
    assert any("stored as values, not as a seed" in warning for warning in made.metadata.warnings)


def test_a_computed_tensor_is_set_to_what_the_file_decodes_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Training sums in another order than the decoder; both agree to rounding, and the network takes the file's."""
    (tmp_path / "filters.py").write_text(
        NETWORK.replace("nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)", "nn.Conv2d(2, 3, 3)").replace(
            "1, 6", "1, 2, 3, 3"
        )
    )
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3))

    def handover(dynamics: EdgePopup) -> dict[str, Handover]:
        mask = dynamics.masks["0.weight"]
        coefficients = torch.randn(3, 2, 3, 3) * mask
        filters = torch.linalg.qr(torch.randn(9, 9))[0]
        weight = dict(dynamics.module.named_parameters())["0.weight"]
        weight.data.copy_((coefficients.reshape(-1, 9) @ filters).reshape(weight.shape))
        parts = basis.parts_of(coefficients.numpy(), filters.numpy(), mask.numpy())
        return {"0.weight": Handover("basis", parts)}

    monkeypatch.setattr(EdgePopup, "handover", handover)
    sparsifier = Sparsifier(module, torch.zeros(1, 2, 3, 3), method="edge-popup", sparsity=0.5, total_steps=1)
    sparsifier.attach(torch.optim.SGD(sparsifier.parameters(), lr=0.1))
    module(torch.ones(1, 2, 3, 3)).sum().backward()
    sparsifier.step()
    sparsifier.finish()
    made = sparsifier.checkpoint(f"{tmp_path / 'filters.py'}:build")
    assert made.tensors["0.weight"].record.parametrisation == "basis"
    np.testing.assert_array_equal(made.dense_state()["0.weight"], to_numpy(module.state_dict()["0.weight"]))
    assert made.tensors["0.weight"].kept == 27
