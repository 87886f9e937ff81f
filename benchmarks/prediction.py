"""Predicted bytes and latency (``--dry-run``) against what came of the run, for zoo networks at several sparsities.

Networks for small images are trained on the embedded digits, dense, then pruned by global magnitude and fine-tuned for
an epoch. The others would take too long for that or, like Conv-6, do not learn from so few images: they are pruned as
they begin, kaiming-normal, which a prediction knows; theirs are a check of everything but the training. Latency is that
of the ``onnx`` artifact in ONNX Runtime, one thread, predicted before and measured after, both times what the machine
can do undisturbed. A network that the record holds already is not measured again.

    python benchmarks/prediction.py [--networks lenet-5-caffe,resnet-20] [--sparsities 0,0.5,0.9] [--epochs 10]

All networks take about half an hour; the large ones need 6 GB of memory.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import arguments, write
from tables_measure import SPARSITIES

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.exporters import export
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.inputs import example_inputs
from sparsepack.runtimes.measure.latency import time_undisturbed
from sparsepack.runtimes.rehearsal import rehearse

TRAINED = (
    *("lenet-300-100", "lenet-5-caffe", "lenet-s4", "conv-2", "conv-4"),
    *("resnet-20", "resnet-32", "resnet-56", "lstm"),
)
FORMATS = (("packed", "fp32"), ("onnx", "fp32"))
SECONDS = 1.0


def recipe_of(name: str, sparsity: float, epochs: int) -> PruneRecipe:
    """Return the run that is predicted and then carried out."""
    options: dict[str, Any] = {"threads": 1, "method": "magnitude" if sparsity else "dense"}
    if sparsity:
        options["sparsity"] = sparsity
    if name in TRAINED:
        options |= {"data": "digits", "epochs": epochs, "batch_size": 64}
        options |= {"fine_tune_epochs": 1} if sparsity else {}
    else:
        options |= {"data": "none", "init": "kaiming-normal"}
    return single_run(None, name, **options)


def outcome(recipe: PruneRecipe, folder: Path) -> dict[str, Any]:
    """Carry the run out, and return bytes by format and the milliseconds of the dense graph."""
    checkpoint = prune(recipe, folder / "run")
    figures: dict[str, Any] = {"bytes": {}}
    for format, values in FORMATS:
        artifact = export(checkpoint, format, folder / format, values=values)
        figures["bytes"][format] = artifact.size
        if format == "onnx":
            session = RUNTIMES["onnxruntime-cpu"].load(artifact, threads=1)
            run = partial(session.run, *example_inputs(artifact, session, 1))
            figures["ms"] = time_undisturbed(partial(partial, run), budget=SECONDS).median_ms
    return figures


def compared(name: str, sparsity: float, epochs: int) -> dict[str, Any]:
    """Predict one run, carry it out, and return both with their ratios."""
    recipe = recipe_of(name, sparsity, epochs)
    predicted = rehearse(recipe, FORMATS, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        found = outcome(recipe, Path(folder))
    size = {artifact.format: artifact.bytes for artifact in predicted.artifacts}
    ms = next(a.latency["onnxruntime-cpu"] for a in predicted.artifacts if a.format == "onnx")
    return {
        "trained": name in TRAINED,
        "predicted_bytes": size,
        "bytes": found["bytes"],
        "bytes_error": {key: round(value / (size[key] or 1) - 1, 4) for key, value in found["bytes"].items()},
        "predicted_ms": round(ms, 4),
        "ms": round(found["ms"], 4),
        "ms_error": round(found["ms"] / ms - 1, 4),
        "macs": predicted.macs,
    }


def main() -> None:
    """Compare what the record lacks and write it after every network."""
    given = arguments(__doc__, networks=",".join(ZOO), sparsities=",".join(SPARSITIES), epochs=10)
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    if given.json.exists():
        figures = json.loads(given.json.read_text())["figures"]
    for name in given.networks.split(","):
        for sparsity in given.sparsities.split(","):
            if sparsity in figures.get(name, {}):
                continue
            figures.setdefault(name, {})[sparsity] = compared(name, float(sparsity), given.epochs)
            print(name, sparsity, figures[name][sparsity], flush=True)
            write(given.json, figures)


if __name__ == "__main__":
    main()
