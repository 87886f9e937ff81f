"""Fine-tuning of coded values: a checkpoint whose weights share values, trained on data, as a new checkpoint.

In: a checkpoint, a value type with codes, the network and data. Out: a checkpoint whose weights are codes already, so
that exporting it with the same value type rounds nothing more, and the accuracy at every stage. Codes never change;
what is trained are the codebooks' entries or the scales (:mod:`..compressor.training.shared_values`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, dense_tensor
from ..errors import DataError, UnsupportedError, UsageError
from ..files import Array, numpy_dtype, sha256_array
from .materialise import plain_checkpoint
from .parts import VALUES, Part, parts, stored_units
from .quantise import INT8_LIMIT, shorten_entries, shorten_scales
from .value_types import INT8, parse_values

if TYPE_CHECKING:
    from ..compressor.progress import Progress
    from ..compressor.training.shared_values import SharedValues
    from ..compressor.training.trainer import Trainer
    from ..models.dataset import Dataset
    from ..models.source import ModelSource

# One learning rate for every table: its unit is an eighth of a codebook's mean spacing, and of what moves the largest
# weight of a channel by one step of its scale.
_RATE = 0.05
_SHARE = 0.125
_BATCH = 64
_POOL = ":pool"


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning came to.

    Attributes:
        checkpoint: with the tuned values.
        before: test accuracy of the checkpoint as it was; None without test examples.
        coded: with its values coded, before any training.
        after: with the values of ``checkpoint``, as an artifact decodes them.
        epochs: of training.
    """

    checkpoint: SparseCheckpoint
    before: float | None
    coded: float | None
    after: float | None
    epochs: int


def finetune_values(
    checkpoint: SparseCheckpoint,
    values: str,
    *,
    source: ModelSource,
    data: Dataset | None,
    epochs: int,
    threads: int = 1,
    progress: Progress | None = None,
) -> FineTuned:
    """Code a checkpoint's weights and train the shared values.

    Args:
        checkpoint: of a network that torch builds.
        values: ``int8`` or ``codebook:BITS``.
        source: the network.
        data: to train and test on.
        epochs: passes over the training split, at least one.
        threads: that torch may use; sums depend on it.
        progress: told of steps.

    Raises:
        UsageError: the value type has nothing to train, or the network is an ONNX file.
        DataError: there is no data.
        UnsupportedError: no weight can be coded.
        TrainingDivergedError: the loss is not finite.
    """
    import torch

    from ..compressor.training.devices import deterministic
    from ..compressor.training.evaluation import test_accuracy
    from ..models.source import TorchSource
    from ..models.tensors import to_torch

    if not parse_values(values, VALUES).coded:
        raise UsageError(f"--finetune-values trains codebooks and scales; --values {values} has none.")
    if not isinstance(source, TorchSource):
        raise UsageError("--finetune-values trains a network that PyTorch builds; an ONNX file is not one.")
    if data is None:
        raise DataError("--finetune-values needs data to train on; the run had none, so name it with --data.")
    data = data.fitted(source.record)
    device = torch.device("cpu")
    checkpoint = plain_checkpoint(checkpoint)
    coded = {part.entry.name: part for part in parts(checkpoint, values)}
    if not any(part.coded is not None for part in coded.values()):
        raise UnsupportedError("this checkpoint stores no weights that could be coded; leave --finetune-values out.")
    module = source.build()

    def accuracy(state: Mapping[str, Array]) -> float | None:
        module.load_state_dict({name: to_torch(array) for name, array in state.items()})
        return test_accuracy(module, data, device)

    with deterministic(threads, device):
        before = accuracy(checkpoint.dense_state())
        at_once = accuracy(_decoded(checkpoint, coded))
        dynamics = _shared_values(module, coded)
        seed = checkpoint.metadata.provenance.seed
        _train(module, data, dynamics, epochs, seed, progress)
        tuned = _rewritten(checkpoint, values, epochs, coded, dynamics, _buffers(module, checkpoint))
        after = accuracy(_decoded(tuned, {part.entry.name: part for part in parts(tuned, values)}))
    return FineTuned(tuned, before, at_once, after, epochs)


def _train(
    module: Any, data: Dataset, dynamics: SharedValues, epochs: int, seed: int, progress: Progress | None
) -> None:
    import torch

    from ..compressor.settings import TrainSettings
    from ..compressor.training.trainer import Trainer

    settings = TrainSettings(optimiser="adam", learning_rate=_RATE, weight_decay=0.0, epochs=epochs, batch_size=_BATCH)
    trainer = Trainer(module, data, settings, dynamics, seed=seed, device=torch.device("cpu"))
    if progress is not None:
        progress.stage("fine-tune values", trainer.total_steps)
    trainer.run(_Watch(progress))
    trainer.facts()


