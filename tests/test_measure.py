"""Measuring as a whole: the record's shape, baselines of either kind, and that one failure leaves the rest intact."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    TrainingCost,
    make_tensor,
)
from sparsepack.errors import DataError, FileFormatError, UnknownNameError, UsageError
from sparsepack.exporters import export
from sparsepack.models.chain import chain_of
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes.measure import environment as environment_module
from sparsepack.runtimes.measure import measure, subject, timing
from sparsepack.runtimes.measure.gates import verdict
from sparsepack.runtimes.measure.inputs import varied
from sparsepack.runtimes.measure.latency import time_pair
from sparsepack.runtimes.measure.memory import Failure, Footprint
from sparsepack.runtimes.onnx_session import OnnxRuntime
from sparsepack.runtimes.report.json import to_json

LATENCY_FIELDS = {
    "median_ms",
    "p10_ms",
    "p90_ms",
    "runs",
    "warmup",
    "threads",
    "batch",
    "load_ms",
    "peak_rss_bytes",
    "speedup",
    "speedup_low",
    "speedup_high",
    "baseline_runtime",
    "layers",
    "sparse_macs",
    "notes",
    "self_check",
    "batches",
    "throughput",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, checkpoint_of: Callable[..., SparseCheckpoint]) -> dict[str, Path]:
    """Write a checkpoint of LeNet-300-100 for digits, and its artifacts, once."""
    source = load_source("lenet-300-100", options={"input_shape": [1, 8, 8], "classes": 10})
    assert isinstance(source, TorchSource)
    module = source.build()
    initialise(module, "uniform", 0, "philox4x32-10")
    generator = np.random.default_rng(0)
    tensors = {}
    for name, value in module.state_dict().items():
        dense = to_numpy(value).copy()
        mask = generator.random(dense.shape) < 0.1 if name.endswith("weight") else None
        tensors[name] = make_tensor(
            name, dense, mask=mask, record={"role": "parameter" if mask is None else "prunable"}
        )
    checkpoint = checkpoint_of(
        *tensors.values(),
        model=source.record,
        recipe={},
        chain=chain_of(module, source.example_inputs(2)),
        training=TrainingCost(5, 6, 7),
    )
    folder = tmp_path_factory.mktemp("artifacts")
    found = {"checkpoint": folder / "checkpoint.safetensors"}
    checkpoint.save(found["checkpoint"])
    for format_name, suffix in (("packed", ".spk"), ("csr", ".safetensors"), ("onnx", ".onnx")):
        found[format_name] = folder / f"net{suffix}"
        export(checkpoint, format_name, found[format_name], source=source)
    return found


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the child process, which has tests of its own."""
    monkeypatch.setattr(subject, "footprint", lambda *a, **k: Footprint(1.0, 10**6))


def measured(paths: list[Path], **options: Any) -> dict[str, Any]:
    return measure(paths, **{"threads": 1, "time_budget": 0.05, **options})


def test_the_record_of_a_real_measurement(files: dict[str, Path]) -> None:
    record = measured([files["onnx"]], baseline=files["onnx"], data="digits")
    assert json.loads(to_json(record)) == record
    assert list(record) == ["schema", "environment", "artifacts", "requirements", "failed"]
    assert record["schema"] == "sparsepack.measurement/1"
    (artifact,) = record["artifacts"]
    assert artifact["artifact"] == "net.onnx"
    assert artifact["format"] == "onnx"
    assert set(artifact["latency"]) == {"onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"}
    latency = artifact["latency"]["onnxruntime-cpu"]
    assert set(latency) == LATENCY_FIELDS
    assert latency["load_ms"] > 0
    assert latency["peak_rss_bytes"] > 10**7
    assert latency["p10_ms"] <= latency["median_ms"] <= latency["p90_ms"]
    assert latency["speedup_low"] <= latency["speedup"] <= latency["speedup_high"]
    assert latency["baseline_runtime"] == "onnxruntime-cpu"
    assert artifact["accuracy"]["drop"] == 0.0
    assert artifact["accuracy"]["baseline"] == artifact["accuracy"]["value"]
    assert artifact["parity"]["error"] < 1e-4
    assert artifact["parity"]["inputs"] == 64
    assert artifact["training"] == {
        "trained_parameters": 5,
        "mask_search_flops": 6,
        "training_flops": 7,
        "seconds": None,
    }
    assert record["environment"]["versions"]["torch"] is not None


