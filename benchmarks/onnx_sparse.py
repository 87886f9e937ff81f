"""`onnx-sparse` against the `onnx` export of the same checkpoint in ONNX Runtime: batch 1, one and two threads.

ResNet-50 (kaiming-normal, uniform sparsity in every layer, the first convolution dense) and an encoder of MiniLM-L6's
shape (hidden 384, 6 layers, 128 tokens; its linear layers pruned). Runs are interleaved; the speedup is the median of
pairs. Targets: ResNet-50 2.8x, 5.0x and 7.0x at 80, 90 and 95 %, the encoder 3.2x at 90 %; ResNet-50 at 90 % loads in
1.5x the dense file's time and takes half of its memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from record import arguments, in_child, interleaved, paired_ratio, summary, write

SPARSITIES = (0.8, 0.9, 0.95)
THREADS = (1, 2)
ENCODER = {"hidden": 384, "layers": 6, "heads": 12, "feed_forward": 1536, "vocabulary": 30522, "input_shape": [128]}
NETWORKS: dict[str, dict[str, Any]] = {"resnet-50": {}, "text-encoder": ENCODER}

# A process of its own, so that nothing of PyTorch stays in memory beside the sessions that are timed.
EXPORT = """
import json, sys, time
from pathlib import Path
import numpy as np
from sparsepack.compressor.checkpoint import (
    FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint, make_tensor,
)
from sparsepack.exporters import export
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import load_source

name, options, sparsity, folder = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
source = load_source(name, options=options)
module = source.build()
initialise(module, "kaiming-normal", 0, "philox4x32-10")
prunable = {tensor.name for tensor in prunable_tensors(module)} - {"conv1.weight"}
tensors = {}
for key, value in module.state_dict().items():
    array = value.detach().numpy()
    mask, fields = None, {}
    if key in prunable:
        score = np.abs(array).reshape(-1)
        mask = np.abs(array) > np.partition(score, round(sparsity * score.size) - 1)[round(sparsity * score.size) - 1]
        fields = {"role": "prunable"}
    tensors[key] = make_tensor(key, array, mask=mask, record=fields)
records = [tensor.record for tensor in tensors.values()]
metadata = CheckpointMetadata(FORMAT, VERSION, source.record, {}, Provenance({}, 0, 1, "cpu"), records)
checkpoint = SparseCheckpoint(metadata, tensors)
dense = export(checkpoint, "onnx", folder / "dense.onnx", source=source, force=True)
begin = time.perf_counter()
sparse = export(checkpoint, "onnx-sparse", folder / "sparse.onnx", source=source, force=True)
print(json.dumps({"dense_bytes": dense.size, "sparse_bytes": sparse.size, "export_s": time.perf_counter() - begin}))
"""

MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from sparsepack.exporters import open_artifact
from sparsepack.runtimes import RUNTIMES

def resident():
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])

import onnxruntime

artifact = open_artifact(Path(sys.argv[1]))
before = resident()
session = RUNTIMES[sys.argv[2]].load(artifact, threads=1)
print(json.dumps({"bytes": resident() - before}))
"""


def timed(folder: Path, threads: int, runs: int) -> dict[str, Any]:
    """Time both files of a folder, and compare what they compute."""
    import numpy as np

    from sparsepack.exporters import open_artifact
    from sparsepack.runtimes import RUNTIMES
    from sparsepack.runtimes.measure.inputs import example_inputs

    files = {"dense": ("dense.onnx", "onnxruntime-cpu"), "sparse": ("sparse.onnx", "onnxruntime-sparse-cpu")}
    opened = {key: open_artifact(folder / name) for key, (name, _) in files.items()}

    def load(key: str) -> Any:
        return RUNTIMES[files[key][1]].load(opened[key], threads=threads)

    loads = interleaved({key: lambda key=key: load(key) for key in files}, 3)  # type: ignore[misc]
    sessions = {key: load(key) for key in files}
    inputs = example_inputs(opened["dense"], sessions["dense"], 1)
    expected, found = (sessions[key].run(*inputs) for key in files)
    times = interleaved({key: lambda key=key: sessions[key].run(*inputs) for key in files}, runs, 3)  # type: ignore[misc]
    return {
        **{key: summary(seconds) for key, seconds in times.items()},
        "speedup": paired_ratio(times["dense"], times["sparse"]),
        "load": {key: summary(seconds) for key, seconds in loads.items()},
        "load_ratio": paired_ratio(loads["sparse"], loads["dense"]),
        "max_error_over_std": float(np.abs(expected - found).max() / expected.std()),
        "notes": list(sessions["sparse"].notes),
    }


def main() -> None:
    """Export, time, and write the record."""
    import json

    from sparsepack.runtimes.native import instruction_set

    options = arguments(__doc__, runs=40)
    figures: dict[str, Any] = {"instruction_set": instruction_set(), "networks": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, settings in NETWORKS.items():
            rows = figures["networks"][network] = {}
            for sparsity in SPARSITIES:
                row = rows[str(sparsity)] = in_child(EXPORT, network, json.dumps(settings), str(sparsity), name)
                for threads in THREADS:
                    row[f"threads {threads}"] = timed(folder, threads, options.runs)
                if network == "resnet-50" and sparsity == 0.9:
                    row["memory"] = {
                        "dense": in_child(MEMORY, str(folder / "dense.onnx"), "onnxruntime-cpu")["bytes"],
                        "sparse": in_child(MEMORY, str(folder / "sparse.onnx"), "onnxruntime-sparse-cpu")["bytes"],
                    }
    write(options.json, figures)


if __name__ == "__main__":
    main()
