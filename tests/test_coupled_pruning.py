"""Pruning by coupled units from the command line: a masked channel is really dead, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Graph, run, widths
from onnx import numpy_helper

from sparsepack import cli
from sparsepack.compressor.checkpoint import SparseCheckpoint

Run = Callable[..., tuple[int, str, str]]
CHANNEL = ["--method", "magnitude", "--structure", "channel", "--allocation", "uniform"]
NETWORK = """
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.fc = Block(1, 8), Block(8, 12), Block(12, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        return self.fc(x.mean((2, 3)))


def build():
    return Net()
"""


@pytest.fixture
def compress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def residual(path: Path) -> None:
    """Write stem -> (+ inner -> outer) -> pool -> classifier, each convolution with bias, BatchNorm and padding."""
    graph = Graph()

    def block(name: str, x: str, inputs: int, outputs: int) -> str:
        weights = [graph.weight(f"{name}.weight", outputs, inputs, 3, 3), graph.weight(f"{name}.bias", outputs)]
        x = graph.add("Conv", x, *weights, pads=[1, 1, 1, 1])
        entries = [graph.weight(f"{name}.{key}", outputs) for key in ("scale", "shift", "mean")]
        return str(
            graph.add("BatchNormalization", x, *entries, graph.constant(f"{name}.var", np.ones(outputs, np.float32)))
        )

    stem = graph.add("Relu", block("stem", "x", 3, 8))
    x = graph.add("Add", stem, block("outer", graph.add("Relu", block("inner", stem, 8, 12)), 12, 8))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", graph.add("Relu", x)))
    graph.add("Gemm", x, graph.weight("fc.weight", 5, 8), graph.weight("fc.bias", 5), transB=1, name="y")
    path.write_bytes(graph.model({"x": ("batch", 3, 8, 8)}, ["y"]).SerializeToString())


def test_a_coupled_mask_removes_the_channel_everywhere(compress: Run) -> None:
    residual(Path("m.onnx"))
    assert compress("prune", "m.onnx", *CHANNEL, "--sparsity", "0.5", "-o", "run")[0] == 0
    assert compress("export", "run", "--to", "onnx", "-o", "masked.onnx")[0] == 0
    code, out, _ = compress("export", "run", "--to", "onnx-slim", "-o", "slim.onnx")
    assert code == 0
    # Padding stands in no channel's way: bias, scale and shift are zero too.
    assert "zero padding" not in out
    assert widths(onnx.load("slim.onnx"))["outer.weight"] == (4, 6, 3, 3)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    masked, slim = (run(onnx.load(name), {"x": x})[0] for name in ("masked.onnx", "slim.onnx"))
    np.testing.assert_allclose(slim, masked, atol=1e-4)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load("masked.onnx").graph.initializer}
    gone = ~tensors["stem.weight"].any(axis=(1, 2, 3))
    assert int(gone.sum()) == 4
    for name in ("stem.bias", "stem.scale", "stem.shift", "outer.bias", "outer.scale", "outer.shift"):
        assert not tensors[name][gone].any()
        assert tensors[name][~gone].all()
    assert not tensors["outer.weight"][gone].any()
    # By hand: the pair of filters with the smallest sum of magnitudes goes.
    dense = {t.name: numpy_helper.to_array(t) for t in onnx.load("m.onnx").graph.initializer}
    norms = sum(np.abs(dense[name]).reshape(8, -1).sum(axis=1) for name in ("stem.weight", "outer.weight"))
    assert sorted(np.argsort(norms)[:4].tolist()) == np.flatnonzero(gone).tolist()


def test_training_leaves_a_masked_channel_dead(compress: Run) -> None:
    Path("net.py").write_text(NETWORK)
    words = ["prune", "net.py:build", "--data", "digits", *CHANNEL, "--sparsity", "0.5", "--schedule", "iterative"]
    words += ["--rounds", "2", "--epochs", "1", "--fine-tune-epochs", "1", "--threads", "1", "--saliency", "taylor"]
    code, out, _ = compress(*words, "-o", "run")
    assert code == 0
    assert "'fc.weight' stays dense: it is a dimension of the graph's output" in out
    checkpoint = SparseCheckpoint.load(Path("run/checkpoint.safetensors"))
    state = checkpoint.dense_state()
    mask = checkpoint.tensors["stem.conv.weight"].mask
    other = checkpoint.tensors["outer.conv.weight"].mask
    assert mask is not None and other is not None
    keep = mask.any(axis=(1, 2, 3))
    assert int(keep.sum()) == 4
    np.testing.assert_array_equal(keep, other.any(axis=(1, 2, 3)))
    for name in (
        "stem.conv.bias",
        "stem.bn.weight",
        "stem.bn.bias",
        "outer.conv.bias",
        "outer.bn.weight",
        "outer.bn.bias",
    ):
        assert checkpoint.tensors[name].mask is None
        assert not state[name][~keep].any()
        assert state[name][keep].any()
    code, out, _ = compress("export", "run", "--to", "onnx-slim", "--model", "net.py:build", "-o", "slim.onnx")
    assert code == 0
    assert "Conv inner.conv: 12 -> 6" in out
    assert "Conv outer.conv: 8 -> 4" in out
    assert "zero padding" not in out


def test_widths_are_multiples_on_request(compress: Run) -> None:
    residual(Path("m.onnx"))
    for allocation in ("uniform", "global"):
        words = ["prune", "m.onnx", *CHANNEL, "--allocation", allocation, "--sparsity", "0.4", "--round-to", "4"]
        assert compress(*words, "-o", allocation)[0] == 0
        checkpoint = SparseCheckpoint.load(Path(allocation) / "checkpoint.safetensors")
        for name in ("stem.weight", "inner.weight"):
            mask = checkpoint.tensors[name].mask
            assert mask is not None and int(mask.any(axis=(1, 2, 3)).sum()) % 4 == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--structure", "chanel"], 2, "unknown structure 'chanel'"),
        (["--structure", "head"], 1, "its output units are channels, and the structure is head"),
        (["--structure", "channel", "--saliency", "l3"], 2, "Did you mean 'l2'"),
        (["--structure", "channel", "--saliency", "taylor"], 2, "saliency 'taylor' needs gradients"),
        (["--structure", "channel", "--aggregation", "median"], 2, "unknown aggregation 'median'"),
        (["--structure", "element", "--saliency", "l1"], 2, "saliency goes with the structures channel, neuron, head"),
        (["--structure", "element", "--round-to", "8"], 2, "round_to goes with the structures"),
        (
            ["--structure", "channel", "--exclude", "stem*", "--exclude", "inner*"],
            1,
            "coupled to 'stem.weight', which is",
        ),
        (["--structure", "channel", "--saliency", "batch-norm-scale", "--round-to", "64"], 2, "lower it"),
    ],
)
def test_what_cannot_be_is_one_line(compress: Run, words: list[str], code: int, message: str) -> None:
    residual(Path("m.onnx"))
    before = Path("m.onnx").read_bytes()
    got, out, err = compress("prune", "m.onnx", "--method", "magnitude", "--sparsity", "0.5", *words, "-o", "run")
    assert (got, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert Path("m.onnx").read_bytes() == before
    assert not Path("run/checkpoint.safetensors").exists()


def test_a_model_that_does_not_lower_is_refused_with_the_reason(compress: Run) -> None:
    Path("net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(64, 8), nn.Linear(8, 10)\n\n"
        "    def forward(self, x):\n        x = self.a(x.flatten(1))\n"
        "        return self.b(x if float(x.sum()) > 0 else -x)\n\n\ndef build():\n    return Net()\n"
    )
    words = ["prune", "net.py:build", "--data", "digits", *CHANNEL, "--sparsity", "0.5", "--epochs", "0"]
    code, _, err = compress(*words, "-o", "run")
    assert code == 1
    assert "cannot be traced" in err
    assert err.count("\n") == 1


def test_an_unknown_operator_is_named_and_the_rest_shrinks(compress: Run) -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a.weight", 6, 3, 1, 1)))
    graph.nodes.append(onnx.helper.make_node("Strange", [x], ["s"], "strange", domain="my.domain"))
    x = graph.add("Relu", graph.add("Conv", "s", graph.weight("b.weight", 8, 6, 1, 1)))
    graph.add("Conv", x, graph.weight("c.weight", 5, 8, 1, 1), name="y")
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        graph.nodes,
        "test",
        [value("x", 1, ["batch", 3, 4, 4])],
        [value("y", 1, ["batch", 5, 4, 4])],
        [numpy_helper.from_array(array, name) for name, array in graph.tensors.items()],
        value_info=[value("s", 1, ["batch", 6, 4, 4])],
    )
    domains = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("my.domain", 1)]
    onnx.save(onnx.helper.make_model(made, opset_imports=domains, ir_version=10), "m.onnx")
    code, out, _ = compress("prune", "m.onnx", *CHANNEL, "--sparsity", "0.5", "-o", "run")
    assert code == 0
    assert "'a.weight' stays dense: my.domain.Strange 'strange' reads it and is not followed" in out
    code, out, _ = compress("export", "run", "--to", "onnx-slim", "-o", "slim.onnx")
    assert code == 0
    assert "my.domain.Strange 'strange' was not followed (the operator my.domain.Strange has no rule)" in out
    assert widths(onnx.load("slim.onnx"))["b.weight"] == (4, 6, 1, 1)
    # Without what the graph says of the operator's output, nothing behind it is known.
    del made.value_info[:]
    onnx.save(onnx.helper.make_model(made, opset_imports=domains, ir_version=10), "unsaid.onnx")
    code, _, err = compress("prune", "unsaid.onnx", *CHANNEL, "--sparsity", "0.5", "-o", "unsaid")
    assert code == 1
    assert "'b.weight' stays dense: Conv 'conv3' reads it and is not followed" in err