def test_a_baseline_that_the_runtime_cannot_load_runs_on_the_baseline_runtime(
    files: dict[str, Path], no_child: None
) -> None:
    record = measured([files["csr"]], baseline=files["onnx"])
    latency = record["artifacts"][0]["latency"]
    assert set(latency) == {"torch-sparse-csr-cpu"}
    assert latency["torch-sparse-csr-cpu"]["baseline_runtime"] == "onnxruntime-cpu"
    # A second note may say that so short a measurement loaded both sides once only.
    notes = latency["torch-sparse-csr-cpu"]["notes"]
    assert notes[0] == "linear layers only: 3 of 3 pruned tensors run sparse."
    record = measured([files["csr"]], baseline=files["onnx"], runtimes=["torch-cpu"])
    assert record["artifacts"][0]["latency"]["torch-cpu"]["baseline_runtime"] == "torch-cpu"


def test_a_baseline_that_nothing_can_load_leaves_the_speedup_open(files: dict[str, Path], no_child: None) -> None:
    record = measured([files["csr"]], baseline=files["csr"], runtimes=["scipy-csr-cpu"], require=["speedup>=1"])
    assert record["artifacts"][0]["latency"]["scipy-csr-cpu"]["baseline_runtime"] == "scipy-csr-cpu"
    record = measured([files["csr"]], baseline=files["packed"], runtimes=["scipy-csr-cpu"], require=["speedup>=1"])
    latency = record["artifacts"][0]["latency"]["scipy-csr-cpu"]
    assert latency["speedup"] is None
    assert "the baseline could not run beside it (onnxruntime-cpu: it runs ONNX files" in latency["notes"][0]
    assert not verdict(record, allow_inconclusive=True)


@pytest.mark.parametrize(("episodes", "said"), [(1, True), (9, False)])
def test_a_speedup_of_one_episode_says_that_its_interval_lacks_what_loading_changes(
    files: dict[str, Path], no_child: None, monkeypatch: pytest.MonkeyPatch, episodes: int, said: bool
) -> None:
    monkeypatch.setattr(timing, "time_pair", lambda *a, **k: replace(time_pair(*a, **k), episodes=episodes))
    record = measured([files["onnx"]], baseline=files["onnx"], runtimes=["onnxruntime-cpu"])
    notes = record["artifacts"][0]["latency"]["onnxruntime-cpu"]["notes"]
    assert any("loaded only once" in note for note in notes) == said


def test_an_earlier_record_as_the_baseline(files: dict[str, Path], no_child: None, tmp_path: Path) -> None:
    earlier = measured([files["onnx"], files["packed"]], data="digits", runtimes=["torch-cpu"])
    path = tmp_path / "earlier.json"
    entry = earlier["artifacts"][0]
    now_slow = entry["latency"]["torch-cpu"]
    now_slow.update(median_ms=1e6, p10_ms=1e5, p90_ms=1e7)
    entry["accuracy"]["value"] = 0.99
    path.write_text(to_json(earlier))
    record = measured([files["onnx"]], baseline=path, data="digits", runtimes=["torch-cpu"])
    latency = record["artifacts"][0]["latency"]["torch-cpu"]
    assert latency["speedup"] == pytest.approx(1e6 / latency["median_ms"])
    assert latency["speedup_low"] == pytest.approx(1e5 / latency["p90_ms"])
    assert latency["speedup_high"] == pytest.approx(1e7 / latency["p10_ms"])
    assert any("earlier record" in note for note in latency["notes"])
    accuracy = record["artifacts"][0]["accuracy"]
    assert accuracy["baseline"] == 0.99
    assert accuracy["drop"] == pytest.approx(0.99 - accuracy["value"])
    assert record["artifacts"][0]["storage"]["growth"] == 0
    (worse,) = record["artifacts"][0]["regressions"]
    assert worse.endswith("99.00 % before.")
    record = measured([files["csr"], files["onnx"]], baseline=path, runtimes=["torch-cpu"], require=["growth<=0"])
    apart, known = record["artifacts"]
    assert "holds no artifact 'net.safetensors' to compare with; it holds net.onnx, net.spk." in apart["notes"][0]
    assert apart["latency"]["torch-cpu"]["median_ms"] > 0
    assert apart["storage"]["baseline_bytes"] is None
    assert known["latency"]["torch-cpu"]["speedup"] > 1
    missing, met = record["requirements"]
    assert "it holds net.onnx, net.spk" in missing["reason"]
    assert met["met"] is True


