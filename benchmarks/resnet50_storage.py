"""ResNet-50 (25.5 million weights, kaiming-normal, seed 0) at 90 % global magnitude: time, memory and bytes.

Targets: pruning under 3 s and under 3x the model's bytes of extra memory; export to `packed` under 6 s, loading it
back under 1.5 s; the file within 4 % of the order-0 entropy bound, and zstd-19 of the dense weights 1.2x larger.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from record import arguments, in_child, write

# Each part runs in a process of its own, so that peak memory is its own; times are the best of several in-process runs.
PRUNE = """
import json, resource, sys, time
import numpy as np
import torch
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import magnitude
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.zoo import ZOO

module, _ = ZOO["resnet-50"].build()
initialise(module, "kaiming-normal", 0, "philox4x32-10")
state = dict(module.named_parameters())
rule = MaskRule(make_space(prunable_tensors(module), Element()), Element(), "global")
weights = {name: state[name].detach().numpy() for name in rule.space.names}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds = []
for _ in range(5):
    begin = time.perf_counter()
    masks = rule.select(magnitude(weights), 0.9)
    with torch.no_grad():
        for name, mask in masks.items():
            state[name].mul_(torch.from_numpy(mask))
    seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
total = sum(w.size for w in weights.values())
print(json.dumps({"seconds": sorted(seconds), "extra_bytes": peak - before, "model_bytes": 4 * total,
                  "kept": sum(int(m.sum()) for m in masks.values()), "weights": total}))
"""

CHECKPOINT = """
import json, sys
from pathlib import Path
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run

recipe = single_run(None, "resnet-50", data="none", method="magnitude", sparsity=0.9, init="kaiming-normal")
prune(recipe, Path(sys.argv[1]))
print(json.dumps({}))
"""

EXPORT = """
import json, resource, sys, time
from pathlib import Path
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.exporters import export

checkpoint = SparseCheckpoint.load(Path(sys.argv[1]) / "checkpoint.safetensors")
seconds = []
for _ in range(3):
    begin = time.perf_counter()
    artifact = export(checkpoint, "packed", Path(sys.argv[2]), force=True)
    seconds.append(time.perf_counter() - begin)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": sorted(seconds), "bytes": artifact.size, "peak_rss_bytes": peak}))
"""

LOAD = """
import json, resource, sys, time
from pathlib import Path
from sparsepack.exporters import open_artifact

seconds = []
for _ in range(3):
    begin = time.perf_counter()
    tensors = open_artifact(Path(sys.argv[1])).tensors()
    seconds.append(time.perf_counter() - begin)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": sorted(seconds), "tensors": len(tensors), "peak_rss_bytes": peak}))
"""

STORAGE = """
import json, sys
from pathlib import Path
import msgspec
from sparsepack.runtimes.measure.storage import storage
from sparsepack.runtimes.measure.subject import Subject

found = msgspec.to_builtins(storage(Subject(Path(sys.argv[1]), "packed", threads=1)))
# The tensors with an output and an input axis are the pruned ones; everything else belongs to batch norms and a bias.
weights = [row for row in found["tensors"] if len(row["shape"]) > 1]
over = sum(row["bytes"] for row in weights) / sum(row["bound_bytes"] for row in weights)
plain = {key: value for key, value in found.items() if key not in ("tensors", "overhead_bytes")}
print(json.dumps({**plain, "weights_over_bound": round(over, 4)}))
"""


def main() -> None:
    """Run the parts and write the record."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        run, packed = str(Path(folder) / "run"), str(Path(folder) / "resnet-50.spk")
        figures = {"prune": in_child(PRUNE)}
        in_child(CHECKPOINT, run)
        figures["export"] = in_child(EXPORT, run, packed)
        figures["load"] = in_child(LOAD, packed)
        figures["storage"] = storage = in_child(STORAGE, packed)
    prune = figures["prune"]
    prune["extra_over_model"] = round(prune["extra_bytes"] / prune["model_bytes"], 3)
    storage["over_bound"] = round(storage["bytes"] / storage["entropy_bound_bytes"], 4)
    write(options.json, figures)


if __name__ == "__main__":
    main()
