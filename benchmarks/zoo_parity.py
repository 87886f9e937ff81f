"""Every zoo network pruned to 90 %: ``onnx-sparse`` with every layer sparse against the ``onnx`` export.

The error is relative, as ``compress measure`` reports parity: the largest difference of an output divided by the
standard deviation of that output across inputs. Its bound is 1e-4.

    python benchmarks/zoo_parity.py [--networks lenet-5-caffe,resnet-20]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import assembled
from record import arguments, write
from torch.utils.hooks import RemovableHandle

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_sparse import write_onnx_sparse
from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.inputs import varied
from sparsepack.runtimes.measure.parity import compare

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def pruned(name: str, sparsity: float = 0.9) -> tuple[TorchSource, list[SparseTensor]]:
    """Return a zoo network with uniformly pruned weights, and normalisation as training would have left it.

    The scales of normalisation lie below 1, as weight decay leaves them; above, the branches of a deep residual network
    add up to values whose rounding alone shows in the output.
    """
    torch.manual_seed(0)
    source = load_source(name)
    if not isinstance(source, TorchSource):
        raise TypeError(name)
    module = source.build()
    prunable = {tensor.name: tensor for tensor in prunable_tensors(module)}
    masks = {}
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key in prunable:
                magnitude = np.abs(to_numpy(value))
                pruned_count = round(sparsity * value.numel())
                threshold = np.partition(magnitude, pruned_count - 1, axis=None)[pruned_count - 1]
                masks[key] = magnitude > threshold
                # Signals keep their size, or a deep network's output would hardly depend on its input.
                scale = float(np.sqrt(np.square(magnitude).sum() / np.square(magnitude[masks[key]]).sum()))
                value.mul_(torch.from_numpy(masks[key])).mul_(scale)
        module.train()
        norms = [layer for layer in module.modules() if isinstance(layer, _NORMS)]
        for layer in norms:
            layer.momentum = None
            layer.weight.uniform_(0.2, 0.8)
            layer.bias.normal_(0, 0.2)
        if norms:
            module(*source.example_inputs(4))
        elif not any(isinstance(layer, torch.nn.LayerNorm) for layer in module.modules()):
            _spread(module, source.example_inputs(4))
    tensors = []
    for key, value in module.state_dict().items():
        record = {"role": "prunable", "output_axis": prunable[key].output_axis} if key in prunable else None
        tensors.append(make_tensor(key, to_numpy(value), mask=masks.get(key), record=record))
    return source, tensors


def _spread(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """Scale and shift layer after layer as a normalisation would: outputs of mean 0 that vary by 1.

    A deep network without normalisation, as it is initialised, answers nearly the same to every input: vgg-11's outputs
    lie around 0.02 and vary by 1e-4, so that the rounding of their sums shows (2e-4 of that; 4e-5 in ONNX Runtime's
    dense form, both against float64). The scaling is that of Mishkin and Matas, "All you need is a good init" (2016).
    """

    def scale(layer: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        handles.pop(layer).remove()
        mean = output.mean([axis for axis in range(output.ndim) if axis != 1], keepdim=True)
        deviation = (output - mean).std()
        # The first step of a recurrent layer sees zeros.
        if deviation < 1e-6:
            return output
        layer.get_parameter("weight").div_(deviation)
        if not isinstance(layer.bias, torch.Tensor):
            return output / deviation
        layer.bias.sub_(mean.reshape(-1)).div_(deviation)
        return (output - mean) / deviation

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    handles: dict[torch.nn.Module, RemovableHandle] = {layer: layer.register_forward_hook(scale) for layer in layers}
    module(*inputs)


def checkpoint_of(source: TorchSource, tensors: list[SparseTensor]) -> SparseCheckpoint:
    """Return the tensors as a checkpoint."""
    return assembled(*tensors, model=source.record, training=None)


def parity_of(name: str, folder: Path) -> dict[str, Any]:
    """Export one network both ways, run both, and return the error and both sizes."""
    source, tensors = pruned(name)
    checkpoint = checkpoint_of(source, tensors)
    inputs = varied([tensor.numpy() for tensor in source.example_inputs(16)])
    dense = export(checkpoint, "onnx", folder / "dense.onnx", source=source)
    write_onnx_sparse(checkpoint, folder / "sparse.onnx", costs=ALWAYS_SPARSE, source=source)
    sparse = open_artifact(folder / "sparse.onnx")
    reference = RUNTIMES["onnxruntime-cpu"].load(dense, threads=1).run(*inputs)
    session = RUNTIMES["onnxruntime-sparse-cpu"].load(sparse, threads=1)
    compared = compare(reference, session.run(*inputs))
    return {
        "error": compared.error,
        "dense_bytes": dense.size,
        "sparse_bytes": sparse.size,
        "layers": session.notes[0],
    }


def main() -> None:
    """Run all networks and write the record."""
    given = arguments(__doc__, networks=",".join(ZOO))
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for name in given.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = parity_of(name, Path(folder))
        print(name, figures[name], flush=True)
    write(given.json, {"networks": figures})


if __name__ == "__main__":
    main()
