"""Sparse checkpoint in, artifact file out; and any artifact opened again.

Every format is one entry of :data:`EXPORTERS`. Files are written atomically, equal checkpoints give equal bytes, and
what :func:`open_artifact` returns accounts for every byte of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileFormatError, UsageError, unknown_name
from .value_types import CODEBOOKS, parse_values

if TYPE_CHECKING:
    from ..compressor.checkpoint import SparseCheckpoint
    from ..files import Array
    from ..models.source import ModelSource
    from .artifact import Artifact

__all__ = ["EXPORTERS", "Exporter", "check_values", "export", "needs_source", "open_artifact"]

# What every zip archive begins with, PyTorch's too.
ZIP = b"PK\x03\x04"
Write = Callable[["SparseCheckpoint", Path, str, "ModelSource | None", bool], None]


@dataclass(frozen=True)
class Exporter:
    """One export format.

    Attributes:
        name: what users type after ``--to``.
        suffix: of its files.
        summary: what it is for, in one sentence.
        values: how values may be stored.
        needs_source: whether the network itself is needed, not just its tensors.
        write: checkpoint, path, values, source and force in; a file out.
    """

    name: str
    suffix: str
    summary: str
    values: tuple[str, ...]
    needs_source: bool
    write: Write


def _packed(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    from .packed import write_packed

    write_packed(checkpoint, path, values=values, force=force)


def _csr(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    from .csr import write_csr

    write_csr(checkpoint, path, values=values, force=force)


def _nm(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    from .nm import write_nm

    write_nm(checkpoint, path, values=values, force=force)


def _onnx(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    from ..models.source import source_from_record
    from .onnx_dense import write_onnx_dense

    found = source or source_from_record(checkpoint.metadata.model)
    write_onnx_dense(checkpoint, path, source=found, values=values, force=force)


def _onnx_unpack(
    checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool
) -> None:
    from ..models.source import source_from_record
    from .onnx_unpack import write_onnx_unpack

    found = source or source_from_record(checkpoint.metadata.model)
    write_onnx_unpack(checkpoint, path, source=found, values=values, force=force)


def _onnx_sparse(
    checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool
) -> None:
    from ..models.source import source_from_record
    from .onnx_sparse import write_onnx_sparse

    found = source or source_from_record(checkpoint.metadata.model)
    write_onnx_sparse(checkpoint, path, source=found, values=values, force=force)


def _onnx_slim(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    from ..models.source import source_from_record
    from .onnx_slim import write_onnx_slim

    found = source or source_from_record(checkpoint.metadata.model)
    write_onnx_slim(checkpoint, path, source=found, force=force)


def _torchscript(
    checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool
) -> None:
    from ..models.source import source_from_record
    from .torchscript import write_torchscript

    found = source or source_from_record(checkpoint.metadata.model)
    write_torchscript(checkpoint, path, source=found, force=force)


def _torch_export(
    checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool
) -> None:
    from ..models.source import source_from_record
    from .torch_export import write_torch_export

    found = source or source_from_record(checkpoint.metadata.model)
    write_torch_export(checkpoint, path, source=found, force=force)


def _onnx_int8(checkpoint: SparseCheckpoint, path: Path, values: str, source: ModelSource | None, force: bool) -> None:
    raise UsageError("'onnx-int8' is calibrated on examples; name the data (--data D, or the recipe's data).")


_BOTH = ("fp32", "fp16")
_ARRAYS = (*_BOTH, "bf16", "int8")
EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        Exporter(
            "packed",
            ".spk",
            "the smallest file, lossless or not: each tensor in its smallest codec",
            (*_ARRAYS, CODEBOOKS),
            False,
            _packed,
        ),
        Exporter("csr", ".safetensors", "compressed sparse rows that scipy and torch take as is", _ARRAYS, False, _csr),
        Exporter("nm", ".safetensors", "N:M weights: kept values and packed in-block places", _ARRAYS, False, _nm),
        Exporter("onnx", ".onnx", "an ordinary ONNX graph with dense values, for any runtime", _BOTH, True, _onnx),
        Exporter(
            "onnx-unpack",
            ".onnx",
            "plain ONNX operators that unpack masks, values and seeds while a session loads",
            (*_BOTH, "int8", CODEBOOKS),
            True,
            _onnx_unpack,
        ),
        Exporter(
            "onnx-sparse",
            ".onnx",
            "an ONNX graph whose sparse layers run faster, on the native operators",
            _BOTH,
            True,
            _onnx_sparse,
        ),
        Exporter(
            "onnx-slim", ".onnx", "a smaller ordinary ONNX graph: dead units cut out", ("fp32",), True, _onnx_slim
        ),
        Exporter(
            "onnx-int8",
            ".onnx",
            "eight bits by ONNX Runtime's own static quantiser, the baseline; needs data",
            ("fp32",),
            True,
            _onnx_int8,
        ),
        Exporter(
            "torchscript",
            ".pt",
            "a traced TorchScript program with dense values, for C++ programs and services that load it",
            ("fp32",),
            True,
            _torchscript,
        ),
        Exporter(
            "torch-export",
            ".pt2",
            "a torch.export program with dense values, for PyTorch and what compiles from it",
            ("fp32",),
            True,
            _torch_export,
        ),
    )
}


def _exporter(format: str) -> Exporter:
    if format not in EXPORTERS:
        raise unknown_name("format", format, EXPORTERS)
    return EXPORTERS[format]


def needs_source(format: str) -> bool:
    """Return whether a format needs the network itself (and so, for a user's factory, ``--model``).

    Raises:
        UnknownNameError: there is no such format.
    """
    return _exporter(format).needs_source


def check_values(format: str, values: str) -> None:
    """Refuse values that a format cannot store.

    Raises:
        UnknownNameError: there is no such format, or it stores no such values.
    """
    parse_values(values, _exporter(format).values, format)


def export(
    checkpoint: SparseCheckpoint,
    format: str,
    path: Path,
    *,
    values: str = "fp32",
    source: ModelSource | None = None,
    force: bool = False,
    calibration: Sequence[Array] | None = None,
) -> Artifact:
    """Write a checkpoint as an artifact and open it.

    Args:
        checkpoint: the pruned network.
        format: a key of :data:`EXPORTERS`.
        path: where to; written atomically.
        values: ``fp32`` (lossless), or rounded: ``fp16``, and what else the format offers.
        source: the network, for formats that need it; found from the checkpoint's record when it is not given.
        force: whether an existing file may be replaced.
        calibration: examples for ``onnx-int8``, one array for each input; other formats ignore it.

    Raises:
        UsageError: ``onnx-int8`` without examples.
        UnknownNameError: no such format or value type.
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: the format cannot hold this checkpoint, with the reason.
        ModelError: the checkpoint does not fit the network.
    """
    exporter = _exporter(format)
    check_values(format, values)
    if format == "onnx-int8" and calibration is not None:
        from ..models.source import source_from_record
        from .onnx_int8 import write_onnx_int8

        network = source or source_from_record(checkpoint.metadata.model)
        write_onnx_int8(checkpoint, path, source=network, calibration=calibration, force=force)
    else:
        exporter.write(checkpoint, path, values, source, force)
    return open_artifact(path)


def open_artifact(path: Path) -> Artifact:
    """Open a file of any format, recognised by its content; the name does not matter.

    Raises:
        FileFormatError: it is no artifact, or it is truncated, corrupt, or from a later release.
    """
    try:
        with path.open("rb") as stream:
            beginning = stream.read(9)
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
    # A safetensors file is a length of 8 bytes and a JSON object; a protobuf message cannot have its fields that way.
    if beginning[8:] == b"{":
        return _open_container(path)
    if beginning.startswith(ZIP):
        from .torch_archive import open_torch_archive

        return open_torch_archive(path)
    from .onnx_artifact import OnnxArtifact
    from .onnx_int8_artifact import OnnxInt8Artifact
    from .onnx_seal import claimed_format
    from .onnx_sparse_artifact import OnnxSparseArtifact
    from .unpacking.artifact import open_unpack

    try:
        if claimed_format(path) == "onnx-sparse":
            return OnnxSparseArtifact(path)
        if claimed_format(path) == "onnx-int8":
            return OnnxInt8Artifact(path)
        unpacked = open_unpack(path)
        return unpacked if unpacked is not None else OnnxArtifact(path)
    except FileFormatError as error:
        # ONNX's first field: the file is one, and damaged. Ours begins with an entry that its reader knows.
        if beginning[:1] in (b"\x08", b"\x72"):
            raise
        ours = ", ".join(name for name, exporter in EXPORTERS.items() if exporter.suffix != ".onnx")
        raise FileFormatError(
            f"{path} is no artifact: neither a sparsepack file ({ours}) nor an ONNX model ({error})"
        ) from error


def _open_container(path: Path) -> Artifact:
    from ..compressor.checkpoint import FORMAT as CHECKPOINT
    from ..files import TensorFile
    from .container import PREFIX
    from .csr import CsrArtifact
    from .nm import NmArtifact
    from .packed import PackedArtifact

    readers: dict[str, Callable[[TensorFile], Artifact]] = {
        "packed": PackedArtifact,
        "csr": CsrArtifact,
        "nm": NmArtifact,
    }
    file = TensorFile(path)
    found = file.metadata.get("format") if isinstance(file.metadata, dict) else None
    if found == CHECKPOINT:
        raise FileFormatError(f"{path} is a checkpoint, no artifact; 'compress export' makes one of it.")
    for name, reader in readers.items():
        if found == PREFIX + name:
            return reader(file)
    raise FileFormatError(
        f"{path} is a safetensors file, but none of ours: its metadata names the format {found!r}; expected one of "
        f"{', '.join(readers)}."
    )
