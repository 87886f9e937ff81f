"""DeepSparse 1.8.0 as a peer: a child process under its own Python, which runs when it is asked to and says how long.

It needs an environment of its own (``python3.11 -m venv V && V/bin/pip install deepsparse==1.8.0``) and graphs older
than those that PyTorch writes now, so that :func:`older` takes the few newer operators back.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_OPSET, _IR = 17, 8

_CHILD = """
import json, sys, time
import deepsparse, numpy
engine = deepsparse.compile_model(sys.argv[1], batch_size=int(sys.argv[3]), num_cores=int(sys.argv[4]))
inputs = [numpy.load(sys.argv[2])]
output = engine.run(inputs)[0]
numpy.save(sys.argv[5], output)
print(json.dumps({"version": deepsparse.__version__}), flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    engine.run(inputs)
    print(time.perf_counter() - begin, flush=True)
"""


class Peer:
    """A network in DeepSparse, compiled and waiting."""

    def __init__(self, python: str, model: Path, x: np.ndarray[Any, Any], threads: int, folder: Path) -> None:
        """Compile the network for one batch.

        Raises:
            RuntimeError: DeepSparse cannot be started or refuses the network, with its last line.
        """
        np.save(folder / "peer_input.npy", x)
        older_file, output = folder / "peer.onnx", folder / "peer_output.npy"
        onnx.save(older(onnx.load(model), x.shape), older_file)
        command = [python, "-c", _CHILD, str(older_file), str(folder / "peer_input.npy"), str(len(x)), str(threads)]
        self._child = subprocess.Popen(
            [*command, str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "peer.log").open("w"),
            text=True,
        )
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                self.version = json.loads(line)["version"]
                self.output = np.load(output)
                return
        said = (folder / "peer.log").read_text().strip().splitlines()
        raise RuntimeError(said[-1] if said else f"it ended with code {self._child.wait()}")

    def seconds(self) -> float:
        """Run once and return the child's own time."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return float(self._child.stdout.readline())

    def close(self) -> None:
        """End the child."""
        self._child.communicate(timeout=30)


def older(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a model of opset 17 for inputs of one shape: axes as attributes, Gelu by the error function."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        # ReduceSum alone had its axes as an input by then.
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) > 1:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
            keep = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name == "keepdims"}
            nodes.append(helper.make_node(node.op_type, node.input[:1], node.output, axes=axes, **keep))
        elif node.op_type == "Gelu":
            nodes += _gelu(node.input[0], node.output[0])
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    for name, value in {"gelu_root": 2**0.5, "gelu_one": 1.0, "gelu_half": 0.5}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    for extent, number in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        extent.dim_value = number
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", _OPSET))
    model.ir_version = _IR
    return model


def _gelu(x: str, y: str) -> list[onnx.NodeProto]:
    steps = [
        ("Div", [x, "gelu_root"], f"{y}/d"),
        ("Erf", [f"{y}/d"], f"{y}/e"),
        ("Add", [f"{y}/e", "gelu_one"], f"{y}/s"),
        ("Mul", [x, f"{y}/s"], f"{y}/p"),
        ("Mul", [f"{y}/p", "gelu_half"], y),
    ]
    return [helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps]
