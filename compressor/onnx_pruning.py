"""Pruning an ONNX file's weights as they are: no training, no data, no torch network.

The checkpoint holds the constants that its Conv, Gemm and MatMul nodes read; everything else stays in the file, which
an exporter copies byte for byte.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from .. import __version__
from ..models.source import OnnxSource
from .checkpoint import FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint, make_tensor
from .mask import BoolArray, empty_layers
from .methods import find_method
from .plans import Select, make_plan
from .rule import make_rule
from .scores import ScoreInputs, find_score
from .settings import PruneRecipe


def prune_onnx(recipe: PruneRecipe, source: OnnxSource, threads: int) -> SparseCheckpoint:
    """Choose masks for an ONNX file's weights by a method that needs nothing but weights.

    Args:
        recipe: complete; its method has no needs (``recipe_defaults`` sees to that).
        source: the file.
        threads: recorded.

    Raises:
        UnsupportedError: nothing in it can be pruned with this structure.
    """
    method = find_method(recipe.method)
    arrays = source.tensors()
    prunable = {tensor.name: tensor for tensor in source.prunable()}
    masks: dict[str, BoolArray] = {}
    warnings: list[str] = []
    if method.mask_from is not None:
        rule, sparsity = make_rule(recipe, list(prunable.values()))
        weights = {name: arrays[name] for name in rule.space.names}
        for stage in make_plan(recipe, method, sparsity):
            if isinstance(stage, Select):
                scores = find_score(stage.score).compute(ScoreInputs(weights, seed=recipe.seed, draw=stage.number))
                masks = rule.select(scores, stage.sparsity, masks or None)
        warnings = rule.space.warnings + [f"layer '{name}' keeps no weight." for name in empty_layers(masks)]
    tensors = {}
    for name, array in arrays.items():
        fields: dict[str, Any] = {"role": "prunable" if name in prunable else "parameter"}
        if name in prunable:
            fields["output_axis"] = prunable[name].output_axis
        if name in masks:
            fields["structure"] = recipe.structure
        tensors[name] = make_tensor(name, array, mask=masks.get(name), record=fields)
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(recipe, threads=threads))
    metadata = CheckpointMetadata(
        format=FORMAT,
        version=VERSION,
        model=source.record,
        recipe=plain,
        provenance=Provenance({"sparsepack": __version__, "numpy": np.__version__}, recipe.seed, threads, "cpu"),
        tensors=[tensor.record for tensor in tensors.values()],
        warnings=warnings,
    )
    return SparseCheckpoint(metadata, tensors)
