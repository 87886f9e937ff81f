"""ResNet-50 (25.5 million weights) as `onnx-unpack`: bytes a kept weight, load time, folding memory, steady latency.

Targets at 90 %: at most 5.3 bytes a kept weight in fp32, 3.3 in fp16, 2.3 in int8; a frozen network (10 % trained,
keyed product) loads in ONNX Runtime in 3 s with a peak below 1.0 GB on two cores; steady latency within 2 % of dense.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from record import arguments, in_child, write

VALUES = ("fp32", "fp16", "int8", "codebook:4")
# Each part runs in a process of its own, so that peak memory is its own.
MAKE = """
import json, sys
from pathlib import Path
import numpy as np
from sparsepack.compressor.checkpoint import (
    FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint, make_tensor,
)
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores import magnitude
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import load_source

target, kind, generator = sys.argv[1:]
source = load_source("resnet-50")
module = source.build()
records = initialise(module, "uniform" if kind == "frozen" else "kaiming-normal", 0, generator)
state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
rule = MaskRule(make_space(prunable_tensors(module), Element()), Element(), "global")
masks = rule.select(magnitude({name: state[name] for name in rule.space.names}), 0.9)
random = np.random.default_rng(0)
tensors = {}
for name, array in state.items():
    fields = {"role": "prunable" if name in masks else "parameter"}
    if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
        fields["role"] = "buffer"
    mask = masks.get(name)
    if kind == "frozen" and mask is not None:
        # Trained at random places: a few thousand steps would not move their number or their size.
        mask = random.random(array.shape) < 0.1
        array = array + np.float32(0.01) * random.standard_normal(array.shape, np.float32)
        fields |= {"parametrisation": "frozen", "seed": records[name]}
    tensors[name] = make_tensor(name, array, mask=mask, record=fields)
provenance = Provenance({}, 0, 1, "cpu")
metadata = CheckpointMetadata(
    FORMAT, VERSION, source.record, {}, provenance, [tensor.record for tensor in tensors.values()]
)
SparseCheckpoint(metadata, tensors).save(Path(target))
kept = sum(int(np.count_nonzero(tensor.mask)) for tensor in tensors.values() if tensor.mask is not None)
print(json.dumps({"kept": kept}))
"""

EXPORT = """
import json, sys, time, warnings
from pathlib import Path
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.exporters.onnx_dense import write_onnx_dense
from sparsepack.exporters.onnx_unpack import folding_warning, write_onnx_unpack
from sparsepack.models.source import source_from_record

checkpoint, target, values = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
loaded = SparseCheckpoint.load(checkpoint)
source = source_from_record(loaded.metadata.model)
begin = time.perf_counter()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if values == "dense":
        write_onnx_dense(loaded, target, source=source, force=True)
    else:
        write_onnx_unpack(loaded, target, source=source, values=values, force=True)
print(json.dumps({"seconds": round(time.perf_counter() - begin, 2), "bytes": target.stat().st_size,
                  "warning": folding_warning(loaded)}))
"""

LOAD = """
import json, resource, sys, time
import onnxruntime

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.log_severity_level = 3
before = status("VmRSS")
begin = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
seconds = time.perf_counter() - begin
print(json.dumps({"load_seconds": round(seconds, 3), "before_bytes": before, "peak_rss_bytes": status("VmHWM"),
                  "after_bytes": status("VmRSS")}))
"""

LATENCY = """
import json, sys, time
import numpy as np
import onnxruntime

sessions = []
for path in sys.argv[1:3]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
outputs = [session.run(None, {session.get_inputs()[0].name: image})[0] for session in sessions]
times = [[], []]
for turn in range(int(sys.argv[3])):
    for index in (0, 1) if turn % 2 else (1, 0):
        session = sessions[index]
        begin = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: image})
        times[index].append(time.perf_counter() - begin)
ratios = sorted(a / b for a, b in zip(*times))
print(json.dumps({"dense_ms": round(float(np.median(times[1])) * 1e3, 2),
                  "unpack_over_dense": round(float(np.median(ratios)), 4), "runs": len(ratios),
                  "outputs_equal": bool((outputs[0] == outputs[1]).all())}))
"""


def main() -> None:
    """Run the parts and write the record."""
    options = arguments(__doc__, threads=2, runs=40, philox=False)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = [("pruned", "philox4x32-10"), ("frozen", "keyed-product")]
        if options.philox:
            kinds.append(("frozen", "philox4x32-10"))
        for kind, generator in kinds:
            checkpoint = str(Path(folder) / "checkpoint.safetensors")
            kept = in_child(MAKE, checkpoint, kind, generator)["kept"]
            dense = str(Path(folder) / "dense.onnx")
            in_child(EXPORT, checkpoint, dense, "dense")
            part: dict[str, object] = {"kept": kept, "dense": in_child(LOAD, dense, str(options.threads))}
            for values in VALUES:
                path = str(Path(folder) / f"{values.replace(':', '-')}.onnx")
                exported = in_child(EXPORT, checkpoint, path, values)
                exported["bytes_per_kept"] = round(exported["bytes"] / kept, 3)
                part[values] = exported | in_child(LOAD, path, str(options.threads))
            part["latency"] = in_child(LATENCY, str(Path(folder) / "fp32.onnx"), dense, str(options.runs))
            figures[f"{kind} {generator}" if kind == "frozen" else kind] = part
            Path(checkpoint).unlink()
            for file in Path(folder).glob("*.onnx"):
                file.unlink()
    write(options.json, figures)


if __name__ == "__main__":
    main()
