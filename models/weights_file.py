"""Put the weights of a safetensors file into a module, or say in one line why they do not fit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import FileFormatError, ModelError, UsageError, near_miss
from ..files import TensorFile
from .tensors import to_torch

_LISTED = 5


def check_weights_file(path: Path) -> None:
    """Refuse a file that is no safetensors file by its name.

    Raises:
        UsageError: another kind of file, with the way to convert it.
        ModelError: no such file.
    """
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        raise UsageError(
            f"{path} is a pickle, which can run any code while it is read; convert it once, where you trust it: "
            f"safetensors.torch.save_file(torch.load('{path.name}', weights_only=True), "
            f"'{path.with_suffix('.safetensors').name}')."
        )
    if path.suffix.lower() != ".safetensors":
        raise UsageError(f"{path} is no safetensors file; --weights takes one that ends in .safetensors.")
    if not path.is_file():
        raise ModelError(f"the weights file {path} does not exist.")


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy every tensor of ``path`` into the module's state of the same name.

    One name of a tied weight is enough. A tensor may have a narrower float type than the module's, not a wider one.

    Raises:
        ModelError: a name is missing or left over, or a shape or dtype differs; the names are listed.
        FileFormatError: the file is unreadable, truncated or corrupt.
    """
    file = TensorFile(path)
    state = module.state_dict(keep_vars=True)
    given = {_storage(state[name]) for name in file if name in state}
    missing = [name for name in state if name not in file and _storage(state[name]) not in given]
    unknown = [name for name in file if name not in state]
    if missing or unknown:
        raise ModelError(
            f"{path} does not fit the model: "
            + "; ".join(
                part
                for part in (
                    f"the model has {_list(missing, unknown)}, which the file lacks" if missing else "",
                    f"the file has {_list(unknown, missing)}, which the model lacks" if unknown else "",
                )
                if part
            )
            + "."
        )
    for name in file:
        if tuple(state[name].shape) != file.shape(name):
            raise ModelError(
                f"{path} does not fit the model: '{name}' is {tuple(state[name].shape)} in the model and "
                f"{file.shape(name)} in the file."
            )
    with torch.no_grad():
        for name in file:
            values = to_torch(file.read(name))
            if torch.promote_types(values.dtype, state[name].dtype) != state[name].dtype:
                raise ModelError(
                    f"{path} does not fit the model: '{name}' is {state[name].dtype} in the model and {values.dtype} "
                    "in the file, which would lose bits."
                )
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise FileFormatError(f"{path}: '{name}' holds values that are not finite.")
            state[name].copy_(values)


def _storage(tensor: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Return what two names of one tied tensor have in common; a tensor without elements is only its own."""
    return (tensor.data_ptr() or id(tensor), int(tensor.storage_offset()), tuple(tensor.shape))


def _list(names: list[str], others: list[str]) -> str:
    shown = [f"'{name}'{_hint(name, others)}" for name in names[:_LISTED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _hint(name: str, others: list[str]) -> str:
    hint = near_miss(name, others).strip()
    return f" ({hint})" if hint else ""
