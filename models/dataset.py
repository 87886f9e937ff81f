"""A data set in memory: arrays as they are stored, and batches that depend on nothing but (seed, epoch).

In: two splits of images (uint8 or float), feature vectors or token ids, with integer labels. Out: normalised batches.
Guaranteed: ``batches`` is a pure function of its arguments, whatever was called before and whatever the batch size is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import DataError, unknown_name
from ..files import Array
from .augment import AUGMENTATIONS
from .seeding.shuffle import permutation
from .source import InputSpec, ModelRecord

Split = Literal["train", "test"]

# Below this a split is normalised once and kept; above, each batch is converted from its stored bytes.
_RESIDENT_BYTES = 1 << 30


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel of the training split, in units of [0, 1].

    A uint8 value v becomes (v - 255 mean) / (255 std), computed in float32.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples; :func:`sparsepack.models.data.make_dataset` builds one and checks it.

    Attributes:
        name: what the user typed.
        train_inputs: array [N, *input_spec.shape] as stored (uint8, float or int64).
        train_labels: integers [N] in [0, classes).
        test_inputs: as ``train_inputs``.
        test_labels: as ``train_labels``.
        classes: number of classes.
        input_spec: what a network receives.
        normalise: for uint8 inputs; None for others, which are taken as they are.
        augment: a name in ``models.augment.AUGMENTATIONS``, or None.
        vocabulary: for token ids, one more than the largest; None otherwise.
    """

    name: str
    train_inputs: Array
    train_labels: Array
    test_inputs: Array
    test_labels: Array
    classes: int
    input_spec: InputSpec
    normalise: Normalisation | None = None
    augment: str | None = None
    vocabulary: int | None = None
    _resident: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @property
    def model_options(self) -> dict[str, Any]:
        """What a zoo model is to be built for: ``input_shape``, ``classes``, and ``vocabulary`` for token ids."""
        options: dict[str, Any] = {"input_shape": list(self.input_spec.shape), "classes": self.classes}
        return options if self.vocabulary is None else {**options, "vocabulary": self.vocabulary}

    def batches(
        self,
        split: Split,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        device: str | torch.device = "cpu",
        augment: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch as (inputs, labels), in :meth:`steps` batches; the last one holds what is left.

        Args:
            split: ``train`` or ``test``.
            batch_size: examples a batch.
            seed: the run's seed.
            epoch: number of the epoch; each has an order and augmentations of its own.
            shuffle: whether to draw an order; otherwise the stored one.
            device: where the batches are put.
            augment: whether training examples are augmented as the data set says.

        Yields:
            inputs of ``input_spec``'s dtype, normalised, and int64 labels.
        """
        inputs, labels = self._split(split)
        order = epoch_order(seed, epoch, len(labels)) if shuffle else np.arange(len(labels))
        if self.augment is not None and augment and split == "train":
            yield from self._augmented(order, batch_size, seed, epoch, torch.device(device))
        elif inputs.size * 4 <= _RESIDENT_BYTES:
            all_inputs, all_labels = self._prepared(split, torch.device(device))
            indices = torch.from_numpy(order).to(device)
            for begin, end in _spans(len(order), batch_size):
                chosen = indices[begin:end]
                yield all_inputs.index_select(0, chosen), all_labels.index_select(0, chosen)
        else:
            for begin, end in _spans(len(order), batch_size):
                places = order[begin:end]
                stored = torch.from_numpy(np.ascontiguousarray(inputs[places])).to(device)
                yield self._finished(stored), _as_labels(labels[places]).to(device)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches in an epoch of the training split."""
        return len(self.spans(batch_size))

    def spans(self, batch_size: int) -> list[tuple[int, int]]:
        """Return begin and end of every batch in an epoch's order of the training split."""
        return _spans(len(self.train_labels), batch_size)

    def subset(self, examples: npt.NDArray[np.int64]) -> Dataset:
        """Return the data with these training examples alone, by index; the test split stays."""
        return replace(self, train_inputs=self.train_inputs[examples], train_labels=self.train_labels[examples])

    def test(self) -> tuple[Tensor, Tensor]:
        """Return the whole test split on the CPU: normalised inputs and int64 labels; not to be changed in place."""
        return self._prepared("test", torch.device("cpu"))

    def shaped(self, shape: Sequence[int]) -> Dataset:
        """Return the data with inputs of ``shape``, where one axis of extent 1 is all that is too many; else itself.

        Arrays [N, A, B] are taken for images of one channel until a network says that it takes series [A, B].

        Args:
            shape: of one input; -1 fits any extent.
        """
        own = self.input_spec.shape
        if _fits(shape, own) or own[:1] != (1,) or not _fits(shape, own[1:]):
            return self
        spec = InputSpec(self.input_spec.name, own[1:], self.input_spec.dtype)
        return replace(self, train_inputs=self.train_inputs[:, 0], test_inputs=self.test_inputs[:, 0], input_spec=spec)

    def fitted(self, record: ModelRecord) -> Dataset:
        """Return the data as a network takes it; see :meth:`shaped`.

        Raises:
            DataError: shape, dtype, number of classes or token ids do not fit; it says both sides.
        """
        found = self.shaped(record.inputs[0].shape) if len(record.inputs) == 1 else self
        found._check_fits(record)
        return found

    def _check_fits(self, record: ModelRecord) -> None:
        if len(record.inputs) != 1:
            raise DataError(f"'{record.text}' has {len(record.inputs)} inputs; the data '{self.name}' has one.")
        wanted, got = record.inputs[0], self.input_spec
        if not _fits(wanted.shape, got.shape) or wanted.dtype != got.dtype:
            raise DataError(
                f"the data '{self.name}' has inputs of shape {got.shape}, {got.dtype}; '{record.text}' takes "
                f"{wanted.shape}, {wanted.dtype}."
            )
        classes = record.options.get("classes")
        if classes is not None and classes != self.classes:
            hint = (
                " Labels that leave classes out need their number beside them: 'classes' in the npz file or the dict."
            )
            raise DataError(
                f"the data '{self.name}' has {self.classes} classes; '{record.text}' has {classes}."
                f"{hint if self.classes < classes else ''}"
            )
        known = record.options.get("vocabulary")
        if known is not None and self.vocabulary is not None and self.vocabulary > known:
            raise DataError(
                f"the data '{self.name}' has token ids up to {self.vocabulary - 1}; '{record.text}' knows {known}."
            )

    def _split(self, split: str) -> tuple[Array, Array]:
        if split == "train":
            return self.train_inputs, self.train_labels
        if split == "test":
            return self.test_inputs, self.test_labels
        raise unknown_name("split", split, ("train", "test"))

    def _prepared(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        key = (split, str(device))
        if key in self._resident:
            return self._resident[key]
        inputs, labels = self._split(split)
        prepared = self._finished(_as_tensor(inputs).to(device)), _as_labels(labels).to(device)
        if inputs.size * 4 <= _RESIDENT_BYTES:
            self._resident[key] = prepared
        return prepared

    def _finished(self, stored: Tensor) -> Tensor:
        """Convert stored values to what the network receives."""
        dtype: torch.dtype = getattr(torch, self.input_spec.dtype)
        if self.normalise is None:
            return stored.to(dtype, copy=True)
        shape = (1, -1, *[1] * (stored.dim() - 2)) if stored.dim() > 2 else (1, 1)
        mean, std = (
            torch.tensor(values, dtype=torch.float64, device=stored.device).mul(255).to(dtype).reshape(shape)
            for values in (self.normalise.mean, self.normalise.std)
        )
        return stored.to(dtype).sub_(mean).div_(std)

    def _augmented(
        self, order: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        transform = AUGMENTATIONS[str(self.augment)](seed, epoch, len(order))
        for begin, end in _spans(len(order), batch_size):
            chosen = order[begin:end]
            stored = torch.from_numpy(np.ascontiguousarray(self.train_inputs[chosen])).to(device)
            yield self._finished(transform(stored, chosen)), _as_labels(self.train_labels[chosen]).to(device)


def _fits(wanted: Sequence[int], got: Sequence[int]) -> bool:
    return len(wanted) == len(got) and all(a in (-1, b) for a, b in zip(wanted, got, strict=True))


def epoch_order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch's batches take ``count`` examples."""
    return permutation(seed, f"order/{epoch}", count)


def _spans(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut ``count`` examples into batches; a single one that is left over joins the last batch.

    Batch normalisation cannot train on a single example.
    """
    begins = list(range(0, count, batch_size))
    if len(begins) > 1 and batch_size > 1 and count - begins[-1] == 1:
        begins.pop()
    return list(zip(begins, [*begins[1:], count], strict=True))


def _as_tensor(array: Array) -> Tensor:
    plain = np.ascontiguousarray(array)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def _as_labels(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.int64))
