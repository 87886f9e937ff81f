"""Lossless `packed` files at 80, 90 and 95 %: bytes against the order-0 bound and zstd-19, and the codec's speed.

ResNet-50 (kaiming-normal weights, seed 0, global magnitude, no data), LeNet-5-Caffe trained on `--data`, and the text
encoder trained for one epoch on random tokens. Targets: ResNet-50 within 1.02x of the bound and, at 90 %, 0.81x zstd-19
of the dense weights; the others 1.05x and 0.86x. Encoding at 40 MB/s and decoding at 300 MB/s of dense weights at 90 %,
one thread, with extra memory of at most twice the largest tensor and 64 MB. Runs are kept under --runs: two minutes on
an idle core the first time, half a minute after that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from record import arguments, in_child, write

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe

SPARSITIES = (0.8, 0.9, 0.95)
TOKENS, LENGTH, EXAMPLES = 1000, 64, 128

STORAGE = """
import json, sys
from pathlib import Path
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.exporters import export
from sparsepack.runtimes.measure.storage import storage
from sparsepack.runtimes.measure.subject import Subject

checkpoint = SparseCheckpoint.load(Path(sys.argv[1]) / "checkpoint.safetensors")
export(checkpoint, "packed", Path(sys.argv[2]), force=True)
found = storage(Subject(Path(sys.argv[2]), "packed", threads=1))
print(json.dumps({"bytes": found.bytes, "dense_bytes": found.dense_bytes, "zstd_bytes": found.zipped_dense_bytes,
                  "bound_bytes": found.entropy_bound_bytes}))
"""

# Memory first, before anything but the codec has run; then the best times of several.
SPEED = """
import json, resource, sys, time
from pathlib import Path
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.exporters import open_artifact
from sparsepack.exporters.packed import write_packed

def peak():
    # Of this program: ru_maxrss would begin with what the process that started it had.
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

run, path, what = Path(sys.argv[1]) / "checkpoint.safetensors", Path(sys.argv[2]), sys.argv[3]
checkpoint = SparseCheckpoint.open(run)
before = resident()
if what == "encode":
    write_packed(checkpoint, path, force=True)
else:
    open_artifact(path).verify()
extra = peak() - before
loaded = SparseCheckpoint.load(run)
seconds = []
for _ in range(5):
    begin = time.perf_counter()
    write_packed(loaded, path, force=True) if what == "encode" else open_artifact(path).verify()
    seconds.append(time.perf_counter() - begin)
largest = max(tensor.dense().nbytes for tensor in loaded.tensors.values() if tensor.record.alias_of is None)
dense = sum(tensor.dense().nbytes for tensor in loaded.tensors.values() if tensor.record.alias_of is None)
print(json.dumps({"seconds": sorted(seconds), "extra_bytes": extra, "largest_bytes": largest,
                  "megabytes_per_second": dense / min(seconds) / 1e6}))
"""


def random_tokens(path: Path) -> str:
    """Write a data set of random tokens and labels; return what names it."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for split, count in (("train", EXAMPLES), ("test", EXAMPLES // 4)):
        arrays[f"x_{split}"] = rng.integers(0, TOKENS, (count, LENGTH))
        arrays[f"y_{split}"] = np.arange(count) % 4
    np.savez(path, **arrays)
    return f"npz:{path}"


def recipe(network: str, sparsity: float, options: Any) -> dict[str, Any]:
    """Return one run."""
    one = {"name": "run", "method": "magnitude", "sparsity": sparsity}
    shared = {"version": 1, "model": network, "seed": 0, "threads": 1}
    if network == "resnet-50":
        return {**shared, "data": "none", "runs": [{**one, "init": "kaiming-normal"}]}
    if network == "lenet-5-caffe":
        plain: dict[str, Any] = {"learning_rate": 0.02, "epochs": 8}
        return {**shared, "data": options.data, "train": plain, "runs": [{**one, "fine_tune": {"epochs": 2}}]}
    train: dict[str, Any] = {"optimiser": "adamw", "learning_rate": 0.0003, "epochs": 1, "batch_size": 16}
    data = random_tokens(Path(options.runs) / "tokens.npz")
    return {**shared, "data": data, "train": train, "runs": [{**one, "fine_tune": {"epochs": 1}}]}


def main() -> None:
    """Prune, write and measure; write the record."""
    options = arguments(
        __doc__, networks="resnet-50,lenet-5-caffe,text-encoder", runs="out/packed-storage", data="npz:mnist10k.npz"
    )
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    found: dict[str, Any] = {"networks": {}}
    for network in options.networks.split(","):
        rows: dict[str, Any] = {}
        for sparsity in SPARSITIES:
            run = Path(options.runs) / f"{network}-{sparsity}"
            prune(load_recipe(recipe(network, sparsity, options)).prune_recipes()[0], run)
            row = in_child(STORAGE, str(run), str(run / "packed.spk"))
            row["over_bound"] = round(row["bytes"] / row["bound_bytes"], 4)
            row["over_zstd"] = round(row["bytes"] / row["zstd_bytes"], 4)
            rows[str(sparsity)] = row
            print(network, sparsity, row, flush=True)
        found["networks"][network] = rows
    run = Path(options.runs) / "resnet-50-0.9"
    if run.exists():
        found["codec"] = {
            what: in_child(SPEED, str(run), str(run / "packed.spk"), what) for what in ("encode", "decode")
        }
    write(options.json, found)


if __name__ == "__main__":
    main()