class _Watch:
    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def after_step(self, trainer: Trainer) -> None:
        if self._progress is not None:
            self._progress.advance()

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        """Nothing is logged."""


def _key(part: Part) -> str:
    return _POOL if part.coded is not None and part.coded.pooled else part.entry.name


def _members(part: Part) -> tuple[Array, Array | None]:
    """Return the table entry of each stored value, and its factor."""
    if part.coded is None:
        raise ValueError(f"'{part.entry.name}' has no codes.")
    if part.coded.kind == INT8:
        return stored_units(part.entry, part.mask), part.coded.codes.astype(np.float32)
    return part.coded.codes.astype(np.int64), None


def _shared_values(module: Any, coded: Mapping[str, Part]) -> SharedValues:
    import torch

    from ..compressor.training.shared_values import SharedValues, Sharing

    sharings, tables, steps = {}, {}, {}
    for name, part in coded.items():
        if part.coded is None:
            continue
        members, factors = _members(part)
        flat = np.arange(part.entry.size) if part.mask is None else np.flatnonzero(part.mask)
        sharings[name] = Sharing(
            _key(part),
            torch.from_numpy(flat),
            torch.from_numpy(members),
            None if factors is None else torch.from_numpy(factors),
        )
        table = part.coded.table.astype(np.float32)
        tables[_key(part)] = torch.from_numpy(table)
        spacing = table / INT8_LIMIT if part.coded.kind == INT8 else np.ptp(table) / max(1, table.size - 1)
        steps[_key(part)] = torch.from_numpy(np.asarray(_SHARE * spacing, np.float32))
    return SharedValues(module, sharings, tables, steps)


def _buffers(module: Any, checkpoint: SparseCheckpoint) -> dict[str, Array]:
    """Return the statistics that training has moved."""
    from ..compressor.training.weights import state_arrays

    state = state_arrays(module)
    return {
        name: state[name].copy()
        for name, tensor in checkpoint.tensors.items()
        if tensor.record.role == "buffer" and tensor.record.alias_of is None
    }


def _decoded(checkpoint: SparseCheckpoint, coded: Mapping[str, Part]) -> dict[str, Array]:
    """Return the dense state as an artifact with these parts decodes it."""
    dense: dict[str, Array] = {}
    for name, tensor in checkpoint.tensors.items():
        part = coded[name]
        if tensor.record.alias_of is not None:
            continue
        values = None if part.values is None else part.values.astype(numpy_dtype(tensor.record.dtype), copy=False)
        whole = part.mask is None and values is not None
        dense[name] = (
            values.reshape(tensor.record.shape)
            if whole and values is not None
            else dense_tensor(tensor.record, tensor.mask, values)
        )
    return {name: dense[t.record.alias_of or name] for name, t in checkpoint.tensors.items()}


def _rewritten(
    checkpoint: SparseCheckpoint,
    values: str,
    epochs: int,
    coded: Mapping[str, Part],
    dynamics: SharedValues,
    buffers: Mapping[str, Array],
) -> SparseCheckpoint:
    """Return the checkpoint with tuned weights, and with the statistics that belong to them."""
    tensors: dict[str, SparseTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        part = coded[name]
        if part.coded is not None and tensor.values is not None:
            table = dynamics.table(_key(part)).numpy()
            members, factors = _members(part)
            if factors is None:
                new = shorten_entries(table.astype(part.coded.table.dtype))[members]
            else:
                new = shorten_scales(table)[members] * factors
            new = new.astype(tensor.values.dtype).reshape(tensor.values.shape)
        elif name in buffers:
            new = buffers[name]
        else:
            tensors[name] = tensor
            continue
        digest = sha256_array(dense_tensor(tensor.record, tensor.mask, new))
        record = msgspec.structs.replace(tensor.record, sha256=digest)
        tensors[name] = SparseTensor(record, tensor.mask, new)
    metadata = msgspec.structs.replace(
        checkpoint.metadata,
        recipe={**checkpoint.metadata.recipe, "finetune_values": {"values": values, "epochs": epochs}},
        tensors=[tensor.record for tensor in tensors.values()],
    )
    return SparseCheckpoint(metadata, tensors)
