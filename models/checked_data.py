"""Arrays from a file or a user, checked and made into a data set; the one place that decides what an array means."""

from __future__ import annotations

import math

import numpy as np

from ..errors import DataError, unknown_name
from ..files import Array
from .augment import AUGMENTATIONS
from .dataset import Dataset, Normalisation
from .source import InputSpec

# Images whose sums are taken at once; a small block stays in the cache.
_BLOCK = 64
# Classes and token ids are counted, and a layer is built for each: what lies beyond is no number of these.
_NUMBERS = 2**24


def make_dataset(
    name: str,
    train_inputs: Array,
    train_labels: Array,
    test_inputs: Array,
    test_labels: Array,
    *,
    classes: int | None = None,
    augment: str | None = None,
) -> Dataset:
    """Check arrays and build a data set of them.

    Images are uint8 or float [N, H, W] or [N, C, H, W], volumes [N, C, D, H, W]; feature vectors uint8 or float [N, F];
    token ids any other integers [N, T]. A network may take [N, A, B] as series (:meth:`.dataset.Dataset.shaped`). uint8
    values are normalised with the training split's mean and deviation, floats are taken as they are.

    Args:
        name: what to call it in messages.
        train_inputs: inputs of the training split.
        train_labels: integers [N].
        test_inputs: inputs of the test split.
        test_labels: integers [N].
        classes: number of classes; None for one more than the largest label.
        augment: a name in ``models.augment.AUGMENTATIONS``.

    Raises:
        DataError: the arrays do not form a data set.
    """
    labels = [
        _checked_labels(name, part, array) for part, array in (("y_train", train_labels), ("y_test", test_labels))
    ]
    inputs = [
        _checked_inputs(name, part, array) for part, array in (("x_train", train_inputs), ("x_test", test_inputs))
    ]
    for part, (x, y) in zip(("train", "test"), zip(inputs, labels, strict=True), strict=True):
        if len(x) != len(y) or not len(x):
            raise DataError(f"the data '{name}' has {len(x)} inputs and {len(y)} labels in its {part} split.")
    if inputs[0].shape[1:] != inputs[1].shape[1:] or inputs[0].dtype != inputs[1].dtype:
        raise DataError(
            f"the data '{name}' has training inputs of {inputs[0].dtype} {inputs[0].shape[1:]} and test inputs of "
            f"{inputs[1].dtype} {inputs[1].shape[1:]}; they must be alike."
        )
    highest = max(int(y.max()) for y in labels) + 1
    if classes is not None and classes < highest:
        raise DataError(f"the data '{name}' has the label {highest - 1} but is said to have {classes} classes.")
    x_train, x_test = inputs
    tokens = x_train.dtype.kind == "i"
    if augment is not None:
        if augment not in AUGMENTATIONS:
            raise unknown_name("augmentation", augment, AUGMENTATIONS)
        if x_train.ndim != 4:
            raise DataError(f"the augmentation '{augment}' is for images; '{name}' has inputs {x_train.shape[1:]}.")
    return Dataset(
        name=name,
        train_inputs=x_train,
        train_labels=labels[0],
        test_inputs=x_test,
        test_labels=labels[1],
        classes=classes or highest,
        input_spec=InputSpec("input", x_train.shape[1:], "int64" if tokens else "float32"),
        normalise=channel_statistics(x_train) if x_train.dtype == np.uint8 else None,
        augment=augment,
        vocabulary=max(int(x.max()) for x in inputs) + 1 if tokens else None,
    )


def channel_statistics(images: Array) -> Normalisation:
    """Return mean and deviation of each channel of uint8 images [N, C, ...] (or of all values of [N, F]).

    Sums are whole numbers, so the result depends on no order of summation. A constant channel has deviation 1.
    """
    channels = images.reshape(*images.shape[:2], -1) if images.ndim > 2 else images[:, np.newaxis]
    count = channels.shape[0] * channels.shape[2]
    first, second = np.zeros((2, channels.shape[1]), np.int64)
    for begin in range(0, len(channels), _BLOCK):
        block = channels[begin : begin + _BLOCK]
        first += block.sum(axis=(0, 2), dtype=np.int64)
        wide = block.astype(np.uint16)
        wide *= wide
        second += wide.sum(axis=(0, 2), dtype=np.int64)
    # Python's whole numbers do not overflow; a constant channel comes out as exactly zero here.
    spread = [count * int(squares) - int(total) ** 2 for total, squares in zip(first, second, strict=True)]
    return Normalisation(
        tuple(int(total) / count / 255 for total in first), tuple(s**0.5 / count / 255 or 1.0 for s in spread)
    )


def _checked_labels(name: str, part: str, labels: Array) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"the data '{name}': {part} must be whole numbers [N]; it is {labels.dtype} {labels.shape}.")
    _check_range(name, part, labels, "label")
    return labels.astype(np.int64)


def _check_range(name: str, part: str, numbers: Array, what: str) -> None:
    if numbers.size and int(numbers.min()) < 0:
        raise DataError(f"the data '{name}': {part} has the negative {what} {int(numbers.min())}.")
    if numbers.size and int(numbers.max()) >= _NUMBERS:
        raise DataError(f"the data '{name}': {part} has the {what} {int(numbers.max())}; they end at {_NUMBERS - 1}.")


def _checked_inputs(name: str, part: str, inputs: Array) -> Array:
    if inputs.ndim and not math.prod(inputs.shape[1:]):
        raise DataError(f"the data '{name}': {part} of shape {inputs.shape} holds no number for an example.")
    if inputs.ndim == 2 and inputs.dtype.kind in "iu" and inputs.dtype != np.uint8:
        _check_range(name, part, inputs, "token id")
        return inputs.astype(np.int64)
    if inputs.ndim not in (2, 3, 4, 5) or not (inputs.dtype == np.uint8 or inputs.dtype.kind == "f"):
        raise DataError(
            f"the data '{name}': {part} is {inputs.dtype} {inputs.shape}; expected images (uint8 or float, [N, H, W] "
            "or [N, C, H, W]), volumes [N, C, D, H, W], series [N, length, features], feature vectors [N, F], or "
            "token ids (integers [N, T])."
        )
    if inputs.dtype.kind == "f":
        # What is too large for the network's float32 becomes infinite here, and is refused with what was.
        with np.errstate(over="ignore"):
            inputs = inputs.astype(np.float32, copy=False)
        # A sum is finite only if every value is; it needs no array of flags.
        if not np.isfinite(np.sum(inputs, dtype=np.float64)) and not np.isfinite(inputs).all():
            raise DataError(f"the data '{name}': {part} holds values that are not finite as float32.")
    return inputs[:, np.newaxis] if inputs.ndim == 3 else inputs
