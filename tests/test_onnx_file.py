from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from sparsepack.errors import FileFormatError, ModelError, OutputExistsError, SparsepackError, UnsupportedError
from sparsepack.models.graph.lowering import to_onnx, write_onnx
from sparsepack.models.onnx_file import OnnxFile
from sparsepack.models.onnx_weights import layer_constants, prunable_constants
from sparsepack.models.protobuf import decode_varints, encode_varints
from sparsepack.models.source import InputSpec, OnnxSource, load_source

RNG = np.random.default_rng(0)
SHIPPED = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes: list[onnx.NodeProto], initializers: list[Any], ir_version: int = 10, **graph: Any) -> Any:
    inputs = graph.pop("inputs", [value("x", ["n", 4])])
    outputs = graph.pop("outputs", [value("y", ["n", None])])
    made = helper.make_graph(nodes, "g", inputs, outputs, initializers, **graph)
    return helper.make_model(made, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 17)])


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def weight(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def halved(array: np.ndarray) -> np.ndarray:
    """Zero every second value: what pruning does to a tensor."""
    pruned = array.copy()
    pruned.reshape(-1)[::2] = 0
    return pruned


def run(path: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return output


# How a float tensor can be stored: name -> builder from (name, array).
def raw(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def typed(name: str, array: np.ndarray) -> onnx.TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1))


@pytest.mark.parametrize("store", [raw, typed])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_type_is_read_and_patched_in_place(store: Callable[..., Any], dtype: Any, tmp_path: Path) -> None:
    w = weight(4, 6, dtype=dtype)
    w[0, :3] = [0.0, -0.0, 1.0]
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [store("w", w), raw("other", weight(3))])
    path = saved(model, tmp_path)
    file = OnnxFile(path)
    stored = file.stored("w")
    assert stored is not None
    assert stored.dtype == w.dtype
    np.testing.assert_array_equal(stored.read().view(np.uint8), w.view(np.uint8))

    pruned = halved(w)
    (copy,) = file.write(tmp_path / "out.onnx", {"w": pruned})
    before, after = path.read_bytes(), copy.read_bytes()
    inside = {offset for start, end in stored.spans for offset in range(start, end)}
    assert len(before) == len(after)
    assert {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b} <= inside
    written = onnx.load(copy)
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]), pruned)
    assert written.graph.initializer[1] == model.graph.initializer[1]


def test_a_list_in_two_pieces_is_patched_piece_by_piece(tmp_path: Path) -> None:
    w = weight(4, 3)
    # Written by hand, because the library would merge the pieces.
    first = TensorProto(name="w", dims=(4, 3), data_type=TensorProto.FLOAT, float_data=w.reshape(-1)[:5])
    pieces = first.SerializeToString() + TensorProto(float_data=w.reshape(-1)[5:]).SerializeToString()
    node = helper.make_node("MatMul", ["x", "w"], ["y"]).SerializeToString()
    graph = b"\x0a" + bytes([len(node)]) + node + b"\x2a" + bytes([len(pieces)]) + pieces
    content = b"\x08\x0a\x3a" + bytes([len(graph)]) + graph
    (tmp_path / "two.onnx").write_bytes(content)
    file = OnnxFile(tmp_path / "two.onnx")
    stored = file.stored("w")
    assert stored is not None
    assert len(stored.spans) == 2
    np.testing.assert_array_equal(stored.read(), w)
    (copy,) = file.write(tmp_path / "out.onnx", {"w": halved(w)})
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(copy).graph.initializer[0]), halved(w))


def test_half_precision_numbers_of_varying_length_still_run_after_pruning(tmp_path: Path) -> None:
    w = weight(4, 6, dtype=np.float16)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [typed("w", w)],
        inputs=[value("x", ["n", 4], TensorProto.FLOAT16)],
        outputs=[value("y", ["n", 6], TensorProto.FLOAT16)],
    )
    file = OnnxFile(saved(model, tmp_path))
    (copy,) = file.write(tmp_path / "out.onnx", {"w": halved(w)})
    identity = np.eye(4, dtype=np.float16)
    np.testing.assert_array_equal(run(copy, identity), halved(w))
    # Zeros take one byte each, -1 takes three.
    model.graph.initializer[0].CopyFrom(typed("w", np.zeros((4, 6), np.float16)))
    zeros = OnnxFile(saved(model, tmp_path, "zeros.onnx"))
    with pytest.raises(UnsupportedError, match="needs more bytes than the old one"):
        zeros.write(tmp_path / "again.onnx", {"w": np.full((4, 6), -1, np.float16)})
    assert not (tmp_path / "again.onnx").exists()


