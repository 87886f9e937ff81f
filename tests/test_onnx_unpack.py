from pathlib import Path

import ml_dtypes  # noqa: F401  (numpy learns bfloat16)
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from unpack_kinds import KINDS, checkpoint_of, evaluated, graph_of, weight

from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    SparseTensor,
    TensorRecord,
    make_tensor,
)
from sparsepack.errors import FileFormatError, OutputExistsError, UnknownNameError, UnsupportedError
from sparsepack.exporters.manifest import describe
from sparsepack.exporters.onnx_dense import write_onnx_dense
from sparsepack.exporters.onnx_model import write_model
from sparsepack.exporters.onnx_unpack import folding_warning, unpack_in_graph, write_onnx_unpack
from sparsepack.exporters.unpacking import codes, positions, values
from sparsepack.exporters.unpacking.artifact import open_unpack
from sparsepack.exporters.unpacking.emitter import Emitter
from sparsepack.exporters.unpacking.philox import Words, emit_pieces, emit_words
from sparsepack.exporters.unpacking.tensor import pack
from sparsepack.files import sha256_array
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding import philox
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX, SeedRecord
from sparsepack.models.source import OnnxSource, TorchSource, load_source

UNPACKING = {"CumSum", "ScatterElements", "ScatterND", "BitwiseAnd", "Compress", "ConstantOfShape", "Cast", "Range"}


