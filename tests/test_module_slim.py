"""Slimming the torch module itself: the same function with fewer channels, training goes on, no code in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import sparsepack
from sparsepack import cli
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.errors import FileFormatError, ModelError, UnsupportedError
from sparsepack.models.slimming.kept import Flags, compose, from_record, to_record
from sparsepack.models.slimming.module import slim_module

Run = Callable[..., tuple[int, str, str]]
Kept = dict[str, tuple[Flags | None, ...]]


@pytest.fixture
def compress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def flags(*kept: int, of: int) -> Flags:
    found = np.zeros(of, np.bool_)
    found[list(kept)] = True
    return found


def zeroed(module: nn.Module, outputs: Mapping[str, tuple[Flags | None, ...]]) -> nn.Module:
    """Write zeros where nothing stays: into outputs, biases and norm entries."""
    state = module.state_dict()
    for name, axes in outputs.items():
        for axis, keep in enumerate(axes):
            if keep is not None and "running" not in name:
                state[name].index_fill_(axis, torch.from_numpy(np.flatnonzero(~keep)), 0.0)
    return module


def same(module: nn.Module, kept: Kept, x: torch.Tensor) -> nn.Module:
    """Slim a module whose removed entries are zero; check shapes, parity, and that it trains as one."""
    zeroed(module, kept)
    small = slim_module(module, kept, (x,))
    for name, tensor in small.state_dict().items():
        axes = kept.get(name, (None,) * tensor.dim())
        dense = module.state_dict()[name].shape
        assert tuple(tensor.shape) == tuple(
            size if keep is None else int(keep.sum()) for size, keep in zip(dense, axes, strict=True)
        )
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), module.eval()(x), rtol=1e-5, atol=1e-5)
    small.train()
    loss = small(x).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    return small


class Attention(nn.Module):
    """Three heads of width 4 through a fused projection, and an MLP; the sizes are numbers in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.fc1, self.fc2 = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.reshape(n, tokens, 3, 4).transpose(1, 2) for part in (q, k, v))
        mixed = torch.softmax(q @ k.transpose(2, 3), dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        result: torch.Tensor = x + self.fc2(F.gelu(self.fc1(x)))
        return result


def test_heads_of_a_fused_projection() -> None:
    head = np.repeat(flags(0, 2, of=3), 4)
    hidden = flags(*range(0, 20, 2), of=20)
    kept: Kept = {
        "qkv.weight": (np.tile(head, 3), None),
        "qkv.bias": (np.tile(head, 3),),
        "out.weight": (None, head),
        "fc1.weight": (hidden, None),
        "fc1.bias": (hidden,),
        "fc2.weight": (None, hidden),
    }
    torch.manual_seed(0)
    small = same(Attention(), kept, torch.randn(2, 5, 12))
    assert isinstance(small, torch.fx.GraphModule)


class Padded(nn.Module):
    """A shortcut that is padded with zero channels, a split, a depthwise and a grouped convolution, a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.wide, self.depthwise = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(2, 4, 1)
        self.grouped, self.norm = nn.Conv2d(4, 8, 1, groups=2), nn.GroupNorm(2, 8)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(self.wide(x) + F.pad(x, (0, 0, 0, 0, 1, 3)))
        x = self.depthwise(x)
        left, right = torch.split(x, [6, 2], dim=1)
        x = F.relu(self.norm(self.grouped(self.left(left) + self.right(right))))
        result: torch.Tensor = self.head(x.mean((2, 3))[:, 1:6])
        return result


def test_padding_splits_groups_and_slices() -> None:
    # The stem's channels 0, 1, 3 are the sum's 1, 2, 4; channel 3 of the sum is the stem's 2.
    stem = flags(0, 1, 3, of=4)
    wide = flags(0, 1, 2, 4, 6, of=8)
    joined = flags(0, 1, of=4)
    group = flags(0, 1, 2, 3, of=8)
    kept: Kept = {
        "stem.weight": (stem, None, None, None),
        **{f"bn.{name}": (stem,) for name in ("weight", "bias", "running_mean", "running_var")},
        "stem.bias": (stem,),
        "wide.weight": (wide, stem, None, None),
        "wide.bias": (wide,),
        "depthwise.weight": (wide, None, None, None),
        "depthwise.bias": (wide,),
        "left.weight": (joined, wide[:6], None, None),
        "left.bias": (joined,),
        "right.weight": (joined, wide[6:], None, None),
        "right.bias": (joined,),
        # The second of two groups goes, with what it reads.
        "grouped.weight": (group, None, None, None),
        "grouped.bias": (group,),
        "norm.weight": (group,),
        "norm.bias": (group,),
        "head.weight": (None, group[1:6]),
    }
    torch.manual_seed(0)
    small = same(Padded(), kept, torch.randn(2, 3, 6, 6))
    layers = dict(small.named_modules())
    assert isinstance(layers["depthwise"], nn.Conv2d) and layers["depthwise"].groups == 5
    assert isinstance(layers["grouped"], nn.Conv2d) and layers["grouped"].groups == 1
    assert isinstance(layers["norm"], nn.GroupNorm) and layers["norm"].num_groups == 1


def test_a_forward_without_sizes_keeps_its_class() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(16, 2))
    keep = flags(1, 2, of=4)
    kept: Kept = {
        "0.weight": (keep, None, None, None),
        "0.bias": (keep,),
        "1.weight": (keep,),
        "3.weight": (None, np.repeat(keep, 4)),
    }
    small = same(module, kept, torch.randn(2, 1, 4, 4))
    assert type(small) is nn.Sequential
    assert next(p.shape for p in module.parameters()) == (4, 1, 3, 3)


class Branching(nn.Module):
    """A forward that torch.fx cannot trace, and one with a functional dropout beside a size."""

    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.a, self.b, self.branch = nn.Linear(4, 6), nn.Linear(6, 2), branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.branch and float(x.sum()) > 1e9:
            x = -x
        x = x.reshape(-1, 6) if self.branch else F.dropout(x.reshape(-1, 6), training=self.training)
        result: torch.Tensor = self.b(x)
        return result


@pytest.mark.parametrize(
    ("branch", "message"), [(True, "torch.fx cannot trace its forward"), (False, "use a layer such as nn.Dropout")]
)
def test_what_cannot_be_followed_is_refused_with_the_reason(branch: bool, message: str) -> None:
    keep = flags(0, 5, of=6)
    kept: Kept = {"a.weight": (keep, None), "a.bias": (keep,), "b.weight": (None, keep)}
    with pytest.raises(UnsupportedError, match=message):
        slim_module(Branching(branch), kept, (torch.randn(3, 4),))


def test_tensors_of_another_network_are_refused() -> None:
    module, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(2, 4)
    with pytest.raises(ModelError, match=r"has a tensor '2\.weight' that the model does not have"):
        slim_module(module, {"2.weight": (flags(0, of=2), None)}, (x,))
    with pytest.raises(ModelError, match=r"has the shape \(6, 4\); the slimmed network was cut from \(8, 'any'\)"):
        slim_module(module, {"0.weight": (flags(0, of=8), None)}, (x,))
    attention = nn.MultiheadAttention(4, 2)
    with pytest.raises(UnsupportedError, match=r"nn\.MultiheadAttention"):
        slim_module(attention, {"in_proj_weight": (flags(0, of=12), None)}, (x, x, x))


bits = st.lists(st.booleans(), min_size=1, max_size=40).filter(any).map(lambda found: np.array(found, np.bool_))


@given(kept=st.dictionaries(st.text("ab.", min_size=1), st.tuples(bits, bits)))
def test_records_read_back(kept: dict[str, tuple[Flags, Flags]]) -> None:
    record = msgspec.json.decode(msgspec.json.encode(to_record(kept)))
    for name, axes in from_record(record).items():
        for found, expected in zip(axes, kept[name], strict=True):
            np.testing.assert_array_equal(found, expected)


@given(first=bits, data=st.data())
def test_two_cuts_are_one(first: Flags, data: st.DataObject) -> None:
    left = int(first.sum())
    second = np.array(data.draw(st.lists(st.booleans(), min_size=left, max_size=left)), np.bool_)
    array = np.arange(first.size)
    (both,) = compose({"w": (first,)}, {"w": (second,)})["w"]
    np.testing.assert_array_equal(array[both], array[first][second])


@pytest.mark.parametrize(
    "text", ["", "4", "4: ", "4: 4", "4: 2-1", "4: 0,0", "4: 1,0", "4: -1", "4:0", "999999999: 0", "4: 0-3 ", "x: 0"]
)
def test_malformed_records_are_refused(text: str) -> None:
    with pytest.raises(FileFormatError, match="the kept indices of 'w'"):
        from_record({"w": [text]})


NETWORK = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16), nn.Sigmoid(),
        nn.Linear(16, 10))
"""
CHANNEL = ["--method", "magnitude", "--structure", "channel", "--allocation", "uniform", "--sparsity", "0.5"]
DATA = ["--data", "digits", "--threads", "1"]


def outputs(module: nn.Module) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        found: np.ndarray[Any, Any] = module.eval()(
            torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        ).numpy()
    return found


def test_slim_fine_tune_slim_again(compress: Run) -> None:
    Path("net.py").write_text(NETWORK)
    words = ["prune", "net.py:build", *DATA, *CHANNEL, "--epochs", "1", "--fine-tune-epochs", "0"]
    assert compress(*words, "-o", "a")[0] == 0
    code, out, _ = compress("slim", "a", "--model", "net.py:build", "-o", "a.safetensors")
    assert code == 0
    assert "Conv 3: 12 -> 6\n" in out
    assert "'compress prune net.py:build --weights a.safetensors' goes on with it." in out
    namespace: dict[str, Any] = {}
    exec(NETWORK, namespace)  # noqa: S102
    build = namespace["build"]
    masked = build()
    dense = SparseCheckpoint.load(Path("a/checkpoint.safetensors")).dense_state()
    masked.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in dense.items()})
    small = sparsepack.load(build, "a.safetensors")
    # The sigmoid of a masked neuron is 0.5: the last layer's bias takes it over.
    np.testing.assert_allclose(outputs(small), outputs(masked), atol=1e-5)
    assert small.state_dict()["3.weight"].shape == (6, 4, 3, 3)
    assert small.state_dict()["10.weight"].shape == (10, 8)
    # Training goes on on the small network, whose masks are over.
    again = ["prune", "net.py:build", "--weights", "a.safetensors", *DATA, *CHANNEL, "--fine-tune-epochs", "1"]
    assert compress(*again, "-o", "b")[0] == 0
    checkpoint = SparseCheckpoint.load(Path("b/checkpoint.safetensors"))
    assert checkpoint.tensors["3.weight"].record.shape == (6, 4, 3, 3)
    assert checkpoint.metadata.recipe["train"]["epochs"] == 0
    assert compress("slim", "b", "--model", "net.py:build", "-o", "b.safetensors")[0] == 0
    last = sparsepack.load(build, "b.safetensors")
    assert last.state_dict()["3.weight"].shape == (3, 2, 3, 3)
    np.testing.assert_allclose(outputs(last), outputs(sparsepack.load(build, "b/checkpoint.safetensors")), atol=1e-5)
    # In the dense network's indices, after two cuts.
    kept = SparseCheckpoint.load(Path("b.safetensors")).metadata.model.kept
    assert isinstance(kept, dict) and from_record(kept)["3.weight"][0] is not None
    assert [f.size for f in from_record(kept)["3.weight"][:2] if f is not None] == [12, 8]
    # Any format takes the small network.
    assert compress("export", "b.safetensors", "--to", "packed", "-o", "b.spk")[0] == 0
    assert compress("export", "b.safetensors", "--to", "onnx", "--model", "net.py:build", "-o", "b.onnx")[0] == 0
    assert compress("verify", "b.onnx", "--against", "b.safetensors", "--model", "net.py:build")[0] == 0


