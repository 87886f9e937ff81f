"""A network that was slimmed, as a model source: the dense one is built, cut, and given its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from torch import nn

from ...files import Array
from ..source import TorchSource
from ..tensors import to_torch
from .kept import Record, compose, from_record, to_record
from .module import load_state, slim_module


def slimmed_source(source: TorchSource, kept: Record, state: Mapping[str, Array] | None = None) -> TorchSource:
    """Return the source of the network that is left of another.

    Args:
        source: the network before; one that was slimmed before already is cut further.
        kept: what stays of its tensors.
        state: the smaller network's tensors by name; None leaves what the cut leaves.

    Raises:
        FileFormatError: ``kept`` is malformed.
    """
    flags = from_record(kept)
    inputs = source.example_inputs(2)

    def make() -> nn.Module:
        module = slim_module(source.build(), flags, inputs) if flags else source.build()
        if state is not None:
            load_state(module, {name: to_torch(array) for name, array in state.items()})
        return module

    record = source.record
    if flags:
        before = {} if isinstance(record.kept, msgspec.UnsetType) else from_record(record.kept)
        record = msgspec.structs.replace(record, kept=to_record(compose(before, flags)))
    return replace(source, record=record, brings_weights=True, _make=make, _ready=[])