def test_a_file_of_a_job_is_found_in_the_job_s_record(files: dict[str, Path], no_child: None, tmp_path: Path) -> None:
    names = {files["csr"]: "pruned/csr", files["packed"]: "pruned/packed"}
    earlier = measured([files["csr"], files["packed"]], names=names, runtimes=["torch-cpu"])
    (tmp_path / "earlier.json").write_text(to_json(earlier))
    folder = tmp_path / "out" / "pruned"
    folder.mkdir(parents=True)
    (folder / "packed.spk").write_bytes(files["packed"].read_bytes())
    record = measured([folder / "packed.spk"], baseline=tmp_path / "earlier.json", runtimes=["torch-cpu"])
    assert record["artifacts"][0]["storage"]["growth"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "its schema: None"),
        ('{"schema": "sparsepack.measurement/9"}', "sparsepack.measurement/9"),
        ('{"schema": "sparsepack.measurement/1"}', "damaged measurement record"),
        (
            '{"schema": "sparsepack.measurement/1", "artifacts": '
            '[{"artifact": "a", "accuracy": null, "latency": {"torch-cpu": {"median_ms": "fast"}}}]}',
            "damaged measurement record",
        ),
    ],
)
def test_a_baseline_that_is_no_record_is_refused(
    files: dict[str, Path], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=message):
        measured([files["csr"]], baseline=path)


def test_a_missing_baseline_record(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"cannot read .*nothing\.json: No such file"):
        measured([files["csr"]], baseline=tmp_path / "nothing.json")


def test_a_runtime_that_crashes_leaves_the_rest_of_the_report_intact(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path, runtime: str, **options: Any) -> Footprint | Failure:
        return (
            Failure("it crashed in a process of its own (SIGSEGV)") if runtime == "torch-cpu" else Footprint(1.0, None)
        )

    monkeypatch.setattr(subject, "footprint", crash)
    record = measured([files["csr"]], runtimes=["torch-cpu", "scipy-csr-cpu", "torch-cuda"])
    (artifact,) = record["artifacts"]
    assert artifact["latency"]["torch-cpu"] == {"unavailable": "it crashed in a process of its own (SIGSEGV)"}
    assert artifact["latency"]["scipy-csr-cpu"]["median_ms"] > 0
    assert artifact["latency"]["scipy-csr-cpu"]["peak_rss_bytes"] is None
    assert set(artifact["latency"]["torch-cuda"]) == {"unavailable"}
    assert artifact["parity"]["runtime"] == "scipy-csr-cpu"
    assert artifact["storage"]["sparsity"] == pytest.approx(0.9, abs=0.01)


def test_what_brought_its_child_down_is_never_loaded_here(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(path: Path, runtime: str, **options: Any) -> Footprint | Failure:
        return Failure("it gave no answer within 300 seconds in a process of its own and was stopped")

    def load(self: object, *arguments: object, **options: object) -> None:
        raise AssertionError("loaded in spite of everything")

    monkeypatch.setattr(subject, "footprint", hang)
    monkeypatch.setattr(OnnxRuntime, "load", load)
    record = measured([files["onnx"]], baseline=files["onnx"], runtimes=["onnxruntime-cpu", "torch-cpu"], data="digits")
    (artifact,) = record["artifacts"]
    assert all("gave no answer" in entry["unavailable"] for entry in artifact["latency"].values())
    assert artifact["accuracy"] is None
    assert any("gave no answer" in note for note in artifact["notes"])
    assert artifact["storage"]["sparsity"] == pytest.approx(0.9, abs=0.01)


FRAGILE = """
import os
from torch import nn

class Net(nn.Linear):
    def forward(self, x):
        if "FRAGILE" in os.environ:
            os.abort()
        return super().forward(x)

def build():
    import torch
    return Net(64, 10), torch.zeros(1, 64)
"""


def test_a_user_s_code_that_crashes_does_so_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint_of: Callable[..., SparseCheckpoint]
) -> None:
    (tmp_path / "net.py").write_text(FRAGILE)
    model = f"{tmp_path / 'net.py'}:build"
    source = load_source(model, allow_import=True)
    assert isinstance(source, TorchSource)
    state = {name: to_numpy(value) for name, value in source.build().state_dict().items()}
    tensors = {name: make_tensor(name, value) for name, value in state.items()}
    checkpoint = checkpoint_of(*tensors.values(), model=source.record, recipe={})
    paths = [tmp_path / "net.spk", tmp_path / "net.onnx"]
    for format_name, path in zip(("packed", "onnx"), paths, strict=True):
        export(checkpoint, format_name, path, source=source)
    monkeypatch.setenv("FRAGILE", "1")
    # Parity runs the user's module here, and so does accuracy of what has no runtime of its own.
    packed, graph = measured(paths, model=model, data=flat_digits(), runtimes=["onnxruntime-cpu"])["artifacts"]
    for artifact in (packed, graph):
        assert any("crashed in a process of its own (SIGABRT)" in note for note in artifact["notes"])
        assert artifact["parity"] is None
    assert packed["accuracy"] is None
    assert graph["accuracy"] is not None
    assert graph["latency"]["onnxruntime-cpu"]["median_ms"] > 0


