"""Images in folders, one folder a class: ``DIR/train/cat/1.png`` ..., or ``DIR/cat/1.png`` and a split made here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import Array
from .seeding.shuffle import permutation

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Without a split of its own, one image in five of each class is for testing.
_TEST_SHARE = 5


def read_folder(folder: Path) -> tuple[tuple[Array, Array, Array, Array], int]:
    """Read every image below ``folder``; classes are numbered in the order of their folders' names.

    With subfolders ``train`` and ``test`` these are the splits. Otherwise a fifth of each class, drawn with seed 0
    whatever the run's seed is, is the test split: measuring later must not meet images that were trained on.

    Returns:
        x_train, y_train, x_test, y_test (uint8 [N, C, H, W]; one channel if every image is grey, else three), and the
        number of classes.

    Raises:
        DataError: no such folder, no images, unequal sizes, unequal classes, an unreadable image, or no Pillow.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with a subfolder for each class.")
    train, test = folder / "train", folder / "test"
    if train.is_dir() != test.is_dir():
        there, missing = (train, test) if train.is_dir() else (test, train)
        raise DataError(f"{there} is there but {missing} is not; give both, or neither.")
    if train.is_dir():
        splits = [_files_by_class(train), _files_by_class(test)]
        if list(splits[0]) != list(splits[1]):
            only = sorted(set(splits[0]) ^ set(splits[1]))
            raise DataError(f"{train} and {test} must hold the same classes; '{only[0]}' is in one of them only.")
    else:
        splits = _split(_files_by_class(folder))
    classes = list(splits[0])
    paths = [path for split in splits for files in split.values() for path in files]
    images = _read_images(paths)
    labels = np.array([classes.index(name) for split in splits for name, files in split.items() for _ in files])
    count = sum(map(len, splits[0].values()))
    return (images[:count], labels[:count], images[count:], labels[count:]), len(classes)


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {
        place.name: sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        for place in folders
    }
    empty = [name for name, files in found.items() if not files]
    if not found or empty:
        where = folder / empty[0] if empty else folder
        raise DataError(f"{where} holds no {'images' if empty else 'folders of images, one for each class'}.")
    return found


def _split(files: dict[str, list[Path]]) -> list[dict[str, list[Path]]]:
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise DataError(f"the class '{name}' has one image only; two are needed to make a train and a test split.")
        order = permutation(0, f"split/{name}", len(paths))
        held_out = set(order[: max(1, len(paths) // _TEST_SHARE)].tolist())
        train[name] = [path for index, path in enumerate(paths) if index not in held_out]
        test[name] = [path for index, path in enumerate(paths) if index in held_out]
    return [train, test]


def _read_images(paths: list[Path]) -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading images needs Pillow; install it with: pip install 'sparsepack[images]'.") from error
    images: list[Array] = []
    with warnings.catch_warnings():
        # Pillow only warns of an image that unpacks to more than it should; here that is an error.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path in paths:
            try:
                with Image.open(path) as image:
                    grey = image.mode in ("1", "L")
                    images.append(np.asarray(image.convert("L" if grey else "RGB")))
            except (
                OSError,
                SyntaxError,
                ValueError,
                Image.DecompressionBombError,
                Image.DecompressionBombWarning,
            ) as error:
                raise DataError(f"cannot read the image {path}: {str(error).splitlines()[0]}.") from error
            if images[-1].shape[:2] != images[0].shape[:2]:
                sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (images[0], images[-1])]
                raise DataError(f"{paths[0]} is {sizes[0]} and {path} is {sizes[1]}; all images must be of one size.")
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, np.newaxis]
    coloured = [np.repeat(image[..., np.newaxis], 3, axis=2) if image.ndim == 2 else image for image in images]
    return np.ascontiguousarray(np.stack(coloured).transpose(0, 3, 1, 2))
