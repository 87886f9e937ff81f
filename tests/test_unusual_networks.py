"""Networks of a user's own that are unlike those of the zoo: every command either serves them or says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from sparsepack.cli import run
from sparsepack.errors import UnsupportedError
from sparsepack.exporters.torchscript import quiet_torchscript
from sparsepack.models.chain import chain_of
from sparsepack.models.checked_data import make_dataset
from sparsepack.models.class_scores import class_scores
from sparsepack.runtimes.measure.running import run_all
from sparsepack.runtimes.torch_dense import TorchSession

NETWORKS = '''
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(1, 8, 3)
        self.table = nn.Linear(5, 8)
        self.out = nn.Linear(16, 3)

    def forward(self, image, table):
        return self.out(torch.cat([F.relu(self.image(image)).mean((2, 3)), F.relu(self.table(table))], 1))


def two_inputs():
    return TwoInputs(), (torch.randn(2, 1, 6, 6), torch.randn(2, 5))


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.out = nn.Linear(16, 3)
        self.kind = kind

    def forward(self, x):
        scores = self.out(F.relu(self.body(x)))
        given = {"dict": {"scores": scores}, "tuple": (scores, x), "sum": scores.sum(), "map": scores[:, :, None]}
        return given[self.kind]


def gives_dict():
    return Several("dict"), (torch.randn(2, 8),)


def gives_tuple():
    return Several("tuple"), (torch.randn(2, 8),)


def gives_sum():
    return Several("sum"), (torch.randn(2, 8),)


def gives_map():
    return Several("map"), (torch.randn(2, 8),)


def untrained():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).requires_grad_(False)


def normalised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = nn.utils.weight_norm(nn.Linear(8, 16))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(16, 3))


class Tables(nn.Module):
    """Buffers and parameters of many types, some of which a graph takes into its constants."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.out = nn.Linear(16, 3)
        self.unused = nn.Linear(5, 5)
        self.steps = nn.Parameter(torch.tensor([3]), requires_grad=False)
        self.register_buffer("order", torch.tensor([1, 0, 2, 3, 4, 5, 7, 6]))
        self.register_buffer("flags", torch.tensor([True, False] * 4))
        self.register_buffer("shift", torch.arange(6.0).sin())

    def forward(self, x):
        x = x[:, self.order] * self.flags.float()
        return self.out(F.relu(self.body(x))) + self.shift[:3] + self.steps.float()


def tables():
    return Tables(), (torch.randn(2, 8),)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.body = nn.Linear(8, 8)
        self.out = nn.Linear(8, 16, bias=False)
        self.out.weight = self.table.weight

    def forward(self, words):
        return self.out(F.relu(self.body(self.table(words))).mean(1))


def tied():
    return Tied(), (torch.randint(0, 16, (2, 5)),)


def words():
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 16, (64, 5))
    inputs[0, 0] = 15
    return inputs[:48], inputs[:48, 0], inputs[48:], inputs[48:, 0]


def norms_of_images():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )


def images():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(64, 1, 8, 8)).astype(np.float32)
    labels = draw.integers(0, 3, 64)
    labels[:3] = [0, 1, 2]
    return inputs[:48], labels[:48], inputs[48:], labels[48:]


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 3)
        self.second = nn.Linear(8, 3)

    def forward(self, x):
        return self.first(x) if x.sum() > 0 else self.second(x)


def deciding():
    return Deciding(), torch.randn(2, 8)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cells = nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        if x.shape[1] != 5:
            raise ValueError(x.shape)
        return self.cells(self.attention(x, x, x)[0])[0][:, -1]


def attending():
    return Attending(), torch.randn(2, 5, 8)


def waves():
    module = nn.Sequential(nn.Linear(8, 3))
    module.register_buffer("turns", torch.ones(2, dtype=torch.complex64))
    return module, torch.randn(2, 8)


class Objects(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


def objects():
    return Objects(8, 3), torch.randn(2, 8)


def parametrised():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))), torch.randn(2, 8)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"conv/1": nn.Linear(8, 8), "\u00fc": nn.Linear(8, 3)})

    def forward(self, x):
        for name in self.parts:
            x = self.parts[name](x)
        return x


def named():
    return Named(), torch.randn(2, 8)


def data():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 64)
    inputs = (draw.normal(size=(3, 8))[labels] + 0.5 * draw.normal(size=(64, 8))).astype(np.float32)
    return inputs[:48], labels[:48], inputs[48:], labels[48:]
