"""A checkpoint as a torch module again: the network that its author builds, slimmed where it was, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ModelError, UsageError
from ..files import TensorFile
from .checkpoint import FORMAT, SparseCheckpoint
from .recipe_paths import is_checkpoint
from .settings import PruneRecipe

if TYPE_CHECKING:
    from torch import nn

    from ..models.source import TorchSource


def load(model_factory: Callable[[], Any], artifact: Path | str) -> nn.Module:
    """Return the network that a checkpoint holds, in training mode; nothing in the file is executed.

    Args:
        model_factory: builds the dense network (an ``nn.Module``, or a tuple that begins with one).
        artifact: a checkpoint: ``small.safetensors`` of ``compress slim``, or a run's ``checkpoint.safetensors``.

    Raises:
        FileFormatError: the file is no checkpoint, or it is damaged.
        HashMismatchError: a tensor is not the one that was written.
        ModelError: the checkpoint is not that of this network.
        UnsupportedError: the network's forward cannot be followed by torch.fx.
    """
    from torch import nn

    from ..models.examples import draw_inputs
    from ..models.slimming.kept import from_record
    from ..models.slimming.module import load_state, slim_module
    from ..models.tensors import to_torch

    checkpoint = SparseCheckpoint.load(Path(artifact))
    checkpoint.verify()
    built = model_factory()
    module = built[0] if isinstance(built, tuple) else built
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model factory returned a {type(module).__name__}; expected an nn.Module.")
    record = checkpoint.metadata.model
    if not isinstance(record.kept, msgspec.UnsetType):
        inputs = draw_inputs(record.inputs, 2, 0, vocabulary=record.options.get("vocabulary"))
        module = slim_module(module, from_record(record.kept), inputs)
    load_state(module, {name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    return module.train()


def checkpoint_source(recipe: PruneRecipe) -> TorchSource | None:
    """Return the network of the checkpoint that a recipe names as its model or weights; None when it names none.

    Raises:
        UsageError: the checkpoint's network is code that the recipe does not name, or an ONNX file.
        SparsepackError: the checkpoint cannot be read, or is not that of the named model.
    """
    from ..models.slimming.source import slimmed_source
    from ..models.source import OnnxSource, source_from_record

    if is_checkpoint(recipe.model):
        path, named = Path(recipe.model), None
    elif recipe.weights is not None and holds_checkpoint(Path(recipe.weights)):
        path, named = Path(recipe.weights), recipe.model
    else:
        return None
    checkpoint = SparseCheckpoint.load(path)
    checkpoint.verify()
    record = checkpoint.metadata.model
    if record.kind == "factory" and named is None:
        raise UsageError(
            f"{path} was made from code of yours, which runs only when you name it; give it as the model, and the file "
            f"as its weights: compress prune {record.text} --weights {path}."
        )
    source = source_from_record(record, named)
    if isinstance(source, OnnxSource):
        raise UsageError(f"{path} holds the weights of an ONNX file; export it to ONNX and prune that file.")
    return slimmed_source(source, {}, checkpoint.dense_state())


def holds_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint rather than plain tensors."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    metadata = TensorFile(path).metadata
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT
