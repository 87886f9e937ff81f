"""Every kind of tensor that ``onnx-unpack`` knows, made by hand, and a graph that hands tensors out."""

import warnings

import numpy as np
import onnx
from checkpoints import assembled
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sparsepack.compressor.block import Block
from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    SparseTensor,
    make_tensor,
)
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX, SeedRecord
from sparsepack.models.source import ModelRecord


def checkpoint_of(tensors: list[SparseTensor], model: ModelRecord | None = None) -> SparseCheckpoint:
    return assembled(*tensors, model=model or ModelRecord("zoo", "none", []))


def graph_of(checkpoint: SparseCheckpoint, opset: int = 20) -> onnx.ModelProto:
    """A model that hands out the checkpoint's tensors, as ``out:NAME``."""
    nodes, initializers, outputs = [], [], []
    for name, tensor in checkpoint.tensors.items():
        if tensor.record.alias_of is None:
            initializers.append(numpy_helper.from_array(tensor.dense(), name))
        source = tensor.record.alias_of or name
        nodes.append(helper.make_node("Identity", [source], [f"out:{name}"]))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.record.dtype))
        outputs.append(helper.make_tensor_value_info(f"out:{name}", kind, tensor.record.shape))
    graph = helper.make_graph(nodes, "weights", [], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def evaluated(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    names = [value.name.removeprefix("out:") for value in model.graph.output]
    with warnings.catch_warnings():
        # The reference evaluator computes wrapping products with numpy scalars now and then.
        warnings.simplefilter("ignore", RuntimeWarning)
        return dict(zip(names, ReferenceEvaluator(model).run(None, {}), strict=True))


def weight(
    name: str,
    shape: tuple[int, ...],
    density: float | np.ndarray,
    parametrisation: str = "identity",
    seed: tuple[str, str] | None = None,
    dtype: str = "float32",
    **record: object,
) -> SparseTensor:
    random = np.random.default_rng(len(name) + sum(shape))
    mask = density if isinstance(density, np.ndarray) else random.random(shape) < density
    fields = {"role": "prunable", "parametrisation": parametrisation, **record}
    if seed:
        fields["seed"] = SeedRecord(seed[0], 7, name, seed[1], float(np.float32(0.1)))
    return make_tensor(name, random.standard_normal(shape).astype(dtype), mask=mask, record=fields)


TILES = Block(4, 2).spread(np.random.default_rng(0).random(12 * 80) < 0.1, (48, 160), 0)
PAIRS = np.tile(np.array([True, False, False, True]), 1920).reshape(48, 160)
UNITS = np.broadcast_to((np.arange(64) % 3 == 0).reshape(64, 1, 1, 1), (64, 20, 3, 3)).copy()
KINDS = {
    "linear": weight("a.weight", (120, 200), 0.1),
    "conv": weight("conv", (32, 16, 3, 3), 0.1),
    "one long gap": weight("long", (40, 900), 0.01),
    "two-byte gaps": weight("wide", (400, 900), 0.0004),
    "packed gaps": weight("narrow", (160, 270), 0.1),
    "frozen, packed gaps": weight("fn", (160, 270), 0.1, "frozen", (KEYED_PRODUCT, "uniform")),
    "bitmap": weight("dense", (40, 16, 3, 3), 0.5),
    "bitmap, odd size": weight("odd", (31, 77), 0.4),
    "matmul, output axis 1": weight("matmul", (90, 110), 0.1, output_axis=1),
    "bitmap, output axis 1": weight("right", (90, 110), 0.4, output_axis=1),
    "channels": weight("units", (64, 20, 3, 3), UNITS, structure="channel"),
    "blocks": weight("tiles", (48, 160), TILES, structure="block:4x2"),
    "two of four": weight("pairs", (48, 160), PAIRS, structure="2:4"),
    "frozen, blocks": weight("ft", (48, 160), TILES, "frozen", (KEYED_PRODUCT, "uniform"), structure="block:4x2"),
    "nothing kept": weight("empty", (64, 50), 0.0),
    "half precision": weight("half", (64, 129), 0.1, dtype="float16"),
    "double precision": weight("double", (64, 129), 0.1, dtype="float64"),
    "vector": weight("vector", (901,), 0.1),
    "frozen, keyed product": weight("kp", (32, 24, 3, 3), 0.1, "frozen", (KEYED_PRODUCT, "uniform")),
    "frozen, keyed signs": weight("signs", (33, 129), 0.1, "frozen", (KEYED_PRODUCT, "signed-constant")),
    "frozen, constant": weight("constant", (33, 129), 0.1, "frozen", (KEYED_PRODUCT, "constant")),
    "frozen, bitmap": weight("half-frozen", (33, 129), 0.5, "frozen", (KEYED_PRODUCT, "uniform")),
    "frozen, nothing trained": weight("untrained", (33, 129), 0.0, "frozen", (KEYED_PRODUCT, "uniform")),
    "frozen, channels": weight("fu", (64, 20, 3, 3), UNITS, "frozen", (KEYED_PRODUCT, "uniform")),
    "frozen, philox": weight("ph", (32, 24, 3, 3), 0.1, "frozen", (PHILOX, "uniform")),
    "selected, keyed product": weight("mask", (64, 24, 1, 1), 0.5, "selected", (KEYED_PRODUCT, "uniform")),
    "selected, few": weight("few", (130, 77), 0.05, "selected", (KEYED_PRODUCT, "uniform")),
    "selected, channels": weight("su", (64, 20, 3, 3), UNITS, "selected", (KEYED_PRODUCT, "uniform")),
    "selected, all": weight("whole", (64, 50), 1.0, "selected", (KEYED_PRODUCT, "uniform")),
    "selected, none": weight("none", (64, 50), 0.0, "selected", (KEYED_PRODUCT, "uniform")),
    "selected, philox signs": weight("ps", (33, 129), 0.5, "selected", (PHILOX, "signed-constant")),
}
