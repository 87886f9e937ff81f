"""``onnx-slim``: an ordinary, smaller ONNX graph that computes the same function, written and described.

From a checkpoint: its masked network is lowered (or, from an ONNX source, the original is read and the masked weights
put into it) and whatever the masks left dead is cut out. From any ONNX file: dead structure is cut out, after the
weakest units of every coupled group have been masked when a ratio is given. The file begins with our manifest
(:mod:`.onnx_seal`), whose tensors are those of the smaller network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint, TensorRecord
from ..files import refuse_existing, sha256_array
from .manifest import Manifest, TensorEntry, describe

if TYPE_CHECKING:
    import onnx

    from ..models.source import ModelSource
    from .slim_account import Account
    from .sparse_graph.choose import Measure

FORMAT = "onnx-slim"
VERSION = 1
# A budget of time is met when the measured graph is at most so much above it; else it is tightened, so often.
_MET = 1.02
_ATTEMPTS = 3


@dataclass(frozen=True)
class LatencySettings:
    """A budget of time and who knows what takes how long.

    Attributes:
        budget: a share of the time now, or milliseconds.
        absolute: whether it is milliseconds.
        measure: given layers, returns what is known of them.
        whole: measures a whole graph, in milliseconds; None where only a table is at hand.
        batch: examples a run.
    """

    budget: float
    absolute: bool
    measure: Measure
    whole: Callable[[onnx.ModelProto], float] | None = None
    batch: int = 1


@dataclass(frozen=True)
class SlimSettings:
    """What to cut besides what is dead.

    Attributes:
        ratio: share of units to remove from every coupled group, the weakest by L1 first; None removes none.
        round_to: keep a multiple of so many units in each group.
        approximate: also remove constant channels that are read across zero padding, which is inexact along borders.
        macs: instead of a ratio: the multiply-accumulates to come down to, a share of the graph's own up to 1 or their
            number.
        latency: instead of a ratio: the time to come down to.
    """

    ratio: float | None = None
    round_to: int = 1
    approximate: bool = False
    macs: float | None = None
    latency: LatencySettings | None = None


def slim_checkpoint(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    source: ModelSource,
    settings: SlimSettings | None = None,
    force: bool = False,
) -> Account:
    """Write a checkpoint's network without its dead structure.

    Args:
        checkpoint: any checkpoint; frozen and selected weights are materialised.
        path: where to; a model above 2 GB has a ``.data`` file beside it.
        source: the network that the checkpoint was made from.
        settings: what else to cut.
        force: whether existing files may be replaced.

    Returns:
        What went, what stayed and why.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
        ModelError: the checkpoint's tensors do not fit the network, or it cannot be traced.
        UnsupportedError: an operator without ONNX counterpart, a ratio is asked for and nothing may shrink, or a budget
            cannot be met.
    """
    from .onnx_model import lowered, write_model

    refuse_existing(path, force)
    records = {name: tensor.record for name, tensor in checkpoint.tensors.items()}
    model, account = _slim(lambda: lowered(source, checkpoint), settings or SlimSettings())
    described = [(entry, None) for entry in _entries(model, records)]
    manifest = describe(checkpoint.metadata, described, values="fp32", max_abs_error=None, chain=False)
    write_model(model, path, FORMAT, VERSION, manifest, force=force)
    return account


def slim_file(original: Path, path: Path, *, settings: SlimSettings | None = None, force: bool = False) -> Account:
    """Write a smaller copy of an ONNX file.

    Args:
        original: any ONNX file; it stays as it is.
        path: where to.
        settings: what to cut besides what is dead.
        force: whether existing files may be replaced.

    Returns:
        What went, what stayed and why.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
        FileFormatError: the original cannot be read.
        UnsupportedError: the graph contradicts itself, a ratio is asked for and nothing may shrink, or a budget cannot
            be met.
    """
    from ..models.graph.prepare import read_graph
    from ..models.source import load_source
    from .onnx_model import write_model

    refuse_existing(path, force)
    record = load_source(str(original)).record
    model, account = _slim(lambda: read_graph(original), settings or SlimSettings())
    manifest = Manifest(model=record, tensors=_entries(model, {}))
    write_model(model, path, FORMAT, VERSION, manifest, force=force)
    return account


def _slim(read: Callable[[], onnx.ModelProto], settings: SlimSettings) -> tuple[onnx.ModelProto, Account]:
    from .slim import slim
    from .slim_target import MacsTarget

    if settings.latency is not None:
        return _within(read, settings, settings.latency)
    wanted = settings.ratio if settings.macs is None else MacsTarget(settings.macs)
    slimmed = slim(_bare(read()), wanted, round_to=settings.round_to, approximate=settings.approximate)
    return slimmed.model, slimmed.account


def _within(
    read: Callable[[], onnx.ModelProto], settings: SlimSettings, wanted: LatencySettings
) -> tuple[onnx.ModelProto, Account]:
    """Slim down to a budget of time; where the graph can be measured, tighten the layers' budget until it is met."""
    from .slim import slim
    from .slim_account import LatencyRow
    from .slim_latency import LatencyTarget

    model = _bare(read())
    now = None if wanted.whole is None else wanted.whole(model)
    goal = wanted.budget if wanted.absolute or now is None else wanted.budget * now
    share, absolute = wanted.budget, wanted.absolute
    if absolute and now is not None:
        # What is not a layer is taken to shrink with the layers.
        share, absolute = goal / now, False
    for attempt in range(_ATTEMPTS):
        target = LatencyTarget(share, absolute, wanted.measure, wanted.batch)
        slimmed = slim(model, target, round_to=settings.round_to, approximate=settings.approximate)
        found = None if wanted.whole is None else wanted.whole(slimmed.model)
        if found is None or found <= _MET * goal or attempt == _ATTEMPTS - 1:
            break
        share *= goal / found
        model = _bare(read())
    graph = None if now is None or found is None else (round(now, 4), round(found, 4))
    return slimmed.model, replace(slimmed.account, latency=LatencyRow(target.layers_ms, graph, target.multiple))


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    # Somebody's metadata (ours, in a file that we wrote) describes the graph before the cut.
    del model.metadata_props[:]
    return model


def _entries(model: onnx.ModelProto, records: Mapping[str, TensorRecord]) -> list[TensorEntry]:
    """Describe the float initializers of the graph; those of the checkpoint keep their role."""
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    entries = []
    for tensor in model.graph.initializer:
        if tensor.data_type not in floats:
            continue
        array = numpy_helper.to_array(tensor)
        record = records.get(tensor.name)
        entries.append(
            TensorEntry(
                name=tensor.name,
                shape=array.shape,
                dtype=array.dtype.name,
                role=record.role if record else "parameter",
                parametrisation="identity",
                kept=int(np.count_nonzero(array)) if record and record.masked else None,
                output_axis=record.output_axis if record else 0,
                sha256=sha256_array(array),
            )
        )
    return entries


def write_onnx_slim(checkpoint: SparseCheckpoint, path: Path, *, source: ModelSource, force: bool = False) -> None:
    """Write a checkpoint as ``onnx-slim``; :func:`slim_checkpoint` with nothing but exact removal, and no account."""
    slim_checkpoint(checkpoint, path, source=source, force=force)


def account_plain(account: Account) -> dict[str, object]:
    """Return an account as plain data for JSON."""
    plain = msgspec.to_builtins(account)
    plain["explicit_sparsity"], plain["effective_sparsity"] = account.explicit_sparsity, account.effective_sparsity
    return dict(plain)
