"""Data by name: ``digits``, a file or folder in a usual format, or a user's own factory.

The embedded ``digits`` are the UCI "Optical Recognition of Handwritten Digits" test set (E. Alpaydin and C. Kaynak,
1998, CC BY 4.0; the copy that scikit-learn ships as digits.csv.gz): 1,797 images of 8x8 pixels with values 0 to 16.
They are split 1,437/360 once and for all: in the order of ``permutation(0, "digits", 1797)`` the first images of each
class are for testing, as many as its share of 360 (largest remainders), and both parts keep the file's order. Source
and licence also stand in the npz file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UnknownNameError, UsageError, near_miss
from ..files import Array
from .checked_data import make_dataset
from .dataset import Dataset, Normalisation
from .factory import is_factory, load_factory
from .image_folder import read_folder
from .readers import read_cifar10, read_idx_folder, read_npz
from .tensors import to_numpy

__all__ = ["Dataset", "Normalisation", "load_data", "make_dataset"]

_Read = tuple[tuple[Array, Array, Array, Array], int | None]

# Prefix -> (what follows it, its reader).
_FORMATS: dict[str, tuple[str, Callable[[Path], _Read]]] = {
    "npz": ("FILE", read_npz),
    "idx": ("DIR", lambda folder: (read_idx_folder(folder), None)),
    "cifar10": ("DIR", lambda folder: (read_cifar10(folder), 10)),
    "folder": ("DIR", read_folder),
}
CHOICES = ("digits", *(f"{prefix}:{operand}" for prefix, (operand, _) in _FORMATS.items()), "file.py:factory", "none")


def load_data(text: str, *, augment: str | None = None, allow_import: bool = True) -> Dataset | None:
    """Read the data that ``text`` names.

    No seed goes in: the same text gives the same training and test split in every run, so that what one command trained
    on is never what another measures with.

    Args:
        text: one of :data:`CHOICES`.
        augment: a name in ``models.augment.AUGMENTATIONS``, for training batches; None for no augmentation.
        allow_import: whether a factory may be imported, that is, whether the user named it.

    Returns:
        the data; None for ``none``.

    Raises:
        UsageError: the text names nothing, or a factory that may not be imported.
        DataError: the data cannot be read, or is no data set.
    """
    if text == "none":
        return None
    prefix, _, rest = text.partition(":")
    if text == "digits":
        arrays, classes = read_npz(Path(__file__).with_name("digits.npz"))
    elif prefix in _FORMATS and rest:
        arrays, classes = _FORMATS[prefix][1](Path(rest).expanduser())
    elif is_factory(text):
        if not allow_import:
            raise UsageError(
                f"the data '{text}' is code of yours, which is run only when you name it; give --data {text}."
            )
        return _from_factory(text, augment)
    else:
        raise UnknownNameError(
            f"unknown data '{text}'.{near_miss(text, ('digits', 'none'))} Choose from: {', '.join(CHOICES)}."
        )
    return make_dataset(text, *arrays, classes=classes, augment=augment)


def _from_factory(text: str, augment: str | None) -> Dataset:
    returned: Any = load_factory(text, DataError)()
    classes = None
    if isinstance(returned, Dataset):
        augment = augment or returned.augment
        classes = returned.classes
        returned = (returned.train_inputs, returned.train_labels, returned.test_inputs, returned.test_labels)
    if isinstance(returned, Mapping):
        missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in returned]
        if missing:
            raise DataError(f"{text} returned a dict without {', '.join(missing)}.")
        classes = returned.get("classes")
        if classes is not None and not isinstance(classes, (int, np.integer)):
            raise DataError(f"{text} returned {classes!r} for 'classes', which must be one whole number.")
        returned = tuple(returned[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    if not isinstance(returned, tuple) or len(returned) != 4:
        raise DataError(
            f"{text} returned a {type(returned).__name__}; expected a Dataset, a dict with x_train, y_train, x_test "
            "and y_test, or a tuple of these four arrays."
        )
    return make_dataset(text, *(_as_array(text, part) for part in returned), classes=classes, augment=augment)


def _as_array(text: str, value: Any) -> Array:
    """Accept arrays and CPU tensors."""
    if hasattr(value, "detach"):
        value = to_numpy(value)
    if not isinstance(value, np.ndarray):
        raise DataError(f"{text} returned a {type(value).__name__} where an array was expected.")
    return value
