"""Normal and orthogonal tensors from the same random words, through float64.

They serve published recipes and closed-form oracles. Logarithms, cosines and factorisations round differently from one
library to the next, so these tensors are reproducible on one machine but never rebuilt from a seed out of a file.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .keyed_product import matrix_shape
from .philox import word_chunks

_WORD_STEP = 2.0**-32


def normals(seed: int, name: str, count: int, std: float) -> npt.NDArray[np.float32]:
    """Draw ``count`` normal numbers of mean zero.

    Words 2j and 2j + 1 give numbers 2j and 2j + 1 (Box and Muller, 1958): radius sqrt(-2 ln((a + 1) / 2**32)), angle
    2 pi b / 2**32. The largest is 6.7 standard deviations.

    Args:
        seed: the run's seed.
        name: the parameter's name.
        count: how many.
        std: standard deviation.

    Returns:
        float32 [count].
    """
    out = np.empty(count, np.float32)
    for position, chunk in word_chunks(seed, name, 0, count + (count & 1)):
        pairs = chunk.reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log((pairs[:, 0] + 1.0) * _WORD_STEP)) * std
        angle = pairs[:, 1] * (2.0 * math.pi * _WORD_STEP)
        both = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)
        out[position : position + both.size] = both[: count - position]
    return out


def orthogonal(seed: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw a matrix whose rows (or columns, whichever are fewer) are orthonormal, uniformly distributed.

    The tensor is seen as output units by the rest. Q of the QR factorisation of a normal matrix, each column times the
    sign of R's diagonal (Saxe et al. 2014; Mezzadri 2007 for the sign).

    Returns:
        float32 in ``shape``.
    """
    rows, columns = matrix_shape(shape)
    drawn = normals(seed, name, rows * columns, 1.0).astype(np.float64).reshape(rows, columns)
    q, r = np.linalg.qr(drawn if rows >= columns else drawn.T)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q if rows >= columns else q.T).astype(np.float32).reshape(shape)