'''

SERIES = """
import numpy as np
import torch
from torch import nn


def convolutions():
    return bare(), torch.randn(2, 4, 16)


def bare():
    return nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 3))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(6, 16)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.block(self.lift(x)).mean(1))


def attention():
    return Attention(), torch.randn(2, 5, 6)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.cells(x)[0][:, -1])


def recurrent():
    return Recurrent(), torch.randn(2, 5, 6)


def volumes():
    layers = nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers), torch.randn(2, 1, 6, 6, 6)


def _data(*shape):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 64)
    labels[:3] = [0, 1, 2]
    inputs = (draw.normal(size=(3, *shape))[labels] + 0.5 * draw.normal(size=(64, *shape))).astype(np.float32)
    np.savez("test.npz", inputs[48:], labels[48:])
    return inputs[:48], labels[:48], inputs[48:], labels[48:]


def convolutions_data():
    return _data(4, 16)


def attention_data():
    return _data(5, 6)


recurrent_data = attention_data


def volumes_data():
    return _data(1, 6, 6, 6)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prune(factory: str, *more: str) -> int:
    return run(["prune", f"nets.py:{factory}", "--sparsity", "0.5", "-o", "run", *more])


def test_an_exported_program_of_two_inputs_is_loaded_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune("two_inputs", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:two_inputs"]
    assert run(["export", "run", "--to", "torch-export", "-o", "net.pt2", *typed]) == 0
    assert run(["verify", "net.pt2", "--against", "run", *typed]) == 0
    # PyTorch itself still refuses inputs of unequal batches.
    program = torch.export.load("net.pt2").module()
    with pytest.raises(AssertionError, match=r"size\(\)\[0\]"):
        program(torch.zeros(2, 1, 6, 6), torch.zeros(3, 5))


@pytest.mark.parametrize("kind", ["dict", "tuple", "sum", "map"])
@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "diagonal-fisher", "mlprune"])
def test_training_without_class_scores_is_refused_in_a_line(
    here: Path, kind: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(f"gives_{kind}", "--method", method, "--data", "nets.py:data", "--epochs", "1") == 1
    shown = capsys.readouterr().err
    assert "the model returned" in shown and "float [examples, classes]" in shown


def test_calibration_needs_no_class_scores(here: Path) -> None:
    assert prune("gives_dict", "--method", "wanda", "--data", "nets.py:data", "--epochs", "0") == 0


def test_class_scores_are_float_and_of_two_axes() -> None:
    scores = torch.zeros(4, 3)
    assert class_scores(scores) is scores
    for other in (scores[0], scores.long(), (scores,), {"a": scores}, None):
        with pytest.raises(UnsupportedError, match="need class scores"):
            class_scores(other)


@pytest.mark.parametrize("method", ["magnitude", "rigl", "snip", "grasp", "diagonal-fisher", "obd"])
def test_a_network_that_trains_nothing_is_refused_in_a_line(
    here: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("untrained", "--method", method, "--data", "nets.py:data", "--epochs", "1") == 1
    assert "requires_grad" in capsys.readouterr().err


def test_a_network_that_trains_nothing_is_pruned_without_training(here: Path) -> None:
    assert prune("untrained", "--method", "magnitude", "--data", "nets.py:data", "--epochs", "0") == 0


def test_a_weight_that_hooks_compute_is_no_step_of_a_chain(here: Path) -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        first = torch.nn.utils.weight_norm(torch.nn.Linear(8, 16))
    module = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(16, 3))
    assert chain_of(module, (torch.zeros(2, 8),)) is None
    assert prune("normalised", "--method", "magnitude", "--data", "nets.py:data", "--epochs", "1") == 0


def test_a_network_without_a_row_an_example_is_not_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = TorchSession(lambda x: x.sum(), "cpu")
    with pytest.raises(UnsupportedError, match=r"shape \(\) for 5 examples"):
        run_all(session, [np.zeros((5, 2), np.float32)])
    assert prune("gives_sum", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:gives_sum"]
    assert run(["export", "run", "--to", "torchscript", "-o", "net.pt", *typed]) == 0
    assert run(["verify", "net.pt", "--against", "run", *typed]) == 1
    assert "expected one row an example" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["onnx", "onnx-unpack", "onnx-sparse"])
def test_a_graph_need_not_list_what_it_takes_into_its_constants(
    here: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("tables", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:tables"]
    assert run(["export", "run", "--to", to, "-o", "net.onnx", *typed]) == 0
    assert run(["verify", "net.onnx", *typed]) == 0
    assert "parity" in capsys.readouterr().out
    assert run(["verify", "net.onnx", "--against", "run", *typed]) == 0


def test_channels_are_found_beside_an_input_that_is_handed_through(here: Path) -> None:
    assert prune("gives_tuple", "--method", "magnitude", "--structure", "channel", "--data", "none") == 0


@pytest.mark.parametrize(("factory", "examples"), [("tied", "words"), ("norms_of_images", "images")])
def test_eight_bits_of_tied_tables_and_of_vectors_run(
    here: Path, factory: str, examples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", f"nets.py:{examples}"]
    assert prune(factory, "--method", "magnitude", "--epochs", "1", *given) == 0
    typed = ["--model", f"nets.py:{factory}"]
    assert run(["export", "run", "--to", "onnx-int8", "-o", "net.onnx", *typed, *given]) == 0
    assert "WARNING" not in capsys.readouterr().err
    assert run(["verify", "net.onnx", "--against", "run", *typed]) == 0
    assert "ok  parity" in capsys.readouterr().out
    # What the file says it decodes to is what its graph computes with.
    outputs = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).get_outputs()
    assert [output.name for output in outputs] == ["output"]


@pytest.mark.parametrize("factory", ["convolutions", "attention", "recurrent", "volumes"])
def test_series_and_volumes_are_trained_and_exported(here: Path, factory: str) -> None:
    (here / "series.py").write_text(SERIES)
    given, typed = ["--data", f"series.py:{factory}_data"], ["--model", f"series.py:{factory}"]
    short = ["--method", "magnitude", "--sparsity", "0.5", "--epochs", "1"]
    assert run(["prune", f"series.py:{factory}", *short, *given, "-o", "run"]) == 0
    assert run(["export", "run", "--to", "onnx", "-o", "net.onnx", *typed]) == 0
    assert run(["export", "run", "--to", "onnx-int8", "-o", "int8.onnx", *typed, *given]) == 0
    assert run(["verify", "net.onnx", "--against", "run", *typed]) == 0


def test_accuracy_on_series_is_that_of_the_graph(here: Path) -> None:
    (here / "series.py").write_text(SERIES)
    given, typed = ["--data", "series.py:convolutions_data"], ["--model", "series.py:convolutions"]
    short = ["--method", "magnitude", "--sparsity", "0.5", "--epochs", "1"]
    assert run(["prune", "series.py:convolutions", *short, *given, "-o", "run"]) == 0
    assert run(["export", "run", "--to", "onnx", "-o", "net.onnx", *typed]) == 0
    only = ["--runtime", "onnxruntime-cpu", "--time-budget", "0.05", "--json", "record.json"]
    assert run(["measure", "net.onnx", *typed, *given, *only]) == 0
    record = json.loads((here / "record.json").read_text())
    inputs, labels = np.load(here / "test.npz").values()
    outputs = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).run(None, {"input": inputs})
    expected = float(np.mean(outputs[0].argmax(axis=1) == labels))
    assert record["artifacts"][0]["accuracy"]["value"] == pytest.approx(expected)


def test_series_for_a_network_without_examples(here: Path) -> None:
    (here / "series.py").write_text(SERIES)
    short = ["--method", "magnitude", "--sparsity", "0.5", "--epochs", "1"]
    assert run(["prune", "series.py:bare", *short, "--data", "series.py:convolutions_data", "-o", "run"]) == 0


def test_images_without_channels_are_images_for_networks_of_images(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(12, 4, 16)).astype(np.float32), np.arange(12) % 3
    data = make_dataset("mine", images, labels, images, labels)
    assert data.input_spec.shape == (1, 4, 16) and data.shaped((1, 4, 16)) is data and data.shaped((4, 15)) is data
    series = data.shaped((-1, 16))
    assert series.input_spec.shape == (4, 16) and np.array_equal(series.train_inputs, images)
    assert torch.equal(series.test()[0], torch.from_numpy(images))


def test_what_no_file_of_tensors_stores_is_refused_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune("waves", "--method", "magnitude", "--data", "none") == 1
    assert "'turns' in the state of nets.py:waves is complex64" in capsys.readouterr().err
    assert prune("objects", "--method", "magnitude", "--data", "none") == 1
    assert "'_extra_state' in the state of nets.py:objects is dict" in capsys.readouterr().err


@pytest.mark.parametrize("structure", ["element", "channel"])
def test_weights_that_parametrisations_compute_are_said_not_to_be_pruned(
    here: Path, structure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--method", "magnitude", "--structure", structure, "--data", "none"]
    assert prune("parametrised", *typed) == 1
    assert "take the parametrisation off first" in capsys.readouterr().err


def test_a_program_returns_a_dict_as_its_network_does(here: Path) -> None:
    assert prune("gives_dict", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:gives_dict"]
    assert run(["export", "run", "--to", "torchscript", "-o", "net.pt", *typed]) == 0
    assert run(["verify", "net.pt", "--against", "run", *typed]) == 0
    with quiet_torchscript():
        assert list(torch.jit.load("net.pt")(torch.zeros(2, 8))) == ["scores"]  # type: ignore[no-untyped-call]


def test_names_that_a_program_cannot_hold_are_refused_and_others_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("named", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:named"]
    assert run(["export", "run", "--to", "torch-export", "-o", "net.pt2", *typed]) == 0
    assert run(["verify", "net.pt2", "--against", "run", *typed]) == 0
    assert run(["export", "run", "--to", "torchscript", "-o", "net.pt", *typed]) == 1
    assert "name its layer in ASCII" in capsys.readouterr().err


def test_a_trace_that_keeps_one_decision_says_so(here: Path) -> None:
    assert prune("deciding", "--method", "magnitude", "--data", "none") == 0
    typed = ["--model", "nets.py:deciding"]
    with pytest.warns(UserWarning, match=r"decides by values of its tensors \(nets.py, line \d+\)"):
        assert run(["export", "run", "--to", "torchscript", "-o", "net.pt", *typed]) == 0
    # A decision by sizes is none by values: that would warn, and warnings are errors here.
    assert prune("attending", "--method", "magnitude", "--data", "none", "--force") == 0
    assert run(["export", "run", "--to", "torchscript", "-o", "other.pt", "--model", "nets.py:attending"]) == 0
