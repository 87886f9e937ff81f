"""Verifying a file: hashes, bit-exact decoding, agreement with the checkpoint it came from, parity of its program.

:func:`verify` returns findings instead of raising, so that one damaged tensor does not hide the state of the others;
only a path that holds nothing to verify is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..compressor.checkpoint import FORMAT, SparseCheckpoint
from ..errors import FileFormatError, RuntimeUnavailableError, SparsepackError
from ..exporters import open_artifact
from ..exporters.artifact import TRANSFORMED, Artifact
from ..exporters.codecs.floats import FLOATS
from ..exporters.torch_archive import FORMATS as PROGRAMS
from ..exporters.value_types import INT8
from ..files import Array, TensorFile, numpy_dtype, path_text, sha256_array
from . import RUNTIMES
from .measure.inputs import varied
from .measure.parity import BOUND, parity
from .measure.sources import typed_source
from .torch_dense import reference_session, refuses_model, source_of

PARITY_INPUTS = 64


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: what was checked, in a word or two.
        subject: the tensor or file.
        ok: whether it holds.
        detail: what was found, in one sentence.
    """

    check: str
    subject: str
    ok: bool
    detail: str


def verify(path: Path, *, against: Path | None = None, model: str | None = None) -> list[Finding]:
    """Check a checkpoint or an artifact.

    Args:
        path: the file.
        against: the checkpoint that the artifact came from; every tensor is then compared with it, bit for bit where
            the artifact's values are lossless.
        model: the user's ``--model``, needed for the parity of a graph or program that came from a factory.

    Returns:
        findings in the order of checking, good and bad.

    Raises:
        FileFormatError: ``against`` cannot be read, or ``path`` is a foreign file that promises nothing.
    """
    checkpoint = SparseCheckpoint.load(against) if against is not None else None
    try:
        return list(_findings(path, checkpoint, model))
    except FileFormatError as error:
        return [_refusal("structure", str(path), error)]


def _findings(path: Path, checkpoint: SparseCheckpoint | None, model: str | None) -> Iterator[Finding]:
    if _is_checkpoint(path):
        loaded = SparseCheckpoint.load(path)
        yield Finding("structure", str(path), True, f"a checkpoint of {len(loaded.tensors)} tensors.")
        for tensor in loaded.tensors.values():
            if tensor.record.alias_of is None:
                yield _hash_finding(tensor.record.name, tensor.verify)
        return
    artifact = open_artifact(path)
    rows, overhead = artifact.rows(), artifact.overhead()
    counted = sum(row.bytes for row in rows) + sum(overhead.values())
    detail = f"{len(rows)} tensors; {counted} of {artifact.size} bytes are accounted for."
    yield Finding("structure", str(path), counted == artifact.size, detail)
    for name, record in artifact.records().items():
        if record.alias_of is None and record.sha256:
            yield _hash_finding(name, partial(artifact.tensor, name))
    # A slimmed graph's tensors are parts of the checkpoint's; that it computes the same is what can be compared.
    if checkpoint is not None and artifact.format not in TRANSFORMED:
        yield from _against(artifact, checkpoint)
    if artifact.is_graph:
        accepted = _checker(artifact)
        yield accepted
        if not accepted.ok:
            return
    if artifact.is_graph or artifact.format in PROGRAMS:
        yield from _parity(artifact, checkpoint, model)


def _refusal(check: str, subject: str, error: SparsepackError) -> Finding:
    """Return a finding that says what an error says, without the subject that stands before it anyway."""
    return Finding(check, subject, False, str(error).removeprefix(f"{subject}: "))


def _is_checkpoint(path: Path) -> bool:
    """Tell checkpoints by their metadata; everything else is left to the readers of artifacts."""
    if path.suffix != ".safetensors":
        return False
    metadata = TensorFile(path).metadata
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT


def _hash_finding(name: str, decode: Callable[[], object]) -> Finding:
    try:
        decode()
    except FileFormatError as error:
        return Finding("hash", name, False, str(error))
    return Finding("hash", name, True, "decodes to the bytes that were written.")


def _against(artifact: Artifact, checkpoint: SparseCheckpoint) -> Iterator[Finding]:
    """Compare every tensor of the checkpoint with the artifact's."""
    records = artifact.records()
    for name, tensor in checkpoint.tensors.items():
        if tensor.record.alias_of is not None:
            continue
        if name not in records:
            if artifact.is_graph and refuses_model(artifact.model) is None:
                # A graph holds what its outputs depend on, and folds constants under names of its own (counters of
                # training steps, tables of positions). Whether it needed this tensor is what parity tells.
                continue
            yield Finding("checkpoint", name, False, "is in the checkpoint and not in the artifact.")
            continue
        try:
            found = artifact.tensor(name)
        except FileFormatError as error:
            yield Finding("checkpoint", name, False, str(error))
            continue
        yield _compare(name, tensor.dense(), found, *_rounding(artifact, name))
    # A graph may hold constants that were never the checkpoint's; those that it vouches for have a hash.
    for name in sorted(name for name, record in records.items() if record.sha256 and name not in checkpoint.tensors):
        yield Finding("checkpoint", name, False, "is in the artifact and not in the checkpoint.")


