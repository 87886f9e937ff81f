"""One line of the zoo's table, and the small checks that its builders share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Integral
from typing import TYPE_CHECKING

from ...errors import ModelError, UsageError, near_miss

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ZooEntry:
    """A network that can be built by name.

    Attributes:
        family: the file in this folder that builds it.
        function: the builder's name in that file.
        input_shape: the shape that it was published for, without the batch axis.
        classes: the number of classes that it was published for.
        summary: one line for a listing.
        input_dtype: ``float32``, or ``int64`` for token ids.
        options: further numbers that the builder takes, with their defaults (``vocabulary``: ids are below it).
    """

    family: str
    function: str
    input_shape: tuple[int, ...]
    classes: int
    summary: str
    input_dtype: str = "float32"
    options: Mapping[str, int] = field(default_factory=dict)

    def build(
        self, input_shape: tuple[int, ...] | None = None, classes: int | None = None, **options: int
    ) -> tuple[nn.Module, list[str]]:
        """Build the network.

        Args:
            input_shape: shape of one input; None for the published one.
            classes: number of classes; None for the published one.
            options: any of :attr:`options`.

        Returns:
            a fresh module in training mode, and what was changed to fit it, one sentence each.

        Raises:
            ModelError: the network cannot take this shape.
            UsageError: an option that this network does not have.
        """
        shape = self.input_shape if input_shape is None else tuple(input_shape)
        count = self.classes if classes is None else classes
        for option, value in options.items():
            if option not in self.options:
                takes = f"takes {', '.join(self.options)}" if self.options else "takes none"
                raise UsageError(f"this network has no option '{option}'; it {takes}.{near_miss(option, self.options)}")
            if not _positive(value):
                raise UsageError(f"the option '{option}' is a positive whole number, not {value!r}.")
        if not shape or not all(map(_positive, (*shape, count))):
            raise ModelError(
                f"no network takes the input shape {shape} and {count} classes; these are positive whole numbers."
            )
        builder = import_module(f".{self.family}", __package__)
        module, adaptations = getattr(builder, self.function)(shape, count, **{**self.options, **options})
        return module, adaptations + changed("The last layer gives", "class", "classes", count, self.classes)


def _positive(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Raises:
        ModelError: the shape is not that of an image.
    """
    if len(shape) != 3:
        raise ModelError(
            f"this network takes images of shape (channels, height, width), the data has the shape {shape}; choose a "
            "network for it, such as lenet-300-100, which takes any shape."
        )
    return shape[0], shape[1], shape[2]


def changed(what: str, unit: str, units: str, got: int, published: int) -> list[str]:
    """Return the sentence that a layer takes or gives another number than published, or nothing when it does not."""
    return [] if got == published else [f"{what} {got} {unit if got == 1 else units} instead of {published}."]


def padding_to(smallest: int, height: int, width: int) -> tuple[tuple[int, int, int, int], list[str]]:
    """Return the zero padding (left, right, top, bottom) up to ``smallest``, and the sentence that says so."""
    missing_h, missing_w = max(0, smallest - height), max(0, smallest - width)
    padding = (missing_w // 2, missing_w - missing_w // 2, missing_h // 2, missing_h - missing_h // 2)
    if not any(padding):
        return padding, []
    return padding, [
        f"The {height}x{width} input is padded with zeros to {height + missing_h}x{width + missing_w}, the smallest "
        "size that the convolutions and pools can take."
    ]
