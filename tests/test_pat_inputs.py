"""What a user may give that a method cannot work with: each says what was wrong and what to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes import linear_network, points, probe_of
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.evidence.flow import absolute_flow
from sparsepack.compressor.evidence.kronecker import kronecker_factors
from sparsepack.compressor.evidence.unit_gates import unit_gates
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.errors import UnsupportedError


def run(folder: Path, method: str, *options: str, **more: Any) -> SparseCheckpoint:
    wanted = {"method": method, "data": "digits", "epochs": 1, "threads": 1, "method_options": options, **more}
    return prune(single_run(None, "lenet-300-100", **wanted), folder)


def test_a_network_without_batch_normalisation_has_no_scales_to_slim_by(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"none; use another method, for example l1-filters\."):
        run(tmp_path / "run", "network-slimming", sparsity=0.5)


def test_a_hessian_that_had_to_be_damped_is_a_warning_of_the_checkpoint(tmp_path: Path) -> None:
    made = run(tmp_path / "run", "sparsegpt", "samples=4", "damp=0", "retrain=none", sparsity=0.5)
    warnings = [text for text in made.metadata.warnings if "not positive definite with a damping of 0" in text]
    assert [text.split(":")[0] for text in warnings] == ["'fc1.weight'", "'fc2.weight'", "'fc3.weight'"]
    assert (
        SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors").metadata.warnings == made.metadata.warnings
    )


@pytest.mark.parametrize("keep_alive", [False, True])
def test_a_collapsed_layer_is_named_and_the_count_is_exact(tmp_path: Path, keep_alive: bool) -> None:
    made = run(
        tmp_path / "run",
        "diagonal-fisher",
        "samples=16",
        "damp=0",
        "retrain=none",
        sparsity=1 - 4 / 50_200,
        keep_alive=keep_alive,
    )
    kept = {name: int(t.mask.sum()) for name, t in made.tensors.items() if t.mask is not None}
    assert sum(kept.values()) == 4
    named = [text for text in made.metadata.warnings if "keeps no weight" in text]
    assert len(named) == sum(count == 0 for count in kept.values())
    assert (min(kept.values()) >= 1) == keep_alive
    assert bool(named) != keep_alive


def test_a_grouped_convolution_has_no_single_pair_of_factors() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Unflatten(1, (2, 3, 1)), nn.Conv2d(2, 4, 1, groups=2), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(UnsupportedError, match=r"'1\.weight' multiplies its output units by different inputs"):
        kronecker_factors(probe_of(module, points(), batches=1, batch_size=4, labels="data"))


def test_a_loss_that_reaches_no_weight_ranks_nothing() -> None:
    from sparsepack.compressor.evidence.curvature import taylor_second_order_terms, taylor_terms

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear_network(6, 3)
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x).detach() * self.scale
            return result

    with pytest.raises(UnsupportedError, match="no gradient reaches any prunable weight"):
        taylor_terms(probe_of(Cut(), points(), batches=1, batch_size=4, mode="eval"))
    with pytest.raises(UnsupportedError, match="no gradient reaches any prunable weight"):
        taylor_second_order_terms(probe_of(Cut(), points(), batches=1, batch_size=4, mode="eval"))


FROZEN = """
from torch import nn
def build():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    module[1].weight.requires_grad_(False)
    module[3].weight.requires_grad_(False)
    return module
"""


@pytest.mark.parametrize("method", ["snip", "grasp", "prospr", "obd", "taylor-second-order", "skeletonization"])
def test_weights_without_gradients_cannot_be_ranked_by_them(method: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FROZEN)
    wanted = {"method": method, "data": "digits", "epochs": 1, "threads": 1, "sparsity": 0.5}
    with pytest.raises(UnsupportedError, match="no gradient reaches"):
        prune(single_run(None, f"{tmp_path}/net.py:build", **wanted), tmp_path / "run")


def test_freezing_weights_that_nobody_trains_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FROZEN)
    wanted = {"method": "random-filters", "data": "digits", "epochs": 1, "threads": 1, "sparsity": 0.5}
    made = prune(single_run(None, f"{tmp_path}/net.py:build", **wanted), tmp_path / "run")
    assert made.metadata.training is not None and made.metadata.training.trained_parameters == 18


def test_flow_that_never_reaches_the_output_ranks_nothing() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear_network(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x).detach()
            return result

    with pytest.raises(UnsupportedError, match="no path of the network leads to its outputs"):
        absolute_flow(replace(probe_of(Detached(), None), examples=lambda batch: (torch.ones(batch, 6),)))


def test_a_single_layer_has_no_gates_between_layers() -> None:
    assert unit_gates(probe_of(linear_network(6, 3), points(), batches=1, batch_size=4, mode="eval")) == {}


def test_pruned_weights_of_woodfisher_move_the_others(tmp_path: Path) -> None:
    kept = run(tmp_path / "none", "woodfisher", "samples=20", "update=none", "retrain=none", sparsity=0.8)
    moved = run(tmp_path / "joint", "woodfisher", "samples=20", "update=joint", "retrain=none", sparsity=0.8)
    for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
        a, b = kept.tensors[name], moved.tensors[name]
        assert a.mask is not None and b.mask is not None
        np.testing.assert_array_equal(a.mask, b.mask)
        assert np.abs(a.dense() - b.dense()).max() > 0
