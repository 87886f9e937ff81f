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
from .coupling import Network
from .mask import BoolArray, empty_layers
from .methods import find_method
from .plans import Select, make_plan
from .rule import make_rule
from .saliency import UnitEvidence
from .scores import ScoreInputs, find_score
from .settings import PruneRecipe
from .structure import Channel, recorded_structure


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
        rule, sparsity = make_rule(recipe, list(prunable.values()), lambda: _network(source))
        # Of what goes with coupled units, the file's layers do not hold norm entries.
        arrays |= source.constants([name for name in rule.names if name not in arrays])
        weights = {name: arrays[name] for name in rule.names}
        whole = isinstance(rule.structure, Channel)
        axes = {tensor.name: tensor.output_axis for tensor in rule.space.tensors if whole}
        for stage in make_plan(recipe, method, sparsity):
            if isinstance(stage, Select):
                own = {name: weights[name] for name in rule.space.names}
                given = ScoreInputs(own, {}, recipe.seed, stage.number, recipe.options, axes=axes)
                scores = find_score(stage.score).compute(given)
                evidence = UnitEvidence({}, weights, {}, recipe.seed, stage.number)
                masks = rule.select(scores, stage.sparsity, masks or None, evidence)
                weights = {name: np.where(masks[name], array, array.dtype.type(0)) for name, array in weights.items()}
        # Biases and norm entries that went with their units are zeros like any other value.
        arrays |= {name: weights[name] for name in rule.names if name not in prunable}
        masks = {name: masks[name] for name in rule.space.names}
        warnings = rule.space.warnings + [f"layer '{name}' keeps no weight." for name in empty_layers(masks)]
    tensors = {}
    for name, array in arrays.items():
        fields: dict[str, Any] = {"role": "prunable" if name in prunable else "parameter"}
        if name in prunable:
            fields["output_axis"] = prunable[name].output_axis
        if name in masks:
            fields["structure"] = recorded_structure(recipe.structure)
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


def _network(source: OnnxSource) -> Network:
    from ..models.graph.coupled import couplings_of_file

    graph = couplings_of_file(source.path)
    found = source.constants([member.tensor for group in graph.groups for member in group.members])
    return Network(graph, {name: array.shape for name, array in found.items() if name not in graph.statistics})
