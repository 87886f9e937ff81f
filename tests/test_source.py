from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from sparsepack.errors import FileFormatError, ModelError, UnknownNameError, UsageError
from sparsepack.models.data import load_data
from sparsepack.models.source import InputSpec, ModelRecord, OnnxSource, TorchSource, load_source, source_from_record
from sparsepack.models.zoo import ZOO

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU())
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(x))

def build():
    return Net()

def with_examples():
    return Net(), (torch.randn(1, 2, 3),)

def with_one_tensor():
    return Net(), torch.randn(1, 2, 3)

def tokens():
    return nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 2)), (torch.tensor([[0, 6], [3, 2]]),)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 4)
    def forward(self, image, scale):
        return self.fc(image) * scale

def two_inputs():
    return Two(), (torch.randn(2, 2), torch.randn(2, 1))

def raises():
    number = 1
    raise ValueError("two\\nlines")

def raises_inside_torch():
    return nn.Linear(-1, 3)

def leaves():
    raise SystemExit("usage: nothing")

def returns_text():
    return "a model"

def examples_that_are_none():
    return Net(), "text"

def lazy():
    return nn.LazyLinear(3), (torch.randn(1, 3),)

not_callable = 3
built_already = nn.Linear(2, 2)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6, bias=False)
        self.b = nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight
    def forward(self, x):
        return self.b(self.a(x.flatten(1)))

def half():
    return Net().half()
