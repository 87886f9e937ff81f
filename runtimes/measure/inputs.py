"""Inputs to measure with: the data's test split where there is one, otherwise seeded random arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UnsupportedError
from ...files import Array, numpy_dtype
from ...models.source import InputSpec, ModelRecord
from ..base import Session

if TYPE_CHECKING:
    from ...exporters.artifact import Artifact
    from ...models.data import Dataset


def seeded_inputs(specs: Sequence[InputSpec], batch: int, seed: int = 0, vocabulary: int = 2) -> tuple[Array, ...]:
    """Return one random array per input, shape [batch, *shape].

    Args:
        specs: the network's inputs; an open extent (-1) becomes 1.
        batch: extent of the first axis.
        seed: of the draw.
        vocabulary: integer inputs hold numbers below it; the default, 0 and 1, is valid as token ids, masks and
            segment numbers alike. Floating-point inputs are standard normal.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    arrays: list[Array] = []
    for spec in specs:
        dtype = numpy_dtype(spec.dtype)
        shape = (batch, *(max(extent, 1) for extent in spec.shape))
        if dtype.kind in "iub":
            arrays.append(generator.integers(0, 2 if dtype.kind == "b" else vocabulary, shape).astype(dtype))
        else:
            arrays.append(generator.standard_normal(shape, np.float32).astype(dtype))
    return tuple(arrays)


def varied(inputs: Sequence[Array], seed: int = 0) -> tuple[Array, ...]:
    """Let images differ in contrast and colour from one to the next, as photographs do; other inputs stay.

    A network averages plain noise away: its outputs hardly depend on which noise it sees, and a parity error in units
    of that dependence looks larger than it is.

    Args:
        inputs: one array an input; images are floating-point arrays [batch, channels, height, width].
        seed: of the draw.
    """
    generator = np.random.Generator(np.random.Philox(seed))

    def change(array: Array) -> Array:
        if array.ndim != 4 or array.dtype.kind != "f":
            return array
        contrast = generator.uniform(0.2, 2.0, (len(array), 1, 1, 1))
        colour = generator.standard_normal((*array.shape[:2], 1, 1))
        return (array * contrast + colour).astype(array.dtype)

    return tuple(change(array) for array in inputs)


def input_specs(artifact: Artifact) -> list[InputSpec]:
    """Return the network's inputs, from the artifact's model record or, for a foreign ONNX file, from its graph.

    Raises:
        UnsupportedError: the artifact says nothing about its inputs.
    """
    if artifact.model is not None:
        return list(artifact.model.inputs)
    if not artifact.is_graph:
        raise UnsupportedError(f"{artifact.path} does not say what its inputs look like; it cannot be run.")
    from ...models.onnx_file import OnnxFile
    from ...models.onnx_inputs import input_specs as graph_inputs

    return graph_inputs(OnnxFile(artifact.path))


def held_out(data: Dataset, limit: int | None = None) -> tuple[Array, Array]:
    """Return the test split as the network takes it, inputs and labels, at most ``limit`` examples."""
    inputs, labels = data.test()
    return inputs[:limit].numpy(), labels[:limit].numpy()


def calibration(data: str, record: ModelRecord, *, allow_import: bool = True) -> tuple[Array, ...] | None:
    """Return training examples, in a drawn order and not augmented, as the network takes them; None for no data.

    Args:
        data: as users type it.
        record: of the network.
        allow_import: whether a factory may be imported, that is, whether the user named it.

    Raises:
        UsageError: a factory that may not be imported.
        DataError: the data cannot be read or does not fit the network.
    """
    from ...exporters.onnx_int8 import EXAMPLES
    from ...models.data import load_data

    loaded = load_data(data, allow_import=allow_import)
    if loaded is None:
        return None
    inputs, _ = next(loaded.fitted(record).batches("train", EXAMPLES, augment=False))
    return (inputs.numpy(),)


def example_inputs(artifact: Artifact, session: Session, batch: int) -> tuple[Array, ...]:
    """Return inputs to time a session with; a network of fixed batch size gets that size."""
    vocabulary = artifact.model.options.get("vocabulary", 2) if artifact.model else 2
    return seeded_inputs(input_specs(artifact), session.fixed_batch or batch, vocabulary=vocabulary)
