"""What slimming itself takes: seconds for ResNet-50 and for a graph of 1,000 operators, memory for models of 1 GB.

Targets: ResNet-50 analysed and rewritten in under 3 s, 1,000 operators in under 10 s, and a peak of at most 2.5 times
the file's size while a file of 1 GB is slimmed (above what the imports take), with half of every width cut and with
nothing to cut. The 1 GB models: 16 square linear layers, and one whose first linear layer is nine tenths of it. Each
run is a process of its own; the files need 3 GB under --folder, and are removed again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from record import arguments, in_child, write

SECONDS = """
import json, sys, time
import onnx
from sparsepack.exporters.slim import slim
model = onnx.load(sys.argv[1])
begin = time.perf_counter()
account = slim(model, 0.5).account
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": round(seconds, 2), "kept": account.parameters[1] / account.parameters[0]}))
"""
MEMORY = """
import json, sys
from pathlib import Path
import onnx, torch
import sparsepack.exporters.slim_latency, sparsepack.models.onnx_file
from sparsepack.exporters.onnx_slim import SlimSettings, slim_file

def peak():
    # Of this process alone: what getrusage reports starts at the size of the process that forked it.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

before = peak()
path, ratio = Path(sys.argv[1]), float(sys.argv[2]) or None
slim_file(path, Path(sys.argv[3]), settings=SlimSettings(ratio), force=True)
print(json.dumps({"peak_bytes": peak() - before, "file_bytes": path.stat().st_size}))
"""


class Builder:
    """A graph of random weights, written down operator by operator."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        """Add a weight and return its name."""
        name = f"w{len(self.weights)}"
        values = self.random.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return its output."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def save(self, path: Path, shape: list[int | str]) -> None:
        """Write the graph; its input is ``x``, its output that of the last operator."""
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path.write_bytes(model.SerializeToString())


def thousand_operators(path: Path) -> None:
    """Write 250 residual blocks of convolution, ReLU, convolution and sum."""
    build, x = Builder(), "x"
    x = build.add("Conv", x, build.weight(32, 3, 3, 3), pads=[1, 1, 1, 1])
    while len(build.nodes) < 997:
        y = build.add("Relu", build.add("Conv", x, build.weight(24, 32, 3, 3), pads=[1, 1, 1, 1]))
        x = build.add("Add", x, build.add("Conv", y, build.weight(32, 24, 1, 1)))
    x = build.add("Flatten", build.add("GlobalAveragePool", x))
    build.add("Gemm", x, build.weight(10, 32), transB=1)
    build.save(path, ["batch", 3, 32, 32])


def square_layers(path: Path) -> None:
    """Write 16 linear layers of 4096 x 4096."""
    build, x = Builder(), "x"
    for _ in range(16):
        x = build.add("Relu", build.add("Gemm", x, build.weight(4096, 4096), transB=1))
    build.add("Gemm", x, build.weight(10, 4096), transB=1)
    build.save(path, ["batch", 4096])


def one_large_layer(path: Path) -> None:
    """Write a VGG-like network: small convolutions, and a first linear layer of 4096 x 50176."""
    build, x, width = Builder(), "x", 3
    for outputs in (64, 128, 256, 512, 1024):
        x = build.add("Relu", build.add("Conv", x, build.weight(outputs, width, 3, 3), pads=[1, 1, 1, 1]))
        x, width = build.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), outputs
    x = build.add("Relu", build.add("Gemm", build.add("Flatten", x), build.weight(4096, 1024 * 49), transB=1))
    x = build.add("Relu", build.add("Gemm", x, build.weight(4096, 4096), transB=1))
    build.add("Gemm", x, build.weight(10, 4096), transB=1)
    build.save(path, ["batch", 3, 224, 224])


def resnet(path: Path) -> None:
    """Write ResNet-50 as our own lowering gives it."""
    from sparsepack.models.graph.lowering import to_onnx
    from sparsepack.models.source import TorchSource, load_source

    source = load_source("resnet-50")
    assert isinstance(source, TorchSource)
    model = to_onnx(source.build().eval(), source.example_inputs(2, 0), list(source.record.inputs))
    path.write_bytes(model.SerializeToString())


def main() -> None:
    """Measure and write the record."""
    options = arguments(__doc__, runs=3, folder="out/slimming")
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"seconds": {}, "memory": {}}
    model, result = folder / "model.onnx", folder / "result.onnx"
    for name, make in (("resnet-50", resnet), ("1,000 operators", thousand_operators)):
        make(model)
        found = [in_child(SECONDS, str(model)) for _ in range(options.runs)]
        seconds = sorted(row["seconds"] for row in found)
        nodes = len(onnx.load(model).graph.node)
        figures["seconds"][name] = {"median": seconds[len(seconds) // 2], "all": seconds, "operators": nodes}
    for name, make in (("16 square layers", square_layers), ("one large layer", one_large_layer)):
        make(model)
        for ratio in (0.5, 0.0):
            begin = time.perf_counter()
            row = in_child(MEMORY, str(model), str(ratio), str(result))
            row |= {"over_file": round(row["peak_bytes"] / row["file_bytes"], 3)}
            row |= {"seconds": round(time.perf_counter() - begin, 1)}
            figures["memory"][f"{name}, {ratio:.0%} cut" if ratio else f"{name}, nothing to cut"] = row
    for path in (model, result):
        path.unlink(missing_ok=True)
    write(options.json, figures)


if __name__ == "__main__":
    main()
