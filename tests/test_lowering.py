from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sparsepack.errors import ModelError, OutputExistsError
from sparsepack.models.graph.lowering import to_onnx, write_onnx
from sparsepack.models.source import InputSpec, TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.models.zoo import ZOO

# ResNet-50 is lowered at a smaller image, which changes nothing in its graph but the time this takes.
# Other depths and widths of networks that are here, and the two of a hundred million weights.
ALIKE = {"conv-2", "resnet-32", "resnet-56", "wrn-28-10", "vgg-19", "resnet-18", "vgg-11", "alexnet"}
SMALLER = {"resnet-50": {"input_shape": [3, 64, 64], "classes": 10}}


def run(model: onnx.ModelProto | str, *inputs: torch.Tensor) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model if isinstance(model, str) else model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {spec.name: x.numpy() for spec, x in zip(session.get_inputs(), inputs, strict=True)}
    outputs: list[np.ndarray] = session.run(None, feed)
    return outputs


def set_batch_statistics(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """One pass over data, so that the output depends on the input (an untrained VGG hardly reacts to it)."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        module.train()(*inputs)
    module.eval()


def parity(reference: torch.Tensor, got: np.ndarray) -> float:
    expected = reference.numpy()
    return float(np.abs(got - expected).max() / expected.std(axis=0).mean())


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ALIKE])
def test_zoo_models_lower_with_their_own_names_and_the_same_output(name: str) -> None:
    source = load_source(name, options=SMALLER.get(name))
    assert isinstance(source, TorchSource)
    module = source.build()
    set_batch_statistics(module, source.example_inputs(16, seed=3))
    model = to_onnx(module, source.example_inputs(1), source.record.inputs)

    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not model.functions
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"

    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for parameter_name, parameter in module.named_parameters():
        np.testing.assert_array_equal(stored[parameter_name], to_numpy(parameter))
    layers = [node.op_type for node in model.graph.node]
    assert layers.count("Conv") == sum(isinstance(layer, nn.Conv2d) for layer in module.modules())
    assert layers.count("BatchNormalization") == sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())

    double = copy.deepcopy(module).double()
    for batch in (1, 5):
        inputs = source.example_inputs(batch, seed=1)
        with torch.no_grad():
            reference = module(*inputs)
        got = run(model, *inputs)[0]
        assert got.shape == reference.shape
        if batch > 1:
            # Random weights amplify float32 rounding through fifty layers; torch's own share of it is the measure.
            with torch.no_grad():
                exact = double(*(x.double() if x.is_floating_point() else x for x in inputs))
            assert parity(exact, got) < max(1e-4, 3 * parity(exact, reference.numpy()))


def test_a_zeroed_layer_fails_parity() -> None:
    source = load_source("lenet-s4")
    assert isinstance(source, TorchSource)
    module = source.build().eval()
    model = to_onnx(module, source.example_inputs(2), source.record.inputs)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.weight")
    weight.raw_data = bytes(len(weight.raw_data))
    inputs = source.example_inputs(8, seed=1)
    with torch.no_grad():
        assert parity(module(*inputs), run(model, *inputs)[0]) > 1e-4


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.norm = nn.LayerNorm(6)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return y


def test_tied_weights_are_stored_once_under_their_first_name() -> None:
    module = Tied()
    model = to_onnx(module, (torch.randn(2, 6),), [InputSpec("input", (6,))])
    assert [tensor.name for tensor in model.graph.initializer] == ["first.weight", "norm.weight", "norm.bias"]
    x = torch.randn(4, 6)
    np.testing.assert_allclose(run(model, x)[0], module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x)
        return y


def test_the_fused_attention_kernel_is_not_traced() -> None:
    module = Attention().eval()
    with torch.no_grad():
        without_gradients = to_onnx(module, (torch.randn(2, 3, 8),), [InputSpec("input", (3, 8))])
    model = to_onnx(module, (torch.randn(2, 3, 8),), [InputSpec("input", (3, 8))])
    assert model == without_gradients
    assert {name for name, _ in module.named_parameters()} <= {tensor.name for tensor in model.graph.initializer}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 4)

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.output(image)
        return y, y * scale


def test_several_inputs_and_outputs_have_stable_names() -> None:
    specs = [InputSpec("image", (3,)), InputSpec("scale", (1,))]
    model = to_onnx(Two(), (torch.randn(2, 3), torch.randn(2, 1)), specs)
    assert [value.name for value in model.graph.input] == ["image", "scale"]
    assert [value.name for value in model.graph.output] == ["output_0", "output_1"]
    onnx.checker.check_model(model, full_check=True)


class OneOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(torch.relu(self.output(x)))
        return y


def test_a_layer_called_output_does_not_clash_with_the_output() -> None:
    module = OneOutput()
    model = to_onnx(module, (torch.randn(2, 3),), [InputSpec("input", (3,))])
    onnx.checker.check_model(model, full_check=True)
    x = torch.randn(3, 3)
    np.testing.assert_allclose(run(model, x)[0], module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_module_is_left_as_it_was_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3))
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = to_onnx(module, (torch.randn(2, 3),), [InputSpec("input", (3,))])
    assert [layer.training for layer in module] == [True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert "Dropout" not in {node.op_type for node in model.graph.node}
    assert capfd.readouterr() == ("", "")


class Here(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


ELSEWHERE = """
import sys
from pathlib import Path
import torch
from torch import nn
from sparsepack.models.graph.lowering import to_onnx, write_onnx
from sparsepack.models.source import InputSpec
class Elsewhere(nn.Sequential):
    pass
layers = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
module = Elsewhere(*layers)
values = torch.arange(sum(p.numel() for p in module.parameters()), dtype=torch.float32)
torch.nn.utils.vector_to_parameters(values, module.parameters())
write_onnx(to_onnx(module, (torch.randn(2, 1, 8, 8),), [InputSpec("input", (1, 8, 8))]), Path(sys.argv[1]))
"""


def test_two_folders_and_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    module = Here()
    values = torch.arange(sum(p.numel() for p in module.parameters()), dtype=torch.float32)
    torch.nn.utils.vector_to_parameters(values, module.parameters())
    write_onnx(to_onnx(module, (torch.ones(1, 1, 8, 8),), [InputSpec("input", (1, 8, 8))]), tmp_path / "here.onnx")
    folder = tmp_path / "a folder elsewhere"
    folder.mkdir()
    (folder / "program.py").write_text(ELSEWHERE)
    subprocess.run(
        [sys.executable, "-W", "ignore", "program.py", "there.onnx"],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    content = (folder / "there.onnx").read_bytes()
    assert content == (tmp_path / "here.onnx").read_bytes()
    assert b".py" not in content
    assert b"lsewhere" not in content


class DependsOnValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) + 1


@pytest.mark.parametrize("module", [DependsOnValues(), FixedBatch()], ids=lambda module: type(module).__name__)
def test_what_cannot_be_traced_is_one_clear_line(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="cannot be traced with a dynamic batch axis") as caught:
        to_onnx(module, (torch.randn(2, 3),), [InputSpec("input", (3,))])
    assert "\n" not in str(caught.value)


def test_large_models_keep_their_tensors_beside_the_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 10))
    model = to_onnx(module, (torch.randn(2, 40),), [InputSpec("input", (40,))])
    before = model.SerializeToString()
    assert write_onnx(model, tmp_path / "one.onnx") == [tmp_path / "one.onnx"]
    files = write_onnx(model, tmp_path / "two.onnx", single_file_bytes=4096)
    assert files == [tmp_path / "two.onnx", tmp_path / "two.onnx.data"]
    assert model.SerializeToString() == before
    assert files[0].stat().st_size < 4096
    assert onnx.load(files[0]).graph.node == model.graph.node
    x = torch.randn(3, 40)
    np.testing.assert_array_equal(run(str(tmp_path / "one.onnx"), x)[0], run(str(files[0]), x)[0])
    for path in ("one.onnx", "two.onnx"):
        with pytest.raises(OutputExistsError, match="exists already"):
            write_onnx(model, tmp_path / path)
    (tmp_path / "two.onnx").unlink()
    with pytest.raises(OutputExistsError, match=r"two\.onnx\.data exists already"):
        write_onnx(model, tmp_path / "two.onnx", single_file_bytes=4096)
    write_onnx(model, tmp_path / "two.onnx", single_file_bytes=4096, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.onnx", "two.onnx", "two.onnx.data"]
