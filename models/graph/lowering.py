"""Lower a torch module to ONNX: state_dict names, Conv and BatchNormalization kept, nothing of this machine inside.

In: a module and one example of its inputs. Out: an ``onnx.ModelProto`` with a dynamic batch axis, opset 20
and IR version 10 at most, whose initializers carry the names of the parameters they came from (tied weights once, under
the first of their names). Guaranteed: equal modules give equal bytes, from any folder and in any process.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ...errors import ModelError, UnsupportedError
from ...files import atomic_path, refuse_existing
from ..evaluating import evaluating
from ..source import InputSpec

OPSET = 20
IR_VERSION = 10
BATCH = "batch"
# A protobuf message cannot exceed 2 GiB; what is larger goes beside it as external data.
SINGLE_FILE_BYTES = 2**31 - 2**20
# Constants up to this many elements are computed while exporting; larger results would only make the file bigger.
_FOLDED_ELEMENTS = 1024
_UNTRACEABLE = "the model cannot be traced with a dynamic batch axis"
_REQUIREMENT = "Its forward must not depend on the values of its inputs nor on a fixed batch size."


def to_onnx(module: nn.Module, example_inputs: Sequence[Tensor], input_specs: Sequence[InputSpec]) -> onnx.ModelProto:
    """Lower ``module`` to one ONNX model.

    Args:
        module: on the CPU; it is traced in eval mode and left as it was.
        example_inputs: one tensor an input, batch axis first; a batch of one is repeated, because the tracer takes an
            extent of one for a constant.
        input_specs: names of the inputs, in the order of ``forward``.

    Raises:
        ModelError: the module cannot be traced (its forward raised, or depends on values).
        UnsupportedError: an operator of it has no ONNX counterpart up to opset 20.
    """
    examples = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in example_inputs)
    with evaluating(module):
        program = _trace(module, examples, [spec.name for spec in input_specs])
    own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    _simplify(program.model, own)
    _name_tied_by_first(program.model.graph.initializers, module)
    _sort_initializers(program.model.graph.initializers, list(module.state_dict()))
    _name_outputs(program.model.graph)
    model: onnx.ModelProto = program.model_proto
    _check_batch_axis(model.graph)
    _strip(model)
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


def write_onnx(
    model: onnx.ModelProto, path: Path, *, force: bool = False, single_file_bytes: int = SINGLE_FILE_BYTES
) -> list[Path]:
    """Write ``model`` atomically: one file while it fits, else large tensors in ``<name>.data`` beside it.

    Args:
        model: what :func:`to_onnx` returned; left as it was.
        path: where to write.
        force: whether an existing file may be replaced.
        single_file_bytes: largest size of a single file, in bytes.

    Returns:
        The files written, the model first.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
    """
    refuse_existing(path, force)
    tensors = list(model.graph.initializer)
    # Summed by hand: asking protobuf for the size of a message above its limit is an error by itself.
    sparse = model.graph.sparse_initializer
    total = sum(len(tensor.raw_data) for tensor in tensors)
    total += sum(len(tensor.values.raw_data) + len(tensor.indices.raw_data) for tensor in sparse)
    if total < single_file_bytes and model.ByteSize() < single_file_bytes:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(path.name + ".data")
    refuse_existing(beside, force)
    with ExitStack() as stack:
        # The model is renamed last (contexts close in reverse), so it never points at data that is not there.
        final = stack.enter_context(atomic_path(path))
        data = stack.enter_context(atomic_path(beside))
        with data.open("wb") as stream:
            small = _without_data(model)
            for tensor, slim in zip(tensors, small.graph.initializer, strict=True):
                if len(tensor.raw_data) <= _FOLDED_ELEMENTS:
                    slim.CopyFrom(tensor)
                    continue
                # Aligned to a page, so that a runtime can map the tensor instead of copying it.
                stream.write(b"\0" * (-stream.tell() % 4096))
                entries = {"location": beside.name, "offset": stream.tell(), "length": len(tensor.raw_data)}
                stream.write(tensor.raw_data)
                slim.data_location = onnx.TensorProto.EXTERNAL
                for key, value in entries.items():
                    slim.external_data.add(key=key, value=str(value))
        final.write_bytes(small.SerializeToString(deterministic=True))
    return [path, beside]


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model`` whose initializers have name, shape and type but no values."""
    small = onnx.ModelProto()
    for descriptor, value in model.ListFields():
        if descriptor.name == "graph":
            for inner, part in value.ListFields():
                if inner.name == "initializer":
                    for tensor in part:
                        small.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
                else:
                    _assign(small.graph, inner, part)
        else:
            _assign(small, descriptor, value)
    return small


