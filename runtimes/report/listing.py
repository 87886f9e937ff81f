"""What is in a file, what there is to choose from, what a command just did: text for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files import TensorFile
from .table import plain_table
from .units import human_bytes, percent

if TYPE_CHECKING:
    from ...compressor.checkpoint import SparseCheckpoint
    from ...compressor.methods import Method
    from ...exporters.artifact import Artifact
    from ...exporters.sparse_graph.choose import LayerChoice
    from ..verify import Finding


def checkpoint_summary(checkpoint: SparseCheckpoint, folder: Path) -> str:
    """Return what a pruning run ended in: weights kept, and what the user should know."""
    prunable = [t for t in checkpoint.tensors.values() if t.record.role == "prunable" and t.record.alias_of is None]
    total = sum(_count(t.record.shape) for t in prunable)
    kept = sum(t.kept for t in prunable)
    share = percent(1 - kept / total) if total else "0 %"
    lines = [f"{folder}: {kept} of {total} prunable weights kept ({share} sparse) in {len(prunable)} tensors."]
    return "\n".join([*lines, *(f"note: {warning}" for warning in checkpoint.metadata.warnings)])


def artifact_summary(artifact: Artifact) -> str:
    """Return what an export wrote."""
    from ...exporters.artifact import dense_bytes
    from ...exporters.onnx_sparse_artifact import OnnxSparseArtifact
    from ..onnx_sparse import sparse_share

    dense, size = dense_bytes(artifact), artifact.size
    text = f"{artifact.path}: {artifact.format}, {human_bytes(size)}"
    if dense:
        times = f"{dense / size:.2f}x smaller" if dense >= size else f"{size / dense:.2f}x larger"
        text += f", {times} than its dense values"
    text += "."
    if artifact.metadata is not None and artifact.metadata.max_abs_error is not None:
        kind, error = artifact.metadata.values, artifact.metadata.max_abs_error
        text += f"\n{kind} values differ from the checkpoint's by up to {error:.3g}; 'compress inspect' says where."
    if isinstance(artifact, OnnxSparseArtifact):
        return "\n".join([layers_table(artifact.layers), text, sparse_share(artifact.layers)])
    return text


def layers_table(layers: Sequence[LayerChoice]) -> str:
    """Return what became of every layer with constant weights, and why."""
    columns = ("layer", "sparsity", "dense ms", "sparse ms", "runs", "because")
    rows = [
        (
            layer.weight,
            percent(layer.sparsity),
            _milliseconds(layer.dense_ms),
            _milliseconds(layer.sparse_ms),
            "sparse" if layer.sparse else "dense",
            layer.reason,
        )
        for layer in layers
    ]
    return plain_table("layers", columns, rows, right=(1, 2, 3), fold=(0, 5))


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def inspection(path: Path, as_json: bool) -> str:
    """Return every tensor of a checkpoint or artifact with its bytes; rows and overhead add up to the file.

    Raises:
        FileFormatError: the file is neither.
    """
    found = _inspect_checkpoint(path) if _is_checkpoint(path) else _inspect_artifact(path)
    if as_json:
        return _json(found)
    lossy = any(row.get("max_abs_error") is not None for row in found["tensors"])
    columns = ("tensor", "shape", "kept", "bytes", "codec", "over bound", *(["max error"] if lossy else []))
    rows = [
        (
            row["name"],
            "x".join(map(str, row["shape"])) or "scalar",
            str(row["nnz"]),
            str(row["bytes"]),
            row["codec"],
            _over(row["bytes"], row["bound_bytes"]),
            *([_error(row["max_abs_error"])] if lossy else []),
        )
        for row in found["tensors"]
    ]
    overhead = sum(found["overhead_bytes"].values())
    parts = ", ".join(f"{name} {count}" for name, count in found["overhead_bytes"].items() if count)
    right = (2, 3, 5, 6) if lossy else (2, 3, 5)
    table = plain_table(f"{path}: {found['format']}", columns, rows, right=right, fold=(0,))
    total = f"tensors {found['bytes'] - overhead} + overhead {overhead} ({parts or 'none'}) = {found['bytes']} bytes"
    return "\n".join([table, total, *(f"note: {warning}" for warning in found["warnings"])])


def _is_checkpoint(path: Path) -> bool:
    from ...compressor.checkpoint import FORMAT

    if path.suffix != ".safetensors":
        return False
    metadata = TensorFile(path).metadata
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT


def _inspect_checkpoint(path: Path) -> dict[str, Any]:
    from ...compressor.checkpoint import SparseCheckpoint
    from ...exporters.bound import tensor_bound

    file, checkpoint = TensorFile(path), SparseCheckpoint.load(path)
    rows = [
        {
            "name": name,
            "shape": list(tensor.record.shape),
            "nnz": tensor.kept,
            "bytes": sum(
                file.nbytes(key)
                for key in (f"{name}:{part}" for part in ("mask", "values", *tensor.record.parts))
                if key in file
            ),
            "codec": f"{tensor.record.parametrisation}, {'bit mask' if tensor.record.masked else 'whole'}",
            "bound_bytes": tensor_bound(tensor),
        }
        for name, tensor in checkpoint.tensors.items()
        if tensor.record.alias_of is None
    ]
    return {
        "format": "checkpoint",
        "bytes": path.stat().st_size,
        "overhead_bytes": {"header": file.header_bytes},
        "tensors": rows,
        "warnings": list(checkpoint.metadata.warnings),
    }


def _inspect_artifact(path: Path) -> dict[str, Any]:
    from ...exporters import open_artifact

    artifact = open_artifact(path)
    return {
        "format": artifact.format,
        "bytes": artifact.size,
        "overhead_bytes": artifact.overhead(),
        "tensors": [{**asdict(row), "shape": list(row.shape)} for row in artifact.rows()],
        "warnings": [],
    }


def findings_text(path: Path, findings: Sequence[Finding], as_json: bool) -> str:
    """Return what verifying found: everything as JSON; for people, what is wrong, or one line that all is well."""
    if as_json:
        return _json({"path": str(path), "findings": [asdict(finding) for finding in findings]})
    bad = [finding for finding in findings if not finding.ok]
    lines = [f"WRONG  {finding.check}: {finding.subject}: {finding.detail}" for finding in bad]
    whole = [f"ok  {f.check}: {f.detail}" for f in findings if f.ok and f.subject == str(path)]
    verdict = f"{path}: {len(findings) - len(bad)} of {len(findings)} checks passed."
    return "\n".join([*whole, *lines, verdict])


def methods_text(name: str | None, as_json: bool) -> str:
    """Return the catalogue, or one method's declaration.

    Raises:
        UnknownNameError: there is no such method.
    """
    from ...compressor.methods import METHODS, find_method

    if name is not None:
        declared = describe_method(find_method(name))
        return _json(declared) if as_json else _card(declared)
    if as_json:
        return _json([describe_method(method) for method in METHODS.values()])
    rows = [(method.name, method.paradigm, method.summary) for method in METHODS.values()]
    return plain_table(
        "methods (compress methods NAME says more)", ("name", "paradigm", "what it does"), rows, fold=(2,)
    )


def describe_method(method: Method) -> dict[str, Any]:
    """Return a declaration as plain data."""
    from ...compressor.scores import SCORES

    plain = asdict(method)
    plain["reasons"] = dict(method.reasons)
    plain["training"] = dict(method.training)
    plain["defaults"] = {
        "structure": method.structures[0],
        "allocation": method.allocations[0],
        "schedule": method.schedules[0],
    }
    plain["evidence"] = list(SCORES[method.score].evidence) if method.score in SCORES else []
    plain["options"] = [
        {"name": option.name, "default": option.default, "allowed": option.range, "doc": option.doc}
        for option in method.options
    ]
    return plain


def _card(declared: Mapping[str, Any]) -> str:
    lines = [f"{declared['name']} ({declared['paradigm']})", declared["summary"], f"Paper: {declared['paper']}.", ""]
    named = {
        "mask from": declared["mask_from"] or "none",
        "weights from": declared["weights_from"],
        "trained after": "yes" if declared["trains_after"] else "no",
        "outside the mask": "the initial weights" if declared["chi"] else "zero",
        "score": declared["score"] or "none",
        "looks at": ", ".join(declared["evidence"]) or "weights only",
        "growth": declared["growth"] or "none",
        "plan": declared["plan"],
        "trained before the mask": declared["prepares"],
        "while training": declared["dynamics"],
        "transforms": ", ".join(declared["transforms"]) or "none",
        "needs": ", ".join(declared["needs"]) or "weights only",
        "structures": ", ".join(declared["structures"]),
        "allocations": ", ".join(declared["allocations"]),
        "schedules": ", ".join(declared["schedules"]),
        "stored as": declared["parametrisation"],
        "initialiser": f"{declared['initialiser']}, {declared['generator']}",
        "training": ", ".join(f"{key} {value}" for key, value in declared["training"].items()) or "the recipe's",
    }
    width = max(map(len, named))
    lines += [f"  {key:<{width}}  {value}" for key, value in named.items()]
    if declared["options"]:
        lines += ["", "Options (--option NAME=VALUE; in a recipe, options:)"]
        lines += [f"  {o['name']} = {o['default']}  {o['allowed']}  {o['doc']}" for o in declared["options"]]
    return "\n".join(lines)


def runtimes_text(as_json: bool) -> str:
    """Return the runtimes and why those that cannot run here cannot."""
    from .. import RUNTIMES

    found: list[dict[str, Any]] = [
        {"name": r.name, "summary": r.summary, "formats": list(r.formats), "unavailable": r.available()}
        for r in RUNTIMES.values()
    ]
    if as_json:
        return _json(found)
    rows = [(r["name"], f"no: {r['unavailable']}" if r["unavailable"] else "yes", r["summary"]) for r in found]
    return plain_table("runtimes", ("name", "runs here", "what it runs"), rows, fold=(1, 2))


def formats_text(as_json: bool) -> str:
    """Return the export formats."""
    from ...exporters import EXPORTERS

    found: list[dict[str, Any]] = [
        {
            "name": e.name,
            "suffix": e.suffix,
            "values": list(e.values),
            "summary": e.summary,
            "needs_model": e.needs_source,
        }
        for e in EXPORTERS.values()
    ]
    if as_json:
        return _json(found)
    rows = [(e["name"], e["suffix"], ", ".join(e["values"]), e["summary"]) for e in found]
    return plain_table("formats", ("--to", "suffix", "--values", "what it is for"), rows, fold=(3,))


def _over(size: int, bound: float) -> str:
    return f"{100 * (size / bound - 1):+.1f} %" if bound >= 1 else "-"


def _error(error: float | None) -> str:
    return "exact" if error is None else f"{error:.3g}"


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