def test_a_baseline_that_crashes_costs_the_speedup_and_nothing_else(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path, runtime: str, **options: Any) -> Footprint | Failure:
        return Failure("it crashed (SIGSEGV)") if path == files["packed"] else Footprint(1.0, None)

    monkeypatch.setattr(subject, "footprint", crash)
    record = measured([files["onnx"]], baseline=files["packed"], runtimes=["onnxruntime-cpu", "torch-cpu"])
    for name, entry in record["artifacts"][0]["latency"].items():
        assert entry["median_ms"] > 0
        assert entry["speedup"] is None
        assert "no speedup, because the baseline could not run beside it" in entry["notes"][0], name


def test_what_only_pytorch_runs_has_parity_only_against_its_checkpoint(files: dict[str, Path]) -> None:
    record = measured([files["packed"]], require=["parity.error<=1e-4"])
    (artifact,) = record["artifacts"]
    assert artifact["parity"] is None
    assert "nothing but PyTorch runs it" in artifact["notes"][0]
    assert record["requirements"][0]["met"] is None
    assert not verdict(record, allow_inconclusive=True)
    record = measured([files["packed"]], require=["parity.error<=1e-4"], against=files["checkpoint"])
    assert record["artifacts"][0]["parity"]["error"] == 0.0
    assert verdict(record)


def test_parity_against_another_checkpoint_fails(files: dict[str, Path], tmp_path: Path) -> None:
    loaded = SparseCheckpoint.load(files["checkpoint"])
    dense = loaded.tensors["fc2.weight"].dense()
    turned = make_tensor("fc2.weight", -dense, mask=dense != 0, record={"role": "prunable"})
    tensors = {**loaded.tensors, "fc2.weight": turned}
    metadata = msgspec.structs.replace(loaded.metadata, tensors=[tensor.record for tensor in tensors.values()])
    other = tmp_path / "other.safetensors"
    SparseCheckpoint(metadata, tensors).save(other)
    record = measured([files["packed"]], require=["parity.error<=1e-4"], against={files["packed"]: other})
    assert record["artifacts"][0]["parity"]["error"] > 0.1
    assert record["requirements"][0]["met"] is False