def _rounding(artifact: Artifact, name: str) -> tuple[str | None, float | None]:
    """Return the dtype that the artifact rounds a tensor's values to, and the largest error; None where it does not."""
    entries = [] if artifact.metadata is None else artifact.metadata.tensors
    return next(((entry.stored, entry.error) for entry in entries if entry.name == name), (None, None))


def _compare(name: str, expected: Array, found: Array, stored: str | None, error: float | None) -> Finding:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        detail = (
            f"is {found.dtype} {found.shape} in the artifact and {expected.dtype} {expected.shape} in the checkpoint."
        )
        return Finding("checkpoint", name, False, detail)
    if sha256_array(expected) == sha256_array(found):
        return Finding("checkpoint", name, True, "equals the checkpoint, bit for bit.")
    if stored is not None and stored != INT8:
        # What the file keeps was rounded; what a seed draws, or a mask removes, was not.
        with np.errstate(invalid="ignore"):
            rounded = expected.astype(numpy_dtype(stored)).astype(expected.dtype)
        # A NaN stays one; its payload has no nearest number.
        equal = (found == expected) | (np.isnan(found) & np.isnan(expected))
        if np.where(equal, True, found == rounded).all():
            return Finding("checkpoint", name, True, f"equals the checkpoint rounded to {stored}.")
    if error is not None and expected.dtype.name in FLOATS:
        with np.errstate(invalid="ignore"):
            differences = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        if (np.where(found == expected, 0.0, differences) <= error).all():
            return Finding("checkpoint", name, True, f"equals the checkpoint within {error:.3g}, as the file says.")
    different = int(np.count_nonzero(expected != found))
    return Finding("checkpoint", name, False, f"differs from the checkpoint in {different} of {expected.size} entries.")


def _checker(artifact: Artifact) -> Finding:
    import onnx

    subject = str(artifact.path)
    if path_text(subject) != subject:
        return Finding("graph", subject, False, "neither the ONNX checker nor a runtime takes a name that is no text.")
    try:
        onnx.checker.check_model(subject)
    except onnx.checker.ValidationError as error:
        return Finding("graph", subject, False, f"the ONNX checker refuses it: {str(error).splitlines()[0]}.")
    return Finding("graph", subject, True, "the ONNX checker accepts it.")


def _parity(artifact: Artifact, checkpoint: SparseCheckpoint | None, model: str | None) -> Iterator[Finding]:
    """Run the file's own program and, where PyTorch can build the model, compare with that."""
    subject = str(artifact.path)
    if refuses_model(artifact.model) is not None or (artifact.format in TRANSFORMED and checkpoint is None):
        # A pruned ONNX file has no second implementation; its tensors were compared above. Nor has a slimmed graph
        # without its checkpoint.
        return
    runtime = next(found for found in RUNTIMES.values() if artifact.format in found.formats)
    reason = runtime.available()
    if reason is not None:
        yield Finding("parity", subject, True, f"not run: {reason}.")
        return
    try:
        source = source_of(artifact, typed_source(artifact.model, model))
        reference = reference_session(source, artifact, checkpoint, threads=1)
        session = runtime.load(artifact, threads=1)
        inputs = varied([tensor.numpy() for tensor in source.example_inputs(PARITY_INPUTS)])
        found = parity(reference, session, inputs)
    except RuntimeUnavailableError as error:
        yield Finding("parity", subject, True, f"not run: {str(error).removeprefix(f'{subject}: ')}")
        return
    except SparsepackError as error:
        yield _refusal("parity", subject, error)
        return
    if found.error is None:
        yield Finding("parity", subject, True, "the network's outputs do not depend on its inputs; nothing to compare.")
        return
    measured = f"largest difference {found.error:.1e} standard deviations over {found.inputs} inputs"
    rounded = _rounded(artifact)
    if rounded is None:
        yield Finding("parity", subject, found.error <= BOUND, f"{measured}; the bound is {BOUND:.0e}.")
    else:
        yield Finding("parity", subject, True, f"{measured}; {rounded}, so no bound holds.")


def _rounded(artifact: Artifact) -> str | None:
    """Return why two programs of one network may differ by far more than float32 rounding; None where they may not."""
    if artifact.metadata is not None and artifact.metadata.values != "fp32":
        return "its values are rounded"
    # Every operation rounds to eight or eleven bits, in an order of each program's own.
    short = {record.dtype for record in artifact.records().values()} & {"float16", "bfloat16"}
    return f"it computes in {' and '.join(sorted(short))}" if short else None