def session_of(model: onnx.ModelProto | bytes | str, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        # The highest level whose result can be saved as plain ONNX.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimised)
    else:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("stored", ["fp32", "fp16", "int8", "codebook:5"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_unpacks_bit_for_bit_and_folds_away(kind: str, stored: str, tmp_path: Path) -> None:
    tensor = KINDS[kind]
    checkpoint = checkpoint_of([tensor])
    model = graph_of(checkpoint)
    before = model.ByteSize()
    [(entry, _)], error = unpack_in_graph(model, checkpoint, stored)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert model.ByteSize() <= before or entry.parametrisation != "identity"
    if stored == "fp32":
        assert (entry.sha256, error) == (tensor.record.sha256, 0.0)
    name = tensor.record.name
    [plain] = session_of(model).run(None, {})
    [folded] = session_of(model, tmp_path / "folded.onnx").run(None, {})
    assert sha256_array(plain) == sha256_array(folded) == sha256_array(evaluated(model)[name]) == entry.sha256
    assert not onnx.load(tmp_path / "folded.onnx").graph.node


def test_every_kind_in_one_graph_is_decoded_by_numpy_to_the_byte(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(list(KINDS.values()))
    for stored in ("fp32", "fp16", "int8", "codebook:3"):
        model = graph_of(checkpoint)
        described, error = unpack_in_graph(model, checkpoint, stored)
        manifest = describe(checkpoint.metadata, described, values=stored, max_abs_error=error, chain=False)
        path = tmp_path / f"{stored[:5]}.onnx"
        write_model(model, path, "onnx-unpack", 1, manifest, force=False)
        artifact = open_unpack(path)
        assert artifact is not None
        assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == path.stat().st_size
        session = session_of(path.read_bytes())
        names = [value.name.removeprefix("out:") for value in session.get_outputs()]
        for name, array in zip(names, session.run(None, {}), strict=True):
            assert artifact.tensor(name).tobytes() == array.tobytes()
        sparse = {tensor.record.name: tensor for tensor in artifact.sparse_tensors()}
        for name, tensor in KINDS.items():
            mask = sparse[tensor.record.name].mask
            if mask is not None:
                assert tensor.mask is not None and np.array_equal(mask, tensor.mask), name


def test_gaps_are_the_bytes_on_the_page() -> None:
    mask = np.zeros((2, 400), np.bool_)
    mask.reshape(-1)[[0, 3, 257, 258, 768]] = True
    # 768 - 258 = 510 is two escapes and a gap of nothing.
    assert positions.encode(mask).stored.tolist() == [0, 3, 254, 1, 255, 255, 0]
    wide = np.zeros((2, 40_000), np.bool_)
    wide.reshape(-1)[[5, 70_000]] = True
    found = positions.encode(wide)
    assert (found.codec, found.stored.tolist()) == ("gaps16", [5, 65535, 4460])


@pytest.mark.parametrize(("density", "codec"), [(0.1, "gaps4"), (0.06, "gaps5"), (0.03, "gaps6"), (0.01, "gaps8")])
def test_long_lists_of_gaps_take_the_width_that_fits(density: float, codec: str) -> None:
    mask = np.random.default_rng(0).random((900, 1000)) < density
    found = positions.encode(mask, bitmap=False)
    assert found.codec == codec
    assert np.array_equal(positions.decode(codec, found.stored, mask.shape, found.kept), mask)
    bits = positions.GAPS[codec]
    # A random mask has geometric distances: the chance of one of at least d is q ** (d - 1), summed over d = L, 2L, ...
    largest, q = 2**bits - 1, 1 - density
    entries = 1 + q ** (largest - 1) / (1 - q**largest)
    assert found.stored.nbytes == pytest.approx(found.kept * entries * bits / 8, rel=0.02)


def test_packed_gaps_are_the_bytes_on_the_page() -> None:
    # Symbols 1, 2, 15 (moves on), 4 in four bits, filled up with 15s.
    stored = codes.pack(np.array([1, 2, 15, 4], np.uint8), 4, 15)
    assert stored.tolist() == [0x21, 0x4F, 0xFF, 0xFF]
    mask = positions.decode("gaps4", stored, (5, 5), 3)
    assert np.flatnonzero(mask).tolist() == [1, 3, 22]
    for broken in ([0x21, 0x4F, 0xFF], [0xFF] * 8, [0x21, 0x4F, 0xFF, 0xFF] + [0xFF] * 4, [0x01, 0xFF, 0xFF, 0xFF]):
        with pytest.raises(FileFormatError):
            positions.decode("gaps4", np.array(broken, np.uint8), (5, 5), 3)


@given(hnp.arrays(np.bool_, hnp.array_shapes(max_dims=4, max_side=40)))
@settings(max_examples=200)
def test_positions_round_trip_in_every_codec(mask: np.ndarray) -> None:
    kept = int(mask.sum())
    if kept == 0:
        return
    for options in ({}, {"rows": False}, {"bitmap": False, "rows": False}):
        found = positions.encode(mask, **options)
        assert np.array_equal(positions.decode(found.codec, found.stored, mask.shape, kept), mask)


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["gaps5", "gaps8", "gaps16", "bitmap", "rows"]))
@settings(max_examples=300)
def test_hostile_positions_are_refused_or_are_a_mask(content: bytes, codec: str) -> None:
    kinds = {"gaps5": "u1", "gaps8": "u1", "gaps16": "<u2", "bitmap": "u1", "rows": "<i8"}
    whole = len(content) // np.dtype(kinds[codec]).itemsize * np.dtype(kinds[codec]).itemsize
    stored = np.frombuffer(content[:whole], kinds[codec])
    try:
        mask = positions.decode(codec, stored, (5, 60), 4)
    except FileFormatError:
        return
    assert (mask.shape, int(mask.sum())) == ((5, 60), 4)


def test_signed_zeros_nans_and_kept_zeros_survive() -> None:
    dense = np.zeros((30, 40), np.float32)
    mask = np.zeros((30, 40), np.bool_)
    mask[::3, ::4] = True
    bits = dense.view(np.uint32)
    bits[0, 0], bits[3, 4], bits[6, 8] = 0x80000000, 0x7FC12345, 0xFF800000
    for wanted in (mask, mask | (np.arange(40) % 2 == 0)):
        checkpoint = checkpoint_of([make_tensor("w", dense, mask=wanted, record={"role": "prunable"})])
        model = graph_of(checkpoint)
        unpack_in_graph(model, checkpoint, "fp32")
        [found] = session_of(model).run(None, {})
        assert found.tobytes() == dense.tobytes()


def test_int8_is_within_half_a_step_of_its_unit() -> None:
    tensor = KINDS["matmul, output axis 1"]
    checkpoint = checkpoint_of([tensor])
    model = graph_of(checkpoint)
    unpack_in_graph(model, checkpoint, "int8")
    [found] = session_of(model).run(None, {})
    dense = tensor.dense()
    # Scales keep eight significant bits, rounded up.
    steps = np.abs(dense).max(axis=0) / 127 * (1 + 2**-7)
    assert (np.abs(found - dense) <= steps * 0.5001).all()
    assert tensor.mask is not None and (found[~tensor.mask] == 0).all()


def test_int8_refuses_what_has_no_scale() -> None:
    with pytest.raises(UnsupportedError, match="'w' holds values that are not finite"):
        pack(make_tensor("w", np.full(3, np.inf, np.float32), record={"role": "prunable"}), "int8", bitwise=True)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 8, 1003])
