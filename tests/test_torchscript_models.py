"""TorchScript files as models: converted without changing what they compute, pruned, trained, exported, refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.errors import ModelError, UsageError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.torchscript import quiet_torchscript
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import InputSpec, TorchSource, load_source, source_from_record
from sparsepack.models.torchscript.network import ScriptNetwork
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.parity import BOUND, compare
from sparsepack.runtimes.torch_dense import dense_session

IMAGE = [InputSpec("input", (1, 8, 8))]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.norm(self.conv(x))
        return torch.relu(added)


class Net(nn.Module):
    """Convolutions, a loop over blocks, BatchNorm, dropout, a reshape by a size that was read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.stem(x)))
        x = x.view(x.size(0), x.size(1) * 16)
        scores: Tensor = self.out(self.drop(x))
        return scores


class Branches(nn.Module):
    """Control flow that only scripting keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 3)
        self.rounds = 3

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for i in range(self.rounds):
            total = total + torch.relu(self.first(x)) * i
        if x.dim() > 5:
            total = total * 0.0
        elif total.size(1) == 6:
            total = total + 1.0
        scores: Tensor = self.second(total)
        return scores


def prepared(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]  # it has statistics
            part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return module


def saved(module: nn.Module, path: Path, how: str, example: Tensor) -> Path:
    """Write a module as TorchScript: scripted, or traced in either mode."""
    with quiet_torchscript(), warnings.catch_warnings():
        # Advice on single lines of the traced code.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # untyped in torch
        module = copy.deepcopy(module).train(how == "traced-training")
        if how == "scripted":
            script = torch.jit.script(module)
        else:
            # Untyped in torch.
            script = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(script, path)
    return path


def source_of(path: Path, inputs: list[InputSpec] | None = None) -> TorchSource:
    source = load_source(str(path), inputs=inputs)
    assert isinstance(source, TorchSource)
    return source


@pytest.mark.parametrize("how", ["scripted", "traced-evaluation", "traced-training"])
def test_the_converted_module_is_the_original(how: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = prepared(Net())
    source = source_of(saved(original, tmp_path / "net.pt", how, torch.randn(2, 1, 8, 8)), IMAGE)
    module = source.build()
    assert list(module.state_dict()) == list(original.state_dict())
    layers = [(name, type(part)) for name, part in original.named_modules() if next(part.children(), None) is None]
    found = dict(module.named_modules())
    for name, kind in layers:
        if kind is not nn.Dropout:
            assert type(found[name]) is kind, name
    assert [t.name for t in prunable_tensors(module)] == [t.name for t in prunable_tensors(original)]
    # Tracing in training mode updates the statistics of what is traced.
    original.load_state_dict(module.state_dict())
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(module.eval()(x), original.eval()(x))
    # Training: the same statistics, and gradients everywhere.
    for network in (module.train(), original.train()):
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part(torch.ones(3, 8, 2, 2))
    torch.testing.assert_close(module.state_dict(), original.state_dict())
    module(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    baked = {"scripted": None, "traced-evaluation": "evaluation mode", "traced-training": "training mode"}[how]
    assert len(source.record.adaptations) == (baked is not None)
    assert baked is None or baked in source.record.adaptations[0]


def test_control_flow_of_a_scripted_file_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(2)
    original = Branches()
    source = source_of(saved(original, tmp_path / "net.ts", "scripted", torch.zeros(1, 6)), [InputSpec("input", (6,))])
    x = torch.randn(4, 6)
    torch.testing.assert_close(source.build().eval()(x), original(x))


class Words(nn.Module):
    """An embedding and recurrent layers, whose first state is as large as the batch."""

    def __init__(self, cells: type[nn.Module]) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.cells = cells(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.out(self.cells(self.table(words))[0][:, -1])
        return scores


class Attention(nn.Module):
    """Attention, whose traces divide and convert sizes, with a token of its own in front of every sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        scores: Tensor = self.out((x + self.attention(x, x, x, need_weights=False)[0])[:, 0])
        return scores


class Upwards(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(torch.relu(self.down(x)))
        return x.mean((2, 3))


@pytest.mark.parametrize("how", ["scripted", "traced-evaluation"])
@pytest.mark.parametrize("kind", ["gru", "lstm", "attention", "upwards"])
def test_recurrent_attending_and_transposed_layers_are_exported(kind: str, how: str, tmp_path: Path) -> None:
    if (kind, how) == ("attention", "scripted"):
        pytest.skip("a scripted MultiheadAttention keeps PyTorch's fused kernel, which no other format has")
    torch.manual_seed(5)
    networks = {
        "gru": lambda: Words(nn.GRU),
        "lstm": lambda: Words(nn.LSTM),
        "attention": Attention,
        "upwards": Upwards,
    }
    specs = {"attention": InputSpec("input", (5, 6)), "upwards": InputSpec("input", (1, 8, 8))}
    spec = specs.get(kind, InputSpec("input", (7,), "int64"))
    original = networks[kind]().eval()
    example = torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype))
    path = saved(original, tmp_path / "net.pt", how, example)
    source = source_of(path, [spec])
    inputs = source.example_inputs(16)[0]
    torch.testing.assert_close(source.build().eval()(inputs), original(inputs))
    # What is trained is what computes.
    module = source.build()
    module(inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    checkpoint = prune(single_run(None, str(path), method="magnitude", sparsity=0.5), tmp_path / "run", source=source)
    expected = dense_session(source, checkpoint.dense_state(), threads=1).run(inputs.numpy())
    for format, runtime in (("onnx", "onnxruntime-cpu"), ("torchscript", "torchscript-cpu")):
        artifact = export(checkpoint, format, tmp_path / format, source=source)
        found = compare(expected, RUNTIMES[runtime].load(artifact, threads=1).run(inputs.numpy()))
        assert found.error is not None and found.error <= BOUND


def test_a_network_that_begins_with_a_linear_layer_says_its_input(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))
    source = source_of(saved(module, tmp_path / "net.pt", "traced-evaluation", torch.zeros(1, 7)))
    assert source.record.inputs == [InputSpec("input", (7,))]
    assert source.record.options == {"classes": 2}
    assert source.brings_weights