def chain_model(**options: Any) -> Any:
    """Conv, Gemm both ways, MatMul from both sides, a shared weight, a transposed one and one in a Constant node."""
    nodes = [
        helper.make_node("Conv", ["image", "conv.w", "conv.b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "gemm.t", "gemm.b"], ["g1"], transB=1),
        helper.make_node("Gemm", ["g1", "gemm.n"], ["g2"]),
        helper.make_node("MatMul", ["g2", "shared"], ["m1"]),
        helper.make_node("MatMul", ["m1", "shared"], ["m2"]),
        helper.make_node("Transpose", ["turned"], ["turned.t"], perm=[1, 0]),
        helper.make_node("MatMul", ["m2", "turned.t"], ["m3"]),
        helper.make_node("Constant", [], ["held"], value=raw("", weight(5, 7))),
        helper.make_node("MatMul", ["m3", "held"], ["m4"]),
        helper.make_node("Transpose", ["m4"], ["m4.t"]),
        helper.make_node("MatMul", ["left", "m4.t"], ["y"]),
    ]
    initializers = [
        raw("conv.w", weight(3, 2, 2, 2)),
        raw("conv.b", weight(3)),
        raw("gemm.t", weight(6, 12)),
        raw("gemm.b", weight(6)),
        raw("gemm.n", weight(6, 4)),
        raw("shared", weight(4, 4)),
        raw("turned", weight(5, 4)),
        raw("left", weight(2, 7)),
    ]
    return model_of(
        nodes, initializers, inputs=[value("image", ["n", 2, 3, 3])], outputs=[value("y", [2, "n"])], **options
    )


def test_the_weights_of_the_three_operators_are_prunable_along_their_outputs(tmp_path: Path) -> None:
    model = chain_model()
    onnx.checker.check_model(model, full_check=True)
    file = OnnxFile(saved(model, tmp_path))
    found = [(p.name, p.kind, p.shape, p.output_axis, p.fan_in, p.fan_out, p.macs) for p in prunable_constants(file)]
    assert found == [
        ("conv.w", "conv", (3, 2, 2, 2), 0, 8, 12, None),
        ("gemm.t", "linear", (6, 12), 0, 12, 6, None),
        ("gemm.n", "linear", (6, 4), 1, 6, 4, None),
        ("shared", "linear", (4, 4), 1, 4, 4, None),
        ("turned", "linear", (5, 4), 0, 4, 5, None),
        ("held", "linear", (5, 7), 1, 5, 7, None),
        ("left", "linear", (2, 7), 0, 7, 2, None),
    ]
    assert set(layer_constants(file)) == {name for name, *_ in found} | {"conv.b", "gemm.b"}


def test_what_else_is_read_or_may_be_overridden_is_left_alone(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "in.branch"], ["z"])], "body", [], [value("z", ["n", 4])]
    )
    nodes = [
        helper.make_node("Gather", ["tied", "ids"], ["e"]),
        helper.make_node("MatMul", ["x", "tied"], ["a"]),
        helper.make_node("If", ["flag"], ["b"], then_branch=body, else_branch=body),
        helper.make_node("MatMul", ["b", "in.branch"], ["b2"]),
        helper.make_node("MatMul", ["x", "an.output"], ["c"]),
        helper.make_node("MatMul", ["x", "overridable"], ["d"]),
        helper.make_node("MatMul", ["x", "three.axes"], ["d3"]),
        helper.make_node("MatMulInteger", ["bytes", "integers"], ["i"]),
        helper.make_node("Conv", ["x", "foreign"], ["k"], domain="elsewhere"),
        helper.make_node("MatMul", ["x", "empty"], ["l"]),
    ]
    floats = ["tied", "in.branch", "an.output", "overridable"]
    initializers = [raw(name, weight(4, 4)) for name in floats]
    initializers += [raw("three.axes", weight(2, 4, 4)), raw("foreign", weight(2, 1, 1, 1)), raw("empty", weight(4, 0))]
    initializers.append(raw("integers", np.zeros((4, 4), np.int8)))
    model = model_of(
        nodes,
        initializers,
        inputs=[value("x", ["n", 4]), value("overridable", [4, 4])],
        outputs=[value("an.output", [4, 4])],
    )
    assert prunable_constants(OnnxFile(saved(model, tmp_path))) == []
    # Before IR version 4 an initializer had to be listed as an input, so that says nothing.
    model.ir_version = 3
    old = OnnxFile(saved(model, tmp_path, "old.onnx"))
    assert [p.name for p in prunable_constants(old)] == ["overridable"]


