"""A language model of more than 2 GB with tied weights: export, open and run, with its tensors beside the model.

Needs some 10 GB of memory and 5 GB of disk. The embedding (and, tied to it, the output layer) stays dense, the layer
between them is pruned to 90 %; both formats must store the tied weights once, decode bit for bit and compute the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from record import arguments, in_child, write

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        rows = torch.arange(words, dtype=torch.float32).remainder_(997).sub_(498)
        columns = torch.arange(width, dtype=torch.float32).remainder_(13).sub_(6)
        self.embedding = nn.Embedding(words, width, _weight=torch.outer(rows, columns).mul_(1e-3))
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, words, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x):
        return self.output(torch.relu(self.hidden(self.embedding(x).mean(1))))


def build(words=%d, width=%d):
    torch.manual_seed(0)
    return Net(words, width), torch.zeros(1, 4, dtype=torch.int64)
"""

# Each part runs in a process of its own, so that peak memory is its own.
EXPORT = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from sparsepack.compressor.checkpoint import (
    FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint, make_tensor,
)
from sparsepack.exporters import export
from sparsepack.models.source import load_source

factory, target, format = sys.argv[1:]
source = load_source(factory + ":build", allow_import=True)
tensors = []
for name, value in source.build().state_dict().items():
    array = value.numpy()
    if name == "hidden.weight":
        mask = np.random.default_rng(0).random(array.shape) < 0.1
        tensors.append(make_tensor(name, array, mask=mask, record={"role": "prunable"}))
    elif name == "output.weight":
        tensors.append(make_tensor(name, array, record={"alias_of": "embedding.weight"}))
    else:
        tensors.append(make_tensor(name, array))
metadata = CheckpointMetadata(
    FORMAT, VERSION, source.record, {}, Provenance({}, 0, 1, "cpu"), [tensor.record for tensor in tensors]
)
checkpoint = SparseCheckpoint(metadata, {tensor.record.name: tensor for tensor in tensors})
begin = time.perf_counter()
artifact = export(checkpoint, format, Path(target), source=source)
print(json.dumps({"export_seconds": round(time.perf_counter() - begin, 1), "bytes": artifact.size,
                  "files": len(artifact.files()),
                  "export_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""

RUN = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from sparsepack.exporters import open_artifact
from sparsepack.runtimes import RUNTIMES

artifact = open_artifact(Path(sys.argv[1]))
artifact.verify()
counted = sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values())
assert counted == artifact.size, (counted, artifact.size)
begin = time.perf_counter()
session = RUNTIMES["onnxruntime-cpu"].load(artifact, threads=1)
seconds = time.perf_counter() - begin
output = session.run(np.arange(8, dtype=np.int64).reshape(2, 4))
print(json.dumps({"load_seconds": round(seconds, 1), "output": [float(x) for x in output[:, :3].reshape(-1)],
                  "run_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def main() -> None:
    """Run the parts and write the record."""
    options = arguments(__doc__, words=263_000, width=2048)
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        factory = Path(folder) / "big.py"
        factory.write_text(FACTORY % (options.words, options.width))
        for format in ("onnx", "onnx-unpack"):
            path = Path(folder) / format / "model.onnx"
            figures[format] = in_child(EXPORT, str(factory), str(path), format) | in_child(RUN, str(path))
            for file in path.parent.iterdir():
                file.unlink()
    outputs = [part.pop("output") for part in figures.values()]
    write(options.json, {"words": options.words, "width": options.width, "equal": outputs[0] == outputs[1], **figures})


if __name__ == "__main__":
    main()
