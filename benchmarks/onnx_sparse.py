"""`onnx-sparse` against the `onnx` export of the same checkpoint in ONNX Runtime, against int8 and against DeepSparse.

ResNet-50 (kaiming-normal, uniform sparsity in every layer, the first convolution dense) and an encoder of MiniLM-L6's
shape (hidden 384, 6 layers, 128 tokens; its linear layers pruned), batches of 1, 16 and 64, one and two threads. Runs
are interleaved; a speedup is the median of pairs. Targets: ResNet-50 2.8x, 5.0x and 7.0x dense at 80, 90 and 95 %, the
encoder 3.2x at 90 %; ResNet-50 at 90 % faster than int8, loads in 1.5x the dense file's time and takes half of its
memory; 1.4x, 1.8x (1.6x with two threads) and 2.0x DeepSparse 1.8.0.

int8 is ONNX Runtime's static quantisation, calibrated on random inputs: its speed counts here, its accuracy is none.
It and DeepSparse are compared at batch 1. There six runs come before those that count, because a layer cuts its work by
the threads that it saw in its first runs; larger batches are cut by their examples. DeepSparse runs under a Python of
its own, ``--deepsparse V/bin/python`` (deepsparse_peer.py says how to make one).
Beside a cell of two threads stands how far apart the two cores were, before and after it (core_distance.py).
Every cell is kept as it is measured; the same command goes on from there, and ``--minutes`` bounds one call.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from core_distance import CoreDistance
from deepsparse_peer import Peer
from record import arguments, in_child, interleaved, paired_ratio, summary, write

SPARSITIES = (0.8, 0.9, 0.95)
BATCHES = (1, 16, 64)
THREADS = (1, 2)
WARMUP = {1: 6}
# Of the slowest side of a cell; three runs are made in any case.
CELL_SECONDS = 6.0
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
figures = {"dense_bytes": dense.size, "sparse_bytes": sparse.size, "export_s": time.perf_counter() - begin}
if sys.argv[5] == "int8":
    from sparsepack.exporters.onnx_int8 import write_onnx_int8

    examples = [tensor.numpy() for tensor in source.example_inputs(16)]
    write_onnx_int8(checkpoint, folder / "int8.onnx", source=source, calibration=examples, force=True)
print(json.dumps(figures))
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


def timed(folder: Path, batch: int, threads: int, runs: int, peer_python: str) -> dict[str, Any]:
    """Time the files of a folder in turn, with DeepSparse among them, and compare what they compute."""
    import numpy as np

    from sparsepack.exporters import open_artifact
    from sparsepack.runtimes import RUNTIMES
    from sparsepack.runtimes.measure.inputs import example_inputs

    files = {"dense": "onnxruntime-cpu", "sparse": "onnxruntime-sparse-cpu", "int8": "onnxruntime-cpu"}
    alone = ("dense", "sparse") if batch > 1 else tuple(files)
    opened = {key: open_artifact(folder / f"{key}.onnx") for key in alone if (folder / f"{key}.onnx").exists()}

    def load(key: str) -> Any:
        return RUNTIMES[files[key]].load(opened[key], threads=threads)

    sessions = {key: load(key) for key in opened}
    inputs = example_inputs(opened["dense"], sessions["dense"], batch)
    expected, found = (sessions[key].run(*inputs) for key in ("dense", "sparse"))
    tasks: dict[str, Any] = {key: lambda key=key: sessions[key].run(*inputs) for key in sessions}
    cell: dict[str, Any] = {}
    peer = None
    if peer_python and batch == 1:
        try:
            peer = Peer(peer_python, folder / "dense.onnx", inputs[0], threads, folder)
            cell["deepsparse_max_error_over_std"] = float(np.abs(expected - peer.output).max() / expected.std())
            tasks["deepsparse"] = peer.seconds
        except (OSError, RuntimeError) as error:
            cell["deepsparse_unavailable"] = str(error)
    begin = time.perf_counter()
    sessions["dense"].run(*inputs)
    affordable = int(CELL_SECONDS / (time.perf_counter() - begin))
    times = interleaved(tasks, max(3, min(runs, affordable)), WARMUP.get(batch, 1))
    if peer is not None:
        peer.close()
    cell |= {key: summary(seconds) for key, seconds in times.items()}
    cell["speedup"] = paired_ratio(times["dense"], times["sparse"])
    for other in ("int8", "deepsparse"):
        if other in times:
            cell[f"against_{other}"] = paired_ratio(times[other], times["sparse"])
    cell["max_error_over_std"] = float(np.abs(expected - found).max() / expected.std())
    cell["notes"] = list(sessions["sparse"].notes)
    if batch == 1:
        loads = interleaved({key: partial(load, key) for key in ("dense", "sparse")}, 3)
        cell["load"] = {key: summary(seconds) for key, seconds in loads.items()}
        cell["load_ratio"] = paired_ratio(loads["sparse"], loads["dense"])
    return cell


def cells(networks: list[str], sparsities: list[float], batches: list[int]) -> Iterator[tuple[str, float, int, int]]:
    """Yield what is measured, in order: everything at batch 1 first."""
    for batch in batches:
        for network in networks:
            for sparsity in sparsities:
                for threads in THREADS:
                    yield network, sparsity, batch, threads


def main() -> None:
    """Export, time, keep, and write the record when everything is there."""
    from sparsepack.files import write_bytes
    from sparsepack.runtimes.native import instruction_set

    options = arguments(
        __doc__,
        runs=40,
        minutes=60.0,
        deepsparse="",
        networks=",".join(NETWORKS),
        sparsities=",".join(map(str, SPARSITIES)),
        batches=",".join(map(str, BATCHES)),
        fresh=False,
    )
    kept = options.json.with_suffix(".partial.json")
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() and not options.fresh else {}
    end = time.monotonic() + 60 * options.minutes
    wanted = cells(
        options.networks.split(","),
        [float(text) for text in options.sparsities.split(",")],
        [int(text) for text in options.batches.split(",")],
    )
    figures: dict[str, Any] = {"instruction_set": instruction_set(), "networks": {}}
    with tempfile.TemporaryDirectory() as name:
        distance = CoreDistance(Path(name))
        for network, sparsity, batch, threads in wanted:
            folder = Path(name) / f"{network}-{sparsity}"
            export, cell = f"{network} {sparsity}", f"{network} {sparsity} {batch} {threads}"
            if cell not in done or export not in done:
                if time.monotonic() > end:
                    print(f"{len(done)} pieces are kept in {kept}; the same command goes on.", file=sys.stderr)
                    return
                if not folder.exists():
                    folder.mkdir()
                    done[export] = _exported(network, sparsity, folder)
                before = distance.measure() if threads > 1 else {}
                done[cell] = timed(folder, batch, threads, options.runs, options.deepsparse)
                if before:
                    done[cell]["cores"] = {"before": before, "after": distance.measure()}
                write_bytes(kept, json.dumps(done).encode())
            row = figures["networks"].setdefault(network, {}).setdefault(str(sparsity), dict(done[export]))
            row[f"threads {threads}" if batch == 1 else f"threads {threads} batch {batch}"] = done[cell]
    write(options.json, figures)
    kept.unlink()


def _exported(network: str, sparsity: float, folder: Path) -> dict[str, Any]:
    # int8 takes as long whatever is zero, so that one sparsity is enough.
    also = "int8" if sparsity == 0.9 else ""
    row = in_child(EXPORT, network, json.dumps(NETWORKS[network]), str(sparsity), str(folder), also)
    if network == "resnet-50" and sparsity == 0.9:
        row["memory"] = {
            "dense": in_child(MEMORY, str(folder / "dense.onnx"), "onnxruntime-cpu")["bytes"],
            "sparse": in_child(MEMORY, str(folder / "sparse.onnx"), "onnxruntime-sparse-cpu")["bytes"],
        }
    return row


if __name__ == "__main__":
    main()