def _assign(message: Any, descriptor: Any, value: Any) -> None:
    target = getattr(message, descriptor.name)
    if hasattr(target, "extend"):
        target.extend(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, descriptor.name, value)


def _trace(module: nn.Module, examples: tuple[Tensor, ...], names: list[str]) -> Any:
    batch = torch.export.Dim(BATCH)
    with quiet_exporter():
        try:
            return torch.onnx.export(
                module,
                examples,
                dynamo=True,
                # The exporter's own optimiser folds BatchNorm into Conv and renames Linear weights.
                optimize=False,
                external_data=False,
                verbose=False,
                opset_version=OPSET,
                input_names=names,
                dynamic_shapes=tuple({0: batch} for _ in examples),
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            raise UnsupportedError(f"the model cannot be written as ONNX: {_first_line(error)}") from error
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            raise ModelError(f"{_UNTRACEABLE}: {type(cause).__name__}: {_first_line(cause)} {_REQUIREMENT}") from error


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about itself; its errors still come through."""
    disabled = logging.root.manager.disable
    # It logs that torchvision, which nothing needs, is missing, and prints half-made graphs when it fails.
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            # torch walks its own pytree with a check that it has deprecated itself.
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            # Several inputs share one batch axis, which is what is wanted.
            warnings.filterwarnings("ignore", message=r".*shares the same shape constraints", category=UserWarning)
            # Its recurrent layers keep their weights in a list besides, which the tracer takes for a side effect.
            warnings.filterwarnings("ignore", message=r"The tensor attributes? .*_flat_weights", category=UserWarning)
            warnings.filterwarnings("ignore", message=r"_check_is_size will be removed", category=FutureWarning)
            yield
    finally:
        logging.disable(disabled)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')}." if lines else ""


def _simplify(model: Any, own: set[str]) -> None:
    """Inline functions, compute small constants and drop what nothing uses, in place.

    Nothing is computed from the module's own parameters: every one keeps its name and value in the file.
    """
    from onnxscript import optimizer

    def should_fold(node: Any) -> bool | None:
        reads_parameter = any(value is not None and value.name in own for value in node.inputs)
        return False if reads_parameter else None

    optimizer.inline(model)
    optimizer.fold_constants(
        model,
        input_size_limit=_FOLDED_ELEMENTS,
        output_size_limit=_FOLDED_ELEMENTS,
        should_fold=should_fold,
    )
    _drop_zero_biases(model.graph, own)
    optimizer.remove_unused_nodes(model)


def _drop_zero_biases(graph: Any, own: set[str]) -> None:
    """Take away the bias of zeros that the exporter gives each Conv without one; it would be stored for nothing."""
    for node in graph:
        if node.op_type != "Conv" or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = node.inputs[2]
        producer = bias.producer()
        if producer is not None and producer.op_type == "Expand":
            bias = producer.inputs[0]
        if bias.name not in own and bias.const_value is not None and not bias.const_value.numpy().any():
            node.resize_inputs(2)


def _name_tied_by_first(initializers: Any, module: nn.Module) -> None:
    """Rename each tied weight from the last of its names, which the exporter picks, to the first."""
    first: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)
        if known != name and name in initializers and known not in initializers:
            value = initializers.pop(name)
            value.name = known
            initializers[known] = value


def _sort_initializers(initializers: Any, order: list[str]) -> None:
    """Put the initializers in state_dict order, constants of the graph behind them."""
    rank = {name: index for index, name in enumerate(order)}
    values = sorted(initializers.values(), key=lambda value: rank.get(value.name, len(rank)))
    initializers.clear()
    for value in values:
        initializers[value.name] = value


def _name_outputs(graph: Any) -> None:
    """Name the outputs ``output``, or ``output_0``, ``output_1`` ... when there are several."""
    count = len(graph.outputs)
    wanted = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    outputs = set(map(id, graph.outputs))
    for node in graph:
        for value in node.outputs:
            if value.name in wanted and id(value) not in outputs:
                value.name = f"{value.name}_inner"
    for value, name in zip(graph.outputs, wanted, strict=True):
        if value.producer() is not None:
            value.name = name


def _check_batch_axis(graph: onnx.GraphProto) -> None:
    """Refuse a network whose output has another number of samples than its input; the tracer lets some through."""
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].dim_param != BATCH:
            shape = [dim.dim_param or dim.dim_value for dim in dims]
            raise ModelError(f"{_UNTRACEABLE}: '{value.name}' comes out as {shape}. {_REQUIREMENT}")


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces, source paths and inferred shapes: they differ between machines or can be inferred again."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    _strip_graph(model.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    for field in ("metadata_props", "doc_string", "value_info"):
        graph.ClearField(field)
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _strip_graph(inner)