def foreign(path: Path, value: float = 1.0) -> Path:
    weight = onnx.numpy_helper.from_array(np.full((64, 10), value, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def flat_digits() -> Any:
    from sparsepack.models.data import make_dataset

    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((40, 64)).astype(np.float32)
    labels = np.arange(40) % 10
    return make_dataset("flat", inputs, labels, inputs, labels)


def test_a_foreign_onnx_file_is_measured(tmp_path: Path, no_child: None) -> None:
    record = measured([foreign(tmp_path / "f.onnx")], data=flat_digits())
    (artifact,) = record["artifacts"]
    assert artifact["latency"]["onnxruntime-cpu"]["median_ms"] > 0
    # Ten equal scores: the first class wins, which one label in ten is.
    assert artifact["accuracy"]["value"] == 0.1
    assert artifact["parity"] is None
    assert artifact["storage"]["total"] == 640


def test_outputs_that_are_no_numbers_are_one_note_and_the_rest_is_measured(tmp_path: Path, no_child: None) -> None:
    record = measured([foreign(tmp_path / "f.onnx", float("nan"))], data=flat_digits(), require=["value>=0"])
    (artifact,) = record["artifacts"]
    assert artifact["accuracy"] is None
    assert "no accuracy: the network's outputs hold NaN or infinity." in artifact["notes"]
    assert record["requirements"][0]["reason"] == "the network's outputs hold NaN or infinity"
    assert artifact["latency"]["onnxruntime-cpu"]["median_ms"] > 0
    json.loads(to_json(record))


def test_a_network_that_answers_with_nan_is_timed_and_the_report_says_so(tmp_path: Path) -> None:
    record = measured([foreign(tmp_path / "f.onnx", float("nan"))], runtimes=["onnxruntime-cpu"])
    entry = record["artifacts"][0]["latency"]["onnxruntime-cpu"]
    assert entry["median_ms"] > 0
    assert entry["notes"] == ["its outputs hold NaN or infinity on the inputs that it is timed with."]


def test_images_vary_in_contrast_and_colour_and_other_inputs_stay() -> None:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((64, 3, 16, 16)).astype(np.float32)
    ids = np.arange(12).reshape(3, 4)
    changed, same = varied([images, ids])
    assert same is ids
    assert (changed.dtype, changed.shape) == (images.dtype, images.shape)
    # Noise of 256 pixels: means within 1/16; colours are standard normal, contrasts between 0.2 and 2.
    assert images.mean(axis=(2, 3)).std() < 0.1
    assert changed.mean(axis=(2, 3)).std() == pytest.approx(1.0, abs=0.2)
    assert changed.std(axis=(2, 3)).min() < 0.4
    assert changed.std(axis=(2, 3)).max() > 1.7
    np.testing.assert_array_equal(varied([images])[0], changed)


def test_a_baseline_of_another_network_costs_the_comparison_and_nothing_else(
    files: dict[str, Path], no_child: None, tmp_path: Path
) -> None:
    other = foreign(tmp_path / "f.onnx")
    (tmp_path / "other.json").write_text(to_json(measured([other])))
    for baseline in (other, tmp_path / "other.json"):
        record = measured([files["onnx"]], baseline=baseline, data="digits", require=["speedup>=1", "value>=0"])
        (artifact,) = record["artifacts"]
        assert artifact["notes"][0].startswith("no comparison: ")
        assert artifact["notes"][0].endswith("give a baseline of the same network.")
        assert artifact["latency"]["onnxruntime-cpu"]["median_ms"] > 0
        assert artifact["latency"]["onnxruntime-cpu"]["speedup"] is None
        speedup, value = record["requirements"]
        assert speedup["reason"].endswith("give a baseline of the same network")
        assert value["met"] is True


def test_data_that_does_not_fit_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has inputs of shape"):
        measured([files["onnx"]], data=flat_digits())
    with pytest.raises(DataError, match="has inputs of shape"):
        measured([foreign(tmp_path / "f.onnx")], data="digits")


def test_mistakes_are_found_before_anything_is_opened(tmp_path: Path) -> None:
    nothing = [tmp_path / "nothing.spk"]
    with pytest.raises(UnknownNameError, match="Did you mean 'torch-cpu'"):
        measured(nothing, runtimes=["torchcpu"])
    with pytest.raises(UnknownNameError, match="unknown runtime"):
        measured(nothing, baseline_runtime="abacus")
    with pytest.raises(UsageError, match="unknown field"):
        measured(nothing, require=["storage.weight<=1"])
    with pytest.raises(FileFormatError, match=r"nothing\.spk"):
        measured(nothing)


def test_equal_file_names_are_told_apart(files: dict[str, Path], tmp_path: Path, no_child: None) -> None:
    copy = tmp_path / files["csr"].name
    copy.write_bytes(files["csr"].read_bytes())
    record = measured([files["csr"], copy], runtimes=["scipy-csr-cpu"])
    assert [artifact["artifact"] for artifact in record["artifacts"]] == [str(files["csr"]), str(copy)]


def test_a_fixed_batch_size_is_kept_to(tmp_path: Path, no_child: None) -> None:
    path = foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    fixed = tmp_path / "fixed.onnx"
    fixed.write_bytes(model.SerializeToString())
    record = measured([fixed], baseline=path, data=flat_digits(), batch=2)
    latency = record["artifacts"][0]["latency"]["onnxruntime-cpu"]
    assert latency["batch"] == 4
    assert latency["speedup"] is not None
    record = measured([path], baseline=fixed, batch=2)
    latency = record["artifacts"][0]["latency"]["onnxruntime-cpu"]
    assert latency["speedup"] is None
    assert "it takes batches of 4 only, not of 2" in latency["notes"][0]


def test_the_environment_reads_what_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx fma\n\nprocessor\t: 1\n")
    governor = tmp_path / "governor"
    governor.write_text("performance\n")
    monkeypatch.setattr(environment_module, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(environment_module, "_GOVERNOR", governor)
    found = environment_module.current_environment(3)
    assert found["cpu"] == "Some CPU"
    assert found["instruction_sets"] == ["avx", "fma", "avx2"]
    assert found["frequency_governor"] == "performance"
    assert found["threads"] == 3
    monkeypatch.setattr(environment_module, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(environment_module, "_GOVERNOR", tmp_path / "none")
    found = environment_module.current_environment(1)
    assert found["frequency_governor"] is None
    assert found["instruction_sets"] == []
    assert found["cpu"]
    json.loads(to_json(dict(found)))
