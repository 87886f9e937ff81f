"""Masks that a seed draws cost their seed; masks from anywhere else are never taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.scores.random import random
from sparsepack.errors import FileFormatError
from sparsepack.exporters import export
from sparsepack.exporters.codecs import POSITIONS, Layout
from sparsepack.files import plausible_bytes

CODEC = POSITIONS["seeded-mask"]


def highest(shape: tuple[int, ...], seed: int, kept: int, draw: int = 0, name: str = "w") -> np.ndarray:
    """The oracle: sort all scores, the earlier of equals first."""
    scores = random({name: shape}, seed, draw)[name].reshape(-1)
    mask = np.zeros(scores.size, np.bool_)
    mask[np.argsort(-scores, kind="stable")[:kept]] = True
    return mask.reshape(shape)


@given(st.integers(2, 6000), st.integers(0, 2**32 - 1), st.integers(0, 1), st.data())
def test_a_drawn_mask_is_its_seed(size: int, seed: int, draw: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, size - 1))
    mask = highest((size,), seed, kept, draw)
    layout = Layout((size,), "element", 0, kept, "w", seed)
    stream = CODEC.encode(mask, layout)
    assert stream is not None
    assert stream[:4] == seed.to_bytes(4, "little")
    assert len(stream) == 5
    np.testing.assert_array_equal(CODEC.decode(stream, Layout((size,), "element", 0, kept, "w")), mask)


def test_another_mask_is_none_of_its_own() -> None:
    mask = highest((100, 100), 7, 1000)
    layout = Layout(mask.shape, "element", 0, 1000, "w", 7)
    assert CODEC.encode(mask, layout) is not None
    # One weight moved, far behind what is looked at first.
    moved = mask.copy()
    first, last = np.flatnonzero(mask)[-1], np.flatnonzero(~mask)[-1]
    moved.reshape(-1)[[first, last]] = [False, True]
    assert CODEC.encode(moved, layout) is None
    for other in (
        Layout(mask.shape, "element", 0, 1000, "v", 7),
        Layout(mask.shape, "element", 0, 1000, "w", 8),
        Layout(mask.shape, "element", 0, 1000, "w"),
    ):
        assert CODEC.encode(mask, other) is None


@pytest.mark.parametrize(("stream", "kept"), [(b"", 5), (bytes(6), 5), (bytes(5), 0), (bytes(5), 10)])
def test_malformed_seeds_are_refused(stream: bytes, kept: int) -> None:
    with pytest.raises(FileFormatError, match="takes 5 bytes"):
        CODEC.decode(stream, Layout((10,), "element", 0, kept, "w"))


def test_static_random_sparsity_costs_its_seed(tmp_path: Path) -> None:
    one = {"name": "run", "method": "random-at-init", "sparsity": 0.9}
    train = {"epochs": 1, "learning_rate": 0.05}
    recipe = {
        "version": 1, "model": "lenet-300-100", "data": "digits", "seed": 3, "threads": 1, "train": train, "runs": [one]
    }  # fmt: skip
    checkpoint = prune(load_recipe(recipe).prune_recipes()[0], tmp_path / "run")
    artifact = export(checkpoint, "packed", tmp_path / "x.spk")
    artifact.verify()
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(artifact.tensor(name), tensor.dense())
    rows = {row.name: row for row in artifact.rows()}
    masked = [name for name, tensor in checkpoint.tensors.items() if tensor.mask is not None]
    assert [rows[name].codec.split(" + ")[0] for name in masked] == ["seeded-mask"] * 3
    # Nothing but values is left: three bytes of noise in each, and a little for sign and exponent.
    for name in masked:
        assert rows[name].bytes < 5 + 3.7 * rows[name].nnz + 40
        assert rows[name].bound_bytes <= 4 * rows[name].nnz


def test_a_large_mask_is_a_seed_only_beside_values_that_vouch_for_it(
    checkpoint_of: Callable[..., SparseCheckpoint], tmp_path: Path
) -> None:
    shape = (5000, 4000)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    codecs = []
    for kept in (20_000, 200):
        tensor = make_tensor("w", noise, mask=highest(shape, 0, kept))
        artifact = export(checkpoint_of(tensor), "packed", tmp_path / f"{kept}.spk")
        codecs.append(artifact.rows()[0].codec.split(" + ")[0])
        assert plausible_bytes(artifact.size) >= noise.nbytes
    assert codecs == ["seeded-mask", "gaps"]
