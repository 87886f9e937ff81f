"""The bridge between torch tensors and numpy arrays, with the small float types that numpy knows only by extension."""

from __future__ import annotations

import numpy as np
import torch

from ..files import Array, numpy_dtype

# torch dtype -> the integer of the same width and the array's dtype; numpy has none of these natively.
_SMALL = {
    torch.bfloat16: (torch.int16, "bfloat16"),
    torch.float8_e4m3fn: (torch.int8, "float8_e4m3fn"),
    torch.float8_e5m2: (torch.int8, "float8_e5m2"),
}
_BY_NAME = {name: (integer, dtype) for dtype, (integer, name) in _SMALL.items()}


def to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array of the same shape and type (bfloat16 and float8 through ``ml_dtypes``).

    A contiguous tensor on the CPU shares its memory with the array; copy it before the tensor changes.
    """
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype in _SMALL:
        integer, name = _SMALL[plain.dtype]
        return plain.view(integer).numpy().view(numpy_dtype(name))
    array: Array = plain.numpy()
    return array


def to_torch(array: Array) -> torch.Tensor:
    """Return an array as a CPU tensor of the same shape and type.

    A contiguous, writable, little-endian array shares its memory with the tensor; any other is copied.
    """
    plain = np.ascontiguousarray(array).reshape(array.shape)
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    if not plain.flags.writeable:
        plain = plain.copy()
    if plain.dtype.name in _BY_NAME:
        integer, dtype = _BY_NAME[plain.dtype.name]
        # A 0-d array cannot change its item type in place, a 1-d view of it can.
        bits = plain.reshape(-1).view("int16" if integer is torch.int16 else "int8")
        return torch.from_numpy(bits).view(dtype).reshape(plain.shape)
    return torch.from_numpy(plain)
