"""Running a session over many examples, whatever batch size its network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UnsupportedError
from ...files import Array
from ..base import Session

BATCH = 256


def run_all(session: Session, inputs: Sequence[Array], batch: int = BATCH) -> Array:
    """Return the outputs for all examples, in order.

    A network that was built for one batch size gets batches of that size, the last one filled up with repeated
    examples whose outputs are dropped.

    Args:
        session: a loaded network.
        inputs: one array per input, all with the same first axis.
        batch: examples a run, for networks that take any number.

    Raises:
        UnsupportedError: the outputs are not one row an example.
    """
    size = session.fixed_batch or batch
    count = len(inputs[0])
    outputs = []
    for begin in range(0, count, size):
        rows = np.arange(begin, begin + size if session.fixed_batch else min(begin + size, count)) % count
        output = session.run(*(np.ascontiguousarray(array[rows]) for array in inputs))
        if output.ndim == 0 or len(output) != len(rows):
            raise UnsupportedError(
                f"the network's first output has shape {output.shape} for {len(rows)} examples; expected one row an "
                "example."
            )
        outputs.append(output)
    return np.concatenate(outputs)[:count]