def with_everything(folder: Path) -> Path:
    """A file with metadata, a function, unknown fields and external data in a subfolder."""
    model = chain_model(doc_string="kept")
    helper.set_model_props(model, {"author": "someone", "empty": ""})
    model.functions.append(
        helper.make_function(
            "elsewhere",
            "Twice",
            ["a"],
            ["b"],
            [helper.make_node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    data = b"".join(tensor.raw_data for tensor in model.graph.initializer[:3])
    offset = 0
    for tensor in model.graph.initializer[:3]:
        entries = {"location": "data/weights.bin", "offset": str(offset), "length": str(len(tensor.raw_data))}
        offset += len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in entries.items():
            tensor.external_data.add(key=key, value=text)
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "weights.bin").write_bytes(data)
    # Field 12345 of the model, length 3: what a later version of ONNX might add.
    (folder / "model.onnx").write_bytes(model.SerializeToString() + b"\xca\x83\x06\x03abc")
    return folder / "model.onnx"


def test_a_pruned_copy_differs_in_the_named_tensors_alone(tmp_path: Path) -> None:
    path = with_everything(tmp_path / "in")
    source = load_source(str(path))
    assert isinstance(source, OnnxSource)
    new = {p.name: halved(source.tensors()[p.name]) for p in source.prunable()}
    out = tmp_path / "out" / "pruned.onnx"
    assert source.write(out, new) == [out, tmp_path / "out" / "data" / "weights.bin"]
    assert out.stat().st_size == path.stat().st_size
    assert out.read_bytes().endswith(b"\xca\x83\x06\x03abc")

    before, after = onnx.load(path), onnx.load(out)
    held = {node.output[0]: node.attribute[0].t for node in after.graph.node if node.op_type == "Constant"}
    arrays = {tensor.name: tensor for tensor in after.graph.initializer} | held
    for name, expected in new.items():
        np.testing.assert_array_equal(numpy_helper.to_array(arrays[name]), expected)
    for model in (before, after):
        for tensor in model.graph.initializer:
            if tensor.name in new:
                tensor.ClearField("raw_data")
        for node in model.graph.node:
            if node.op_type == "Constant":
                node.attribute[0].t.ClearField("raw_data")
    assert before == after
    x = weight(3, 2, 3, 3)
    assert np.isfinite(run(out, x)).all()
    again = OnnxSource(source.record, out, OnnxFile(out)).tensors()
    assert all(np.array_equal(again[name], new.get(name, array)) for name, array in source.tensors().items())


def test_nothing_of_the_source_and_no_existing_file_is_overwritten(tmp_path: Path) -> None:
    path = with_everything(tmp_path / "in")
    file = OnnxFile(path)
    before = {p: p.read_bytes() for p in (tmp_path / "in").rglob("*") if p.is_file()}
    with pytest.raises(OutputExistsError, match="write the copy to another folder"):
        file.write(path, {}, force=True)
    with pytest.raises(OutputExistsError, match=r"weights\.bin is the file of the model that is pruned"):
        file.write(path.with_name("other.onnx"), {}, force=True)
    file.write(tmp_path / "out" / "a.onnx", {})
    with pytest.raises(OutputExistsError, match=r"weights\.bin exists already"):
        file.write(tmp_path / "out" / "b.onnx", {})
    file.write(tmp_path / "out" / "b.onnx", {}, force=True)
    assert {p: p.read_bytes() for p in (tmp_path / "in").rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.onnx", "b.onnx", "data"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"nothing": np.zeros(3, np.float32)}, "has no float tensor called 'nothing'"),
        ({"shared": np.zeros((4, 5), np.float32)}, r"it cannot take values of float32 of shape \(4, 5\)"),
        ({"shared": np.zeros((4, 4), np.float64)}, r"is float32 of shape \(4, 4\); it cannot take values of float64"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_nothing_is_written(
    tensors: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = OnnxFile(saved(chain_model(), tmp_path / "in"))
    with pytest.raises(ModelError, match=message):
        file.write(tmp_path / "out" / "model.onnx", tensors)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../in/data/weights.bin"}, "lies outside the model's folder"),
        ({"location": "/etc/passwd"}, "lies outside the model's folder"),
        ({"location": "link.bin"}, "lies outside the model's folder"),
        ({"location": "missing.bin"}, "'missing.bin' is missing"),
        ({"location": ""}, "is missing"),
        ({"location": "a\0b"}, "lies outside the model's folder"),
        ({"location": "a" * 5000}, "is missing"),
        ({"location": "data/weights.bin", "offset": "-4", "length": "64"}, "claims 64 at -4"),
        ({"location": "data/weights.bin", "offset": "0", "length": "9999"}, "needs 64 bytes"),
        ({"location": "data/weights.bin", "offset": "99999"}, "claims 64 at 99999"),
        ({"location": "data/weights.bin", "offset": "many"}, "is no number"),
    ],
)
def test_external_data_that_cannot_be_is_refused(entries: dict[str, str], message: str, tmp_path: Path) -> None:
    path = with_everything(tmp_path / "in")
    (tmp_path / "outside.bin").write_bytes(bytes(1000))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "outside.bin")
    model = onnx.load(path, load_external_data=False)
    tensor = TensorProto(name="w", dims=(4, 4), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    model.graph.initializer.append(tensor)
    hostile = saved(model, tmp_path / "in", "hostile.onnx")
    with pytest.raises(FileFormatError, match=message):
        OnnxFile(hostile).stored("w")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (TensorProto(dims=(1 << 40, 1 << 40), raw_data=b"1234"), "needs 4835703278458516698824704 bytes; it has 4"),
        (TensorProto(dims=(2, 3), raw_data=b"1234"), "needs 24 bytes; it has 4"),
        (TensorProto(dims=(-1, 3), raw_data=b"1234"), "negative extent"),
        (TensorProto(dims=(1,), raw_data=b"1234", float_data=[1.0]), "needs 4 bytes"),
    ],
)
def test_tensors_whose_bytes_do_not_fit_are_refused(tensor: Any, message: str, tmp_path: Path) -> None:
    tensor.name, tensor.data_type = "w", TensorProto.FLOAT
    path = saved(model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor]), tmp_path)
    with pytest.raises(FileFormatError, match=message):
        OnnxFile(path).stored("w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x08\x0a", "holds no graph"),
        (b"\x3a\x00", "holds no graph"),
        (b"GIF89a" * 10, "no protobuf message"),
        (b"\x08\x0a\x3a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
        (b"\x08\x0a\x3a\x02\x2a\x7f", "claims 127 bytes"),
        (b"\xff" * 30, "has no end"),
        (b"\x08\x0a\x3a\x04\x0a\x02\x0a\x7f", "is no protobuf message"),
    ],
)
def test_files_that_are_no_onnx_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        OnnxFile(path)