def test_a_slimmed_zoo_network_is_a_model_by_its_file_alone(compress: Run) -> None:
    words = ["prune", "lenet-300-100", *DATA, *CHANNEL, "--epochs", "1", "--fine-tune-epochs", "0"]
    assert compress(*words, "-o", "a")[0] == 0
    assert compress("slim", "a", "-o", "a.safetensors")[0] == 0
    assert compress("slim", "a", "-o", "again.safetensors")[0] == 0
    assert Path("a.safetensors").read_bytes() == Path("again.safetensors").read_bytes()
    assert compress("prune", "a.safetensors", *DATA, *CHANNEL, "--fine-tune-epochs", "1", "-o", "b")[0] == 0
    code, out, _ = compress("slim", "b", "-o", "b.safetensors", "--json")
    assert code == 0
    layers = {row["name"]: row["outputs"] for row in json.loads(out)["account"]["layers"]}
    assert layers["fc1.weight"] == [150, 75]
    # The small run's own checkpoint needs no other file.
    Path("a.safetensors").unlink()
    assert compress("export", "b", "--to", "onnx-slim", "-o", "b.onnx")[0] == 0
    code, _, err = compress("slim", "a", "-o", "x.bin")
    assert (code, "name it x.safetensors" in err) == (2, True)


def test_code_in_a_checkpoint_is_not_run_because_the_file_names_it(compress: Run) -> None:
    Path("net.py").write_text(NETWORK)
    words = ["prune", "net.py:build", *DATA, *CHANNEL, "--epochs", "0", "-o", "a"]
    assert compress(*words)[0] == 0
    code, _, err = compress("slim", "a", "-o", "a.safetensors")
    assert code == 2 and "--model net.py:build" in err
    code, _, err = compress("prune", "a/checkpoint.safetensors", *DATA, *CHANNEL, "-o", "b")
    assert code == 2
    assert "compress prune net.py:build --weights a/checkpoint.safetensors" in err


def test_a_damaged_file_and_another_network_are_refused(compress: Run) -> None:
    assert compress("prune", "lenet-300-100", *DATA, *CHANNEL, "--epochs", "0", "-o", "a")[0] == 0
    assert compress("slim", "a", "-o", "a.safetensors")[0] == 0
    code, _, err = compress("prune", "lenet-5-caffe", "--weights", "a.safetensors", *DATA, *CHANNEL, "-o", "b")
    assert code == 2
    assert "made from the zoo model 'lenet-300-100'" in err
    with pytest.raises(ModelError):
        sparsepack.load(lambda: nn.Linear(2, 2), "a.safetensors")
    with pytest.raises(ModelError, match="returned a int"):
        sparsepack.load(lambda: 3, "a.safetensors")
    content = bytearray(Path("a.safetensors").read_bytes())
    content[-3] ^= 1
    Path("a.safetensors").write_bytes(content)
    code, _, err = compress("prune", "a.safetensors", *DATA, *CHANNEL, "-o", "b")
    assert code == 1
    assert err.count("\n") == 1