def test_a_codebook_is_read_at_every_width(bits: int, count: int) -> None:
    random = np.random.default_rng(bits)
    numbers = random.integers(0, 2**bits, count).astype(np.uint8)
    table = random.standard_normal(2**bits).astype(np.float32)
    packed = values.pack_codes(numbers, table)
    assert packed.size == min(count, -(-count // 8) * bits)
    emitter = Emitter()
    output = values.emit_codebook(emitter, "w", packed, table, count)
    info = helper.make_tensor_value_info(output, TensorProto.FLOAT, [count])
    graph = helper.make_graph(emitter.nodes, "codebook", [], [info], emitter.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    for found in (session_of(model).run(None, {})[0], next(iter(ReferenceEvaluator(model).run(None, {})))):
        assert np.array_equal(found, table[numbers])
    assert np.array_equal(values.unpack_codes(packed, table, count), numbers)


def test_the_graph_draws_the_words_of_several_tensors_at_once() -> None:
    requests = [Words(5, "a", 7), Words(5, "b", 8), Words(2**32 - 1, "c", 1), Words(0, "d", 401)]
    emitter = Emitter()
    emit_pieces(emitter, emit_words(emitter, "w", requests), requests, ["a", "b", "c", "d"])
    infos = [helper.make_tensor_value_info(r.name, TensorProto.UINT32, [r.count]) for r in requests]
    graph = helper.make_graph(emitter.nodes, "philox", [], infos, emitter.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for drawn, request in zip(session_of(model).run(None, {}), requests, strict=True):
        assert np.array_equal(drawn, philox.words(request.seed, request.name, 0, request.count))


def test_a_runtime_that_draws_other_words_gets_no_finite_weight() -> None:
    checkpoint = checkpoint_of([KINDS["frozen, philox"]])
    model = graph_of(checkpoint)
    unpack_in_graph(model, checkpoint, "fp32")
    [compared] = [node for node in model.graph.node if node.op_type == "Equal"]
    for tensor in model.graph.initializer:
        if tensor.name == compared.input[1]:
            wrong = numpy_helper.to_array(tensor).copy()
            wrong[0] ^= 1
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    [found] = session_of(model).run(None, {})
    mask = KINDS["frozen, philox"].mask
    assert mask is not None and not np.isfinite(found[~mask]).any()


def test_a_large_philox_network_is_told_what_folding_needs() -> None:
    def network(generator: str) -> SparseCheckpoint:
        seed = SeedRecord(generator, 0, "w", "uniform", 0.5)
        record = TensorRecord(
            "w", (5000, 5000), "float32", "", role="prunable", parametrisation="frozen", masked=True, seed=seed
        )
        return checkpoint_of([SparseTensor(record, None, None)])

    assert folding_warning(network(KEYED_PRODUCT)) is None
    warning = folding_warning(network(PHILOX)) or ""
    assert "about 7.1 GB of memory" in warning and "keyed-product" in warning


def test_tied_weights_are_unpacked_once() -> None:
    first = KINDS["linear"]
    alias = SparseTensor(
        TensorRecord("b.weight", first.record.shape, "float32", first.record.sha256, alias_of="a.weight"), None, None
    )
    checkpoint = checkpoint_of([first, alias])
    model = graph_of(checkpoint)
    unpack_in_graph(model, checkpoint, "fp32")
    assert [node.op_type for node in model.graph.node].count("ScatterElements") == 1
    one, two = session_of(model).run(None, {})
    assert one.tobytes() == two.tobytes() == first.dense().tobytes()


def test_small_and_dense_tensors_stay_initializers() -> None:
    small = weight("small", (3, 4), 0.1)
    bias = make_tensor("bias", np.ones(300, np.float32))
    checkpoint = checkpoint_of([small, bias])
    model = graph_of(checkpoint)
    described, _ = unpack_in_graph(model, checkpoint, "fp32")
    assert [entry.values for entry, _ in described] == [("dense", 48), ("dense", 1200)]
    assert [tensor.name for tensor in model.graph.initializer] == ["small", "bias"]


def test_an_old_opset_has_gaps_only_and_a_very_old_one_is_refused() -> None:
    checkpoint = checkpoint_of([KINDS["bitmap"]])
    model = graph_of(checkpoint, opset=13)
    [(entry, _)], _ = unpack_in_graph(model, checkpoint, "fp32")
    assert entry.positions is not None and entry.positions[0] in positions.GAPS
    [found] = session_of(model).run(None, {})
    assert sha256_array(found) == entry.sha256
    with pytest.raises(UnsupportedError, match=r"opset 11; a graph that unpacks itself needs opset 13"):
        unpack_in_graph(graph_of(checkpoint, opset=11), checkpoint, "fp32")
    seeded = checkpoint_of([KINDS["frozen, philox"]])
    with pytest.raises(UnsupportedError, match=r"opset 13; .* needs opset 18"):
        unpack_in_graph(graph_of(seeded, opset=13), seeded, "fp32")


def test_a_name_that_is_taken_is_refused() -> None:
    checkpoint = checkpoint_of([KINDS["linear"]])
    model = graph_of(checkpoint)
    model.graph.node.add(op_type="Identity", input=["a.weight"], output=["a.weight:sums"])
    with pytest.raises(UnsupportedError, match=r"a value named 'a.weight:sums' already"):
        unpack_in_graph(model, checkpoint, "fp32")


def network(model: str, initialiser: str, parametrisation: str) -> tuple[SparseCheckpoint, TorchSource]:
    source = load_source(model)
    assert isinstance(source, TorchSource)
    module = source.build()
    records = initialise(module, initialiser, 3, KEYED_PRODUCT)
    prunable = {tensor.name: tensor for tensor in prunable_tensors(module)}
    random = np.random.default_rng(1)
    tensors = []
    for name, parameter in module.state_dict().items():
        fields: dict[str, object] = {}
        mask = None
        if name in prunable:
            mask = random.random(tuple(parameter.shape)) < 0.1
            fields = {"role": "prunable", "parametrisation": parametrisation}
            if parametrisation != "identity":
                fields["seed"] = records[name]
        tensors.append(make_tensor(name, parameter.detach().numpy(), mask=mask, record=fields))
    return checkpoint_of(tensors, source.record), source


@pytest.mark.parametrize(
    ("model", "parametrisation"),
    [("lenet-5-caffe", "frozen"), ("lenet-5-caffe", "selected"), ("text-encoder", "identity")],
)
def test_a_network_computes_what_the_dense_one_computes(model: str, parametrisation: str, tmp_path: Path) -> None:
    checkpoint, source = network(model, "uniform", parametrisation)
    paths = [tmp_path / "dense.onnx", tmp_path / "unpack.onnx"]
    write_onnx_dense(checkpoint, paths[0], source=source)
    write_onnx_unpack(checkpoint, paths[1], source=source)
    dense, folded = (session_of(str(path), tmp_path / f"{path.stem}-optimised.onnx") for path in paths)
    inputs = {
        value.name: example.numpy() for value, example in zip(dense.get_inputs(), source.example_inputs(3), strict=True)
    }
    assert dense.run(None, inputs)[0].tobytes() == folded.run(None, inputs)[0].tobytes()
    operators = [
        [node.op_type for node in onnx.load(tmp_path / f"{path.stem}-optimised.onnx").graph.node] for path in paths
    ]
    assert operators[0] == operators[1]
    artifact = open_unpack(paths[1])
    assert artifact is not None and paths[1].stat().st_size < paths[0].stat().st_size * 0.6
    for name, array in artifact.tensors().items():
        assert array.tobytes() == checkpoint.tensors[name].dense().tobytes()


def test_an_onnx_network_is_unpacked_in_its_own_graph(tmp_path: Path) -> None:
    checkpoint, source = network("lenet-5-caffe", "uniform", "identity")
    write_onnx_dense(checkpoint, tmp_path / "original.onnx", source=source)
    original = load_source(str(tmp_path / "original.onnx"))
    assert isinstance(original, OnnxSource)
    random = np.random.default_rng(2)
    prunable = {tensor.name: tensor for tensor in original.prunable()}
    tensors = []
    for name, array in original.tensors().items():
        mask = random.random(array.shape) < 0.05 if name in prunable else None
        axis = prunable[name].output_axis if name in prunable else 0
        tensors.append(make_tensor(name, array, mask=mask, record={"role": "prunable", "output_axis": axis}))
    pruned = checkpoint_of(tensors, original.record)
    write_onnx_dense(pruned, tmp_path / "dense.onnx", source=original)
    for stored in ("fp32", "int8"):
        write_onnx_unpack(pruned, tmp_path / f"{stored}.onnx", source=original, values=stored)
    artifact = open_unpack(tmp_path / "fp32.onnx")
    assert artifact is not None and artifact.tensors().keys() == {tensor.record.name for tensor in tensors}
    image = {"input": source.example_inputs(2)[0].numpy()}
    runs = [session_of(str(tmp_path / name)) for name in ("dense.onnx", "fp32.onnx")]
    outputs = [run.run(None, {run.get_inputs()[0].name: image["input"]})[0] for run in runs]
    assert outputs[0].tobytes() == outputs[1].tobytes()


def test_a_changed_file_and_a_foreign_one(tmp_path: Path) -> None:
    checkpoint, source = network("lenet-300-100", "uniform", "identity")
    path = tmp_path / "net.onnx"
    write_onnx_unpack(checkpoint, path, source=source, values="int8")
    write_onnx_unpack(checkpoint, tmp_path / "again.onnx", source=source, values="int8")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_onnx_unpack(checkpoint, path, source=source)
    with pytest.raises(UnknownNameError, match="Choose from: fp32, fp16, int8"):
        write_onnx_unpack(checkpoint, path, source=source, values="fp8", force=True)
    original = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(original), 60):
        content = bytearray(original)
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(FileFormatError):
            open_unpack(path)
    path.write_bytes(original[: len(original) // 2])
    with pytest.raises(FileFormatError):
        open_unpack(path)
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(graph_of(checkpoint_of([KINDS["linear"]])).SerializeToString())
    assert open_unpack(foreign) is None