def test_two_constants_of_one_name_are_refused(tmp_path: Path) -> None:
    path = saved(model_of([], [raw("w", weight(2)), raw("w", weight(2))]), tmp_path)
    with pytest.raises(FileFormatError, match="two constant tensors are called 'w'"):
        OnnxFile(path)


def test_truncated_and_flipped_files_end_in_our_errors_or_read_correctly(tmp_path: Path) -> None:
    original = with_everything(tmp_path).read_bytes()
    path = tmp_path / "broken.onnx"
    generator = random.Random(0)  # noqa: S311
    variants = [original[: generator.randrange(len(original))] for _ in range(150)]
    for _ in range(600):
        flipped = bytearray(original)
        for _ in range(generator.choice([1, 1, 1, 4])):
            flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        variants.append(bytes(flipped))
    opened = 0
    for content in variants:
        path.write_bytes(content)
        try:
            file = OnnxFile(path)
            for name in file.constants:
                file.stored(name)
            prunable_constants(file)
            opened += 1
        except SparsepackError:
            pass
    assert 0 < opened < len(variants)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_graphs_that_onnx_ships_are_read_as_onnx_reads_them(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    file = OnnxFile(path)
    assert file.ir_version == model.ir_version
    assert [node.op_type for node in file.nodes] == [node.op_type for node in model.graph.node]
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in arrays:
        stored = file.stored(name)
        if stored is not None:
            np.testing.assert_array_equal(stored.read(), numpy_helper.to_array(arrays[name]))
    # All are stored.
    new = {p.name: halved(file.stored(p.name).read()) for p in prunable_constants(file)}  # type: ignore[union-attr]
    (copy,) = file.write(tmp_path / "copy.onnx", new)
    if not new:
        assert copy.read_bytes() == path.read_bytes()
    written = onnx.load(copy)
    for tensor in written.graph.initializer:
        if tensor.name in new:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), new[tensor.name])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.token = nn.Linear(6, 8)
        self.out = nn.Linear(8 * 24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x))).reshape(-1, 24, 6)
        y: torch.Tensor = self.out(self.token(x).flatten(1))
        return y