def test_end_to_end_pruned_fine_tuned_exported_and_found_again(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = saved(prepared(Net()), tmp_path / "net.pt", "traced-evaluation", torch.randn(2, 1, 8, 8))
    recipe = single_run(
        None, str(path), data="digits", method="magnitude", sparsity=0.5, fine_tune_epochs=1, batch_size=256, threads=1
    )
    checkpoint = prune(recipe, tmp_path / "run")
    kept = [tensor for tensor in checkpoint.tensors.values() if tensor.mask is not None]
    assert sum(tensor.kept for tensor in kept) == round(
        0.5 * sum(tensor.mask.size for tensor in kept if tensor.mask is not None)
    )
    with quiet_torchscript():
        before = torch.jit.load(path).state_dict()  # type: ignore[no-untyped-call]  # untyped in torch
    weight = checkpoint.dense_state()["out.weight"]
    assert not np.isin(weight[weight != 0], before["out.weight"].numpy()).any()
    source = source_from_record(checkpoint.metadata.model)
    assert isinstance(source, TorchSource)
    inputs = source.example_inputs(16)[0].numpy()
    expected = dense_session(source, checkpoint.dense_state(), threads=1).run(inputs)
    for format, runtime in (("onnx", "onnxruntime-cpu"), ("torchscript", "torchscript-cpu"), ("packed", "torch-cpu")):
        artifact = export(checkpoint, format, tmp_path / format, source=source)
        found = compare(expected, RUNTIMES[runtime].load(artifact, threads=1).run(inputs))
        assert found.error is not None
        assert found.error <= BOUND
    names = set(open_artifact(tmp_path / "onnx").names())
    # BatchNorm and the state's names survive in the ONNX file.
    assert {"stem.weight", "blocks.0.norm.running_mean", "out.weight"} <= names


def test_a_file_that_changed_or_moved_is_not_loaded(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))
    path = saved(module, tmp_path / "net.pt", "traced-evaluation", torch.zeros(1, 7))
    record = source_of(path).record
    moved = path.rename(tmp_path / "moved.pt")
    with pytest.raises(ModelError, match="is not there any more; give its new place with --model"):
        source_from_record(record)
    assert source_from_record(record, str(moved)).record.sha256 == record.sha256
    path.write_bytes(moved.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is not the TorchScript file that was pruned"):
        source_from_record(record)


def test_files_that_are_no_models_are_refused_with_the_reason(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))
    path = saved(module, tmp_path / "net.pt", "traced-evaluation", torch.zeros(1, 7))
    with quiet_torchscript():
        frozen = torch.jit.freeze(torch.jit.load(path).eval())  # type: ignore[no-untyped-call]  # untyped in torch
        torch.jit.save(frozen, tmp_path / "frozen.pt")
    torch.save(module.state_dict(), tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:-40])
    conv = saved(nn.Conv2d(1, 2, 3), tmp_path / "conv.pt", "scripted", torch.zeros(1, 1, 8, 8))
    for name, message in (
        ("frozen.pt", "has no parameters: it was frozen"),
        ("state.pt", "what torch.save writes needs pickle"),
        ("text.pt", "is no TorchScript file"),
        ("cut.pt", "is no TorchScript file"),
        ("missing.pt", "does not exist"),
        (conv.name, "nothing says what"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            load_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"given inputs of torch\.float32 \(3,\), failed"):
        load_source(str(path), inputs=[InputSpec("input", (3,))])
    with pytest.raises(UsageError, match="--weights goes with a factory"):
        load_source(str(path), weights=tmp_path / "w.safetensors")


def test_a_copy_of_a_converted_module_has_weights_of_its_own(tmp_path: Path) -> None:
    path = saved(prepared(Net()), tmp_path / "net.pt", "scripted", torch.zeros(1, 1, 8, 8))
    source = source_of(path, IMAGE)
    first, second = source.build(), source.build()
    assert isinstance(first, ScriptNetwork)
    with torch.no_grad():
        first.get_parameter("out.weight").zero_()
    x = torch.randn(2, 1, 8, 8)
    assert not torch.equal(first.eval()(x), second.eval()(x))