"""
INPUT = [InputSpec("input", (2, 3))]


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py"


def torch_source(text: str, **options: Any) -> TorchSource:
    source = load_source(text, allow_import=True, **options)
    assert isinstance(source, TorchSource)
    return source


def refused(text: str, kind: type[Exception] = ModelError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_source(text, allow_import=True, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_zoo_model_is_built_for_the_data() -> None:
    data = load_data("digits")
    assert data is not None
    source = torch_source("lenet-300-100", options=data.model_options)
    assert source.record == ModelRecord(
        "zoo",
        "lenet-300-100",
        [InputSpec("input", (1, 8, 8))],
        {"input_shape": [1, 8, 8], "classes": 10},
        ["fc1 takes 64 features instead of 784."],
    )
    assert not source.brings_weights
    data.fitted(source.record)
    assert source.build()(next(data.batches("train", 4))[0]).shape == (4, 10)
    # The same from the data's inputs alone, and from the record.
    assert torch_source("lenet-300-100", inputs=[data.input_spec]).record == source.record
    assert source_from_record(source.record).record == source.record


LARGE = {"resnet-50", "resnet-18", "wrn-28-10", "vgg-19", "vgg-11", "alexnet"}


@pytest.mark.parametrize("name", [name for name in ZOO if name not in LARGE])
def test_building_twice_gives_equal_modules_that_share_nothing(name: str) -> None:
    source = torch_source(name)
    torch.manual_seed(1)
    first = source.build()
    torch.manual_seed(2)
    second = source.build()
    assert first.training
    assert second.training
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    with torch.no_grad():
        assert first.eval()(*source.example_inputs(2)).shape == (2, source.record.options["classes"])


def test_the_users_random_numbers_are_left_alone(net: str) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    expected = torch.rand(3), np.random.rand(3), random.random()  # noqa: S311
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    torch_source("lenet-s4").build()
    torch_source(f"{net}:build", inputs=INPUT).build()
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]  # noqa: S311


def test_token_data_is_refused_by_an_image_model_and_taken_by_a_text_model() -> None:
    tokens = [InputSpec("input", (9,), "int64")]
    assert "'lenet-s4' takes inputs of float32; the data has int64" in refused("lenet-s4", inputs=tokens)
    source = torch_source("text-encoder", options={"vocabulary": 50, "classes": 3}, inputs=tokens)
    assert source.record.inputs == tokens
    drawn = source.example_inputs(40)[0]
    assert (drawn.shape, drawn.dtype) == ((40, 9), torch.int64)
    assert (int(drawn.min()), int(drawn.max())) == (0, 49)
    with torch.no_grad():
        assert source.build().eval()(drawn).shape == (40, 3)


def test_example_inputs_repeat_with_the_seed_and_look_normal() -> None:
    source = torch_source("lenet-300-100")
    drawn = source.example_inputs(64, seed=3)[0]
    assert torch.equal(drawn, source.example_inputs(64, seed=3)[0])
    assert not torch.equal(drawn, source.example_inputs(64, seed=4)[0])
    assert not torch.equal(drawn[0], drawn[1])
    # 50,176 draws: mean and variance within five standard errors.
    assert abs(float(drawn.mean())) < 5 / 224
    assert abs(float(drawn.var()) - 1) < 5 * 2**0.5 / 224


@pytest.mark.parametrize("name", ["build", "with_examples", "with_one_tensor"])
def test_a_factory_gives_a_module_with_weights_of_its_own(name: str, net: str) -> None:
    source = torch_source(f"{net}:{name}", inputs=INPUT if name == "build" else None)
    assert source.brings_weights
    assert source.record == ModelRecord("factory", f"{net}:{name}", INPUT, {"classes": 3})
    first, second = source.build(), source.build()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    assert first(*source.example_inputs(4)).shape == (4, 3)


def test_inputs_come_from_the_data_before_the_examples(net: str) -> None:
    assert torch_source(f"{net}:with_examples", options={"input_shape": [6]}).record.inputs[0].shape == (6,)
    assert torch_source(f"{net}:with_examples", inputs=[InputSpec("input", (1, 6))]).record.inputs[0].shape == (1, 6)
    assert "nothing says what" in refused(f"{net}:build")


def test_whole_numbers_are_drawn_in_the_range_of_the_examples(net: str) -> None:
    source = torch_source(f"{net}:tokens")
    assert source.record.inputs == [InputSpec("input", (2,), "int64")]
    drawn = source.example_inputs(60)[0]
    assert (int(drawn.min()), int(drawn.max())) == (0, 6)
    # Without examples only 0 and 1 are certain to be known to the network.
    blind = torch_source(f"{net}:tokens", inputs=[InputSpec("input", (2,), "int64")])
    assert blind.record.inputs == source.record.inputs


def test_several_inputs_are_named_by_the_parameters_of_forward(net: str) -> None:
    source = torch_source(f"{net}:two_inputs")
    assert source.record.inputs == [InputSpec("image", (2,)), InputSpec("scale", (1,))]
    assert source.build()(*source.example_inputs(3)).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("biuld", "has no 'biuld'. Did you mean 'build'? It defines:"),
        ("not_callable", "is a int, not a function or class that can be called"),
        ("built_already", "is a module already; name a function without arguments that returns it, or the class"),
        ("returns_text", "returned a str; expected an nn.Module"),
        ("examples_that_are_none", "must be a tuple of tensors with a batch axis in front"),
        ("raises", "raised ValueError: two (net.py, line 38)."),
        ("raises_inside_torch", "raised RuntimeError: Trying to create tensor with negative dimension -1"),
        ("leaves", "raised SystemExit: usage: nothing (net.py, line 44)."),
        ("lazy", "returned a module with lazy layers"),
    ],
)
def test_a_factory_that_fails_says_so_in_one_line(name: str, message: str, net: str) -> None:
    assert message in refused(f"{net}:{name}")


def test_the_line_in_the_users_file_is_named_even_when_torch_raised(net: str) -> None:
    assert refused(f"{net}:raises_inside_torch").endswith("(net.py, line 41).")


def test_inputs_that_the_module_does_not_take_are_found_at_once(net: str) -> None:
    message = refused(f"{net}:build", inputs=[InputSpec("input", (1, 8, 8))])
    assert "given inputs of float32 (1, 8, 8), raised RuntimeError: mat1 and mat2 shapes cannot be" in message
    assert message.endswith("(net.py, line 12).")


def test_files_and_modules_that_are_not_there_are_named(
    tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nowhere.py does not exist" in refused("nowhere.py:build")
    assert "there is no module 'nowhere'" in refused("nowhere.at_all:build")
    assert "name the function in it that returns the model" in refused(net, UsageError)
    (tmp_path / "broken.py").write_text("x = 1\ndef build(:\n")
    assert "raised SyntaxError: invalid syntax" in refused(f"{tmp_path}/broken.py:build")
    assert refused(f"{tmp_path}/broken.py:build").endswith("(broken.py, line 2).")
    (tmp_path / "needs.py").write_text("\nimport not_installed_anywhere\n")
    assert "raised ModuleNotFoundError: No module named 'not_installed_anywhere' (needs.py, line 2)" in refused(
        f"{tmp_path}/needs.py:build"
    )
    monkeypatch.chdir(tmp_path)
    assert "raised ModuleNotFoundError: No module named 'not_installed_anywhere'" in refused("needs:build")


def test_a_factory_runs_only_when_the_user_names_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "net.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef build(): pass\n")
    text = f"{tmp_path}/net.py:build"
    with pytest.raises(UsageError, match=r"run only when you name it; give --model .*net\.py:build"):
        load_source(text)
    with pytest.raises(UsageError, match=r"give --model .*net\.py:build"):
        source_from_record(ModelRecord("factory", text, INPUT))
    assert not marker.exists()


def test_a_record_finds_its_factory_again(net: str) -> None:
    record = torch_source(f"{net}:build", inputs=INPUT).record
    again = source_from_record(record, f"{net}:build")
    assert again.record == record
    with pytest.raises(UsageError, match=r"made from the factory model '.*net\.py:build', not from 'lenet-s4'"):
        source_from_record(record, "lenet-s4")
    zoo = torch_source("lenet-s4").record
    with pytest.raises(UsageError, match="made from the zoo model 'lenet-s4', not from 'lenet-300-100'"):
        source_from_record(zoo, "lenet-300-100")


OWN_FOLDER = {
    "net.py": "from models.body import make\nfrom exporters import name\ndef build():\n    return make(name)\n",
    "data.py": (
        "import numpy as np\nfrom models.body import WIDTH\n"
        "x, y = np.zeros((4, WIDTH), np.float32), np.arange(4) % 2\ndef load():\n"
        "    from models.late import label\n    assert label == WIDTH\n    return x, y, x, y\n"
    ),
    "models/__init__.py": "",
    "models/body.py": (
        "from torch import nn\nWIDTH = {width}\ndef make(name):\n"
        "    from models.late import label\n    assert (name, label) == ('{width}', WIDTH)\n"
        "    return nn.Linear(WIDTH, 2)\n"
    ),
    "models/late.py": "label = {width}\n",
    "exporters/__init__.py": "name = '{width}'\n",
    "cli.py": "raise RuntimeError('not this one')\n",
    "sparsepack.py": "raise RuntimeError('not this one')\n",
}


def write_folder(folder: Path, width: int) -> None:
    for name, content in OWN_FOLDER.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content.replace("{width}", str(width)))


def test_a_folder_with_rooms_of_the_same_names_imports_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, paths = set(sys.modules), list(sys.path)
    sources = {}
    for width in (3, 4):
        folder = tmp_path / f"project {width}"
        write_folder(folder, width)
        data = load_data(f"{folder}/data.py:load")
        assert data is not None
        assert data.input_spec.shape == (width,)
        sources[width] = torch_source(f"{folder}/net.py:build", inputs=[data.input_spec])
    # Built again in the other order: each still finds its own neighbours, also those it imports late.
    for width, source in reversed(sources.items()):
        source.build()
        assert source.build().weight.shape == (2, width)
    monkeypatch.chdir(tmp_path / "project 3")
    assert torch_source("net:build", inputs=[InputSpec("input", (3,))]).build().weight.shape == (2, 3)
    left = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not left & {"models", "exporters", "net", "data", "cli"}
    assert sys.path == paths
    assert sys.modules["sparsepack"].__file__ != str(tmp_path / "project 3" / "sparsepack.py")


def test_a_module_in_the_current_folder_is_found_by_a_fresh_process(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    (tmp_path / "sparsepack.py").unlink()
    program = (
        "from sparsepack.models.source import InputSpec, load_source\n"
        "s = load_source('net:build', inputs=[InputSpec('input', (3,))], allow_import=True)\n"
        "print(s.record.options, 'models' in __import__('sys').modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{'classes': 2} False\n"
    assert done.stderr == ""


def state(width: int = 5, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    full: dict[str, torch.Tensor | None] = {
        "body.1.weight": torch.randn(width, 6),
        "body.1.bias": torch.randn(width),
        "head.weight": torch.randn(3, width),
        "head.bias": torch.randn(3),
    }
    full.update({key.replace("__", "."): tensor for key, tensor in changes.items()})
    return {name: tensor for name, tensor in full.items() if tensor is not None}


def test_weights_are_put_into_every_module_that_is_built(net: str, tmp_path: Path) -> None:
    given = state()
    save_file(given, tmp_path / "w.safetensors")
    source = torch_source(f"{net}:build", weights=tmp_path / "w.safetensors", inputs=INPUT)
    for module in (source.build(), source.build()):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, given[name])
    # A narrower type loses nothing.
    save_file({name: tensor.bfloat16() for name, tensor in given.items()}, tmp_path / "w.safetensors")
    module = torch_source(f"{net}:build", weights=tmp_path / "w.safetensors", inputs=INPUT).build()
    assert torch.equal(module.get_parameter("head.bias"), given["head.bias"].bfloat16().float())


def test_one_name_of_a_tied_weight_is_enough(net: str, tmp_path: Path) -> None:
    save_file({"b.weight": torch.eye(6)}, tmp_path / "w.safetensors")
    module = torch_source(f"{net}:Tied", weights=tmp_path / "w.safetensors", inputs=INPUT).build()
    assert torch.equal(module.get_parameter("a.weight"), torch.eye(6))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (state(head__bias=None), "the model has 'head.bias', which the file lacks."),
        (state(head__scale=torch.ones(1)), "the file has 'head.scale', which the model lacks."),
        (
            state(head__bias=None, heads__bias=torch.randn(3)),
            "the model has 'head.bias' (Did you mean 'heads.bias'?), which the file lacks; the file has 'heads.bias' "
            "(Did you mean 'head.bias'?), which the model lacks.",
        ),
        ({f"layer.{i}": torch.ones(1) for i in range(9)}, "'layer.4' and 4 more, which the model lacks."),
        (state(7), "'body.1.bias' is (5,) in the model and (7,) in the file."),
        (state(head__bias=torch.randn(3).double()), "'head.bias' is torch.float32 in the model and torch.float64 in"),
    ],
)
def test_weights_that_do_not_fit_are_listed(
    given: dict[str, torch.Tensor], message: str, net: str, tmp_path: Path
) -> None:
    save_file(given, tmp_path / "w.safetensors")
    assert message in refused(f"{net}:build", weights=tmp_path / "w.safetensors", inputs=INPUT)


def test_weights_files_of_other_kinds_are_refused(net: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"inputs": INPUT}
    message = refused(f"{net}:build", UsageError, weights=tmp_path / "w.pth", **options)
    assert "is a pickle, which can run any code" in message
    assert "safetensors.torch.save_file(torch.load('w.pth', weights_only=True), 'w.safetensors')" in message
    assert "is no safetensors file" in refused(f"{net}:build", UsageError, weights=tmp_path / "w.h5", **options)
    assert "does not exist" in refused(f"{net}:build", weights=tmp_path / "w.safetensors", **options)
    assert "goes with a factory" in refused("lenet-s4", UsageError, weights=tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 50)
    assert "is truncated" in refused(f"{net}:build", FileFormatError, weights=tmp_path / "w.safetensors", **options)
    save_file(state(head__bias=torch.full((3,), float("nan"))), tmp_path / "w.safetensors")
    message = refused(f"{net}:build", FileFormatError, weights=tmp_path / "w.safetensors", **options)
    assert "'head.bias' holds values that are not finite" in message


def test_texts_that_name_no_model_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'lenet-300'\. Did you mean 'lenet-300-100'\?") as caught:
        load_source("lenet-300")
    assert "Choose from: lenet-300-100, " in str(caught.value)
    kinds = "or give a zoo name, path/to/file.py:factory, package.module:factory, an ONNX file (.onnx) or a TorchScript"
    assert kinds in str(caught.value)
    for text in ("net.pb", "net.tflite", "net.h5"):
        assert f"a model cannot be read from '{text}'; give a zoo name" in refused(text, UsageError)
    assert "holds weights, no model" in refused("w.safetensors", UsageError)
    assert "none.onnx does not exist" in refused(f"{tmp_path}/none.onnx")


def onnx_file(path: Path, weight: np.ndarray) -> Path:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, "length"]),
        helper.make_tensor_value_info("ids", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("names", TensorProto.STRING, ["batch"]),
        helper.make_tensor_value_info("halves", TensorProto.BFLOAT16, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])]
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, ir_version=10), path)
    return path


def test_an_onnx_source_and_its_record(tmp_path: Path) -> None:
    weight = np.ones((4, 5), np.float32)
    path = onnx_file(tmp_path / "a.onnx", weight)
    source = load_source(str(path))
    assert isinstance(source, OnnxSource)
    record = source.record
    assert (record.kind, record.text, record.options) == ("onnx", str(path), {"classes": 5})
    assert record.inputs == [
        InputSpec("x", (4, -1), "float32"),
        InputSpec("ids", (), "int32"),
        InputSpec("names", (), "string"),
        InputSpec("halves", (), "bfloat16"),
    ]
    assert [p.name for p in source.prunable()] == ["w"]
    np.testing.assert_array_equal(source.tensors()["w"], weight)
    assert source_from_record(record).record == record

    path.rename(tmp_path / "b.onnx")
    with pytest.raises(ModelError, match=r"is not there any more; give its new place with --model PATH"):
        source_from_record(record)
    assert source_from_record(record, str(tmp_path / "b.onnx")).record.sha256 == record.sha256
    onnx_file(path, 2 * weight)
    with pytest.raises(ModelError, match="is not the ONNX file that was pruned"):
        source_from_record(record)


def test_the_records_need_no_framework() -> None:
    program = "import sys, sparsepack.models.source; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