@pytest.mark.parametrize("single", [True, False])
def test_a_torch_export_is_pruned_to_80_percent_and_runs(single: bool, tmp_path: Path) -> None:
    module = Small().eval()
    model = to_onnx(module, (torch.randn(2, 1, 8, 8),), [InputSpec("input", (1, 8, 8))])
    write_onnx(model, tmp_path / "net.onnx", single_file_bytes=2**31 if single else 0)
    source = load_source(str(tmp_path / "net.onnx"))
    assert isinstance(source, OnnxSource)
    # The 3-d Linear comes out as Transpose and MatMul; its weight is found behind the Transpose, as torch has it.
    assert [(p.name, p.output_axis) for p in source.prunable()] == [
        ("conv.weight", 0),
        ("token.weight", 0),
        ("out.weight", 0),
    ]
    pruned = {}
    for prunable in source.prunable():
        w = source.tensors()[prunable.name]
        limit = np.sort(np.abs(w), axis=None)[int(0.8 * w.size) - 1]
        pruned[prunable.name] = np.where(np.abs(w) > limit, w, np.float32(0))
        with torch.no_grad():
            module.get_parameter(prunable.name).copy_(torch.from_numpy(pruned[prunable.name]))
    source.write(tmp_path / "out" / "net.onnx", pruned)
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(run(tmp_path / "out" / "net.onnx", x.numpy()), expected, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_varints_round_trip_at_their_own_length(numbers: list[int]) -> None:
    values = np.array(numbers, np.uint64)
    lengths = np.array([max(1, -(-number.bit_length() // 7)) for number in numbers], np.int64)
    packed = encode_varints(values, lengths)
    assert packed is not None
    decoded, found = decode_varints(packed)
    np.testing.assert_array_equal(decoded, values)
    np.testing.assert_array_equal(found, lengths)
    # One group more each: the same numbers, padded; the library agrees.
    padded = encode_varints(values & np.uint64(0x7FFFFFFF), np.minimum(lengths + 1, 10))
    if padded is not None:
        np.testing.assert_array_equal(decode_varints(padded)[0], values & np.uint64(0x7FFFFFFF))
    shorter = np.maximum(lengths - 1, 1)
    if (shorter < lengths).any():
        assert encode_varints(values, shorter) is None


def test_padded_varints_are_what_protobuf_reads() -> None:
    values = np.array([0, 1, 300, 65535], np.uint64)
    packed = encode_varints(values, np.array([3, 2, 3, 5], np.int64))
    assert packed is not None
    # Field 5 (int32_data), length-delimited.
    tensor = onnx.TensorProto.FromString(b"\x2a" + bytes([packed.size]) + packed.tobytes())
    assert list(tensor.int32_data) == values.tolist()


def test_the_record_knows_inputs_width_and_hash(tmp_path: Path) -> None:
    path = with_everything(tmp_path / "in")
    source = load_source(str(path))
    assert isinstance(source, OnnxSource)
    assert source.record.kind == "onnx"
    assert source.record.inputs == [InputSpec("image", (2, 3, 3), "float32")]
    before = source.record.sha256
    data = tmp_path / "in" / "data" / "weights.bin"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert load_source(str(path)).record.sha256 != before
