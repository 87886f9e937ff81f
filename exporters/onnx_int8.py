"""``onnx-int8``: the network quantised by ONNX Runtime's own static quantiser, the baseline that int8 users know.

Weights per output channel in signed, activations per tensor in unsigned eight bits (QDQ), calibrated by the minima and
maxima that examples give; BatchNormalization is folded first. Nothing of it is ours but the manifest in front: it lists
every quantised weight and bias, and what it decodes to.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compressor.checkpoint import SparseCheckpoint
from ..errors import DataError, UnsupportedError
from ..files import Array, refuse_existing, sha256_array
from .manifest import Manifest, TensorEntry

if TYPE_CHECKING:
    import onnx

    from ..models.source import ModelSource

FORMAT = "onnx-int8"
VERSION = 1
# What ONNX Runtime's own examples take; minima and maxima hardly move after that.
EXAMPLES = 128
_BATCH = 16
_PREFIXES, _SUFFIX = ("ConvBnFusion_W_", "ConvBnFusion_BN_B_"), "_quantized"


def write_onnx_int8(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    source: ModelSource,
    calibration: Sequence[Array],
    force: bool = False,
) -> None:
    """Write a checkpoint as a statically quantised ONNX model.

    Args:
        checkpoint: any checkpoint; its zeros stay zeros, and gain nothing.
        path: where to.
        source: the network that the checkpoint was made from.
        calibration: examples, one array for each input, first axis the examples.
        force: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        ModelError: the checkpoint's tensors do not fit the network, or it cannot be traced.
        DataError: no examples, or not one array for each input.
        UnsupportedError: a network of 2 GB or more, or one that the quantiser does not take.
    """
    from ..models.graph.lowering import SINGLE_FILE_BYTES
    from .onnx_model import lowered, write_model

    refuse_existing(path, force)
    model = lowered(source, checkpoint)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= SINGLE_FILE_BYTES:
        raise UnsupportedError("the network takes 2 GB or more, which 'onnx-int8' cannot hold; export to 'onnx'.")
    quantised = _cleaned(_quantised(model, calibration))
    groups = _groups(quantised)
    entries = [_entry(name, quantised, parts) for name, parts in groups.items()]
    entries += _float_entries(quantised, {part for parts in groups.values() for part in parts})
    manifest = Manifest(model=checkpoint.metadata.model, tensors=entries, values="int8")
    places = {name: list(parts) for name, parts in groups.items()}
    write_model(quantised, path, FORMAT, VERSION, manifest, force=force, more={"quantised": places})


def _quantised(model: onnx.ModelProto, calibration: Sequence[Array]) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from ..models.graph.lowering import quiet_exporter

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != len(calibration) or any(len(array) == 0 for array in calibration):
        raise DataError(
            f"calibration needs examples for {len(inputs)} inputs ({', '.join(value.name for value in inputs)}), "
            f"got {len(calibration)} arrays of {', '.join(str(len(array)) for array in calibration) or 'no'} examples."
        )
    dims = inputs[0].type.tensor_type.shape.dim
    size = dims[0].dim_value or _BATCH if dims else _BATCH

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
        def __init__(self) -> None:
            self._feeds = _feeds([value.name for value in inputs], calibration, size)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    # Not the user's business: the quantiser talks about its own deprecated arguments and about tensors of one axis.
    with tempfile.TemporaryDirectory() as name, quiet_exporter(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        try:
            quant_pre_process(folder / "model.onnx", folder / "folded.onnx", skip_symbolic_shape=True)
            quantize_static(
                folder / "folded.onnx",
                folder / "int8.onnx",
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_shared_lookups(folder / "folded.onnx"),
            )
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise UnsupportedError(f"ONNX Runtime's quantiser does not take the network: {error}") from error
        return onnx.load(folder / "int8.onnx")


def _shared_lookups(path: Path) -> list[str]:
    """Name the lookups (Gather) in a table that other nodes read too, as a tied embedding is; the file gets the names.

    Quantised along the axis of the others, such a table would give scales of its rows to what is looked up in it, with
    which no runtime computes.
    """
    import onnx

    model = onnx.load(path)
    tables = {tensor.name for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in set(node.input) & tables)
    found = [node for node in model.graph.node if node.op_type == "Gather" and readers[node.input[0]] > 1]
    for number, node in enumerate(found):
        node.name = node.name or f"lookup_{number}"
    if found:
        onnx.save(model, path)
    return [node.name for node in found]


def _feeds(names: Sequence[str], arrays: Sequence[Array], size: int) -> Iterator[dict[str, Array]]:
    for begin in range(0, len(arrays[0]) - len(arrays[0]) % size or 1, size):
        # A network of fixed batch size takes whole batches only; too few examples are repeated.
        rows = np.arange(begin, begin + size) % len(arrays[0])
        yield {name: np.ascontiguousarray(array[rows]) for name, array in zip(names, arrays, strict=True)}


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the quantiser says about itself and every domain that no node is of; store all values as raw bytes."""
    from onnx import numpy_helper

    del model.metadata_props[:]
    used = {node.domain or "" for node in model.graph.node} | {""}
    kept = [(entry.domain, entry.version) for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    for domain, version in kept:
        entry = model.opset_import.add()
        entry.domain, entry.version = domain, version
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model


def _groups(model: onnx.ModelProto) -> dict[str, tuple[str, str, str, int]]:
    """Return (quantised values, scale, zero point, axis) of every constant that is dequantised, by its own name."""
    from onnx import helper

    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, tuple[str, str, str, int]] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and set(node.input) <= constants:
            axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 1)
            name = node.input[0].removesuffix(_SUFFIX)
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            found[name] = (node.input[0], node.input[1], node.input[2], int(axis))
    return found


def dequantised(values: Array, scale: Array, zero: Array, axis: int) -> Array:
    """Return what DequantizeLinear gives: (values - zero) * scale in float32, along ``axis`` where these vary."""
    # One scale for all may come as a vector of one, whatever axis the node names.
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    scale, zero = scale.reshape(shape), zero.reshape(shape)
    dense: Array = (values.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * scale
    return dense


def _entry(name: str, model: onnx.ModelProto, parts: tuple[str, str, str, int]) -> TensorEntry:
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    values, scale, zero = (numpy_helper.to_array(stored[part]) for part in parts[:3])
    dense = dequantised(values, scale, zero, parts[3])
    weight = dense.ndim > 1
    return TensorEntry(
        name=name,
        shape=dense.shape,
        role="prunable" if weight else "parameter",
        parametrisation="identity",
        kept=int(np.count_nonzero(dense)) if weight else None,
        output_axis=parts[3] if weight and scale.ndim == 1 else 0,
        stored=values.dtype.name,
        sha256=sha256_array(dense),
    )


def _float_entries(model: onnx.ModelProto, taken: set[Any]) -> list[TensorEntry]:
    """Describe what stayed in floating point; scales of activations belong to the graph."""
    from onnx import numpy_helper

    from ..models.onnx_tensor import is_weight_like

    scales = {name for node in model.graph.node if node.op_type.endswith("quantizeLinear") for name in node.input[1:2]}
    scales |= {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[1:2]}
    entries = []
    for tensor in model.graph.initializer:
        if tensor.name not in taken and tensor.name not in scales and is_weight_like(tensor):
            array = numpy_helper.to_array(tensor)
            digest = sha256_array(array)
            entries.append(
                TensorEntry(tensor.name, array.shape, array.dtype.name, parametrisation="identity", sha256=digest)
            )
    return entries
