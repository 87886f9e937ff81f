"""One small honest file for every reader, and what reading it whole means."""

from __future__ import annotations

import gzip
import io
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from checkpoints import assembled
from parametrised import every_kind

from sparsepack.compressor.block import Block
from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    make_tensor,
)
from sparsepack.compressor.training.resume import Position, Snapshots
from sparsepack.compressor.training.tape import Tape
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_dense import write_onnx_dense
from sparsepack.exporters.torch_archive import FORMATS
from sparsepack.files import Array
from sparsepack.models.readers import read_idx, read_npz
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import load_source

Decoded = Mapping[str, bytes]

# Far below what any forged count asks for, far above what reading a file of a few kilobytes needs.
MEMORY = 16 * 2**20

FACTORY = """
from torch import nn


def build():
    import torch
    return nn.Linear(64, 12), torch.zeros(1, 64)
"""


@dataclass(frozen=True)
class Original:
    """An honest file.

    Attributes:
        content: its bytes.
        name: what a file of the kind is called.
        read: reads everything in a file and returns the arrays' bytes by name; raises a ``SparsepackError`` for a file
            that it refuses.
        sealed: whether every bit of the file is covered, so that any change must be refused.
        step: every so many bytes it is cut, and a bit of it flipped; more than one where much of a file is padding.
    """

    content: bytes
    name: str
    read: Callable[[Path], Decoded]
    sealed: bool = False
    step: int = 1


def _plain(arrays: Mapping[str, Array]) -> Decoded:
    return {name: array.tobytes() for name, array in arrays.items()}


def read_artifact(path: Path) -> Decoded:
    artifact = open_artifact(path)
    artifact.verify()
    artifact.rows()
    return _plain(artifact.tensors())


def read_checkpoint(path: Path) -> Decoded:
    checkpoint = SparseCheckpoint.load(path)
    checkpoint.verify()
    return _plain(checkpoint.dense_state())


def read_tape(path: Path) -> Decoded:
    return _plain(Tape(path.parent).read(path.stem))


def read_snapshot(path: Path) -> Decoded:
    found = Snapshots(path, 1.0).read()
    assert found is not None
    return _plain(found[1])


def read_data(path: Path) -> Decoded:
    arrays, _ = read_npz(path)
    return {str(index): array.tobytes() for index, array in enumerate(arrays)}


def read_images(path: Path) -> Decoded:
    return {"": read_idx(path, 3).tobytes()}


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail when what is inside takes more than :data:`MEMORY` at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


def originals() -> dict[str, Original]:
    """Return every reader's original, by the name of what it reads."""
    with tempfile.TemporaryDirectory() as folder:
        return _artifacts(Path(folder)) | _networks(Path(folder)) | _others(Path(folder))


def _artifacts(folder: Path) -> dict[str, Original]:
    """A masked tensor, a frozen one, a whole one and a tied name, through everything that needs no network."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, 16)).astype(np.float32)
    mask = np.tile([True, False, False, True], 24).reshape(6, 16)
    seed = SeedRecord("keyed-product", 0, "frozen", "uniform", 0.25)
    masked = make_tensor("weight", dense, mask=mask, record={"structure": "2:4", "role": "prunable"})
    frozen = make_tensor("frozen", dense, mask=dense > 1, record={"parametrisation": "frozen", "seed": seed})
    bias = make_tensor("bias", dense[0, :6].copy())
    tied = make_tensor("tied", dense, record={"alias_of": "weight"})
    trained = rebuild(seed, (6, 16)) + np.float32(1e-4) * dense
    told = make_tensor("told", trained, mask=dense > 0, record={"seed": seed})
    export(assembled(told), "packed", folder / "packed drift")
    found = {"packed drift": Original((folder / "packed drift").read_bytes(), "file", read_artifact, sealed=True)}
    tiles = Block(2, 4).spread(rng.random(12) < 0.4, (6, 16), 0)
    blocks = make_tensor("blocks", dense, mask=tiles, record={"structure": "block:2x4", "role": "prunable"})
    for format in ("packed", "csr"):
        export(assembled(blocks), format, folder / f"{format} blocks")
        content = (folder / f"{format} blocks").read_bytes()
        found[f"{format} blocks"] = Original(content, "file", read_artifact, sealed=True)
    for format in ("packed", "csr", "nm"):
        tensors = (masked, bias, tied) if format == "nm" else (masked, frozen, bias, tied)
        export(assembled(*tensors), format, folder / format)
        found[format] = Original((folder / format).read_bytes(), "file", read_artifact, sealed=True)
    for name, values in (("packed int8", "int8"), ("packed codebook", "codebook:4"), ("csr int8", "int8")):
        export(assembled(masked, frozen, bias), name.partition(" ")[0], folder / name, values=values)
        found[name] = Original((folder / name).read_bytes(), "file", read_artifact, sealed=True)
    parts = [tensor for tensor in every_kind((2, 2, 1, 2)) if "-" not in tensor.record.name]
    export(assembled(*parts), "packed", folder / "packed parts")
    found["packed parts"] = Original((folder / "packed parts").read_bytes(), "file", read_artifact, sealed=True)
    path = folder / "checkpoint.safetensors"
    assembled(masked, frozen, bias, tied).save(path)
    found["checkpoint"] = Original(path.read_bytes(), path.name, read_checkpoint)
    return found


def _networks(folder: Path) -> dict[str, Original]:
    (folder / "network.py").write_text(FACTORY)
    source = load_source(f"{folder / 'network.py'}:build", allow_import=True)
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(12, 64)).astype(np.float32)
    seed = SeedRecord("keyed-product", 0, "weight", "uniform", 0.25)
    bias = make_tensor("bias", dense[0, :12].copy())
    thin = make_tensor("weight", dense, mask=rng.random((12, 64)) < 0.1, record={"role": "prunable"})
    units = np.broadcast_to(rng.random((12, 1)) < 0.5, (12, 64)).copy()
    channels = make_tensor("weight", dense, mask=units, record={"role": "prunable", "structure": "channel"})
    fields = {"role": "prunable", "parametrisation": "frozen", "seed": seed}
    frozen = make_tensor("weight", dense, mask=rng.random((12, 64)) < 0.1, record=fields)
    found = {}
    for name, format, values, weight in (
        ("onnx", "onnx", "fp16", thin),
        ("onnx-unpack", "onnx-unpack", "fp32", frozen),
        ("onnx-unpack int8", "onnx-unpack", "int8", thin),
        ("onnx-unpack codebook", "onnx-unpack", "codebook:3", thin),
        ("onnx-sparse", "onnx-sparse", "fp32", thin),
        ("onnx-slim", "onnx-slim", "fp32", channels),
        ("torchscript", "torchscript", "fp32", thin),
        ("torch-export", "torch-export", "fp32", thin),
    ):
        path = folder / f"{name}.onnx"
        export(assembled(weight, bias, model=source.record), format, path, values=values, source=source)
        # A zip archive says much twice, and pads: what nobody reads may change.
        archive = format in FORMATS
        step = 37 if archive else 1
        found[name] = Original(path.read_bytes(), "file", read_artifact, sealed=not archive, step=step)
    path = folder / "sparse.onnx"
    checkpoint = assembled(thin, bias, model=source.record)
    write_onnx_dense(checkpoint, path, source=source, sparse_initializers=True)
    found["sparse initializers"] = Original(path.read_bytes(), "file", read_artifact, sealed=True)
    model = onnx.load(path)
    del model.metadata_props[:]
    found["foreign ONNX"] = Original(model.SerializeToString(), "file", read_artifact)
    return found


def _others(folder: Path) -> dict[str, Original]:
    rng = np.random.default_rng(2)
    state = {"weight": rng.normal(size=(4, 5)).astype(np.float32), "count": np.array(3)}
    tape, snapshots = Tape(folder), Snapshots(folder / "snapshot.safetensors", 1.0)
    tape.record("initial", state)
    snapshots.write(Position(1, {"step": 4}, {"flops": 7}, 99), state)
    images, labels = rng.integers(0, 256, (3, 4, 4)).astype(np.uint8), np.arange(3)
    buffer, packed = io.BytesIO(), io.BytesIO()
    np.savez_compressed(buffer, x_train=images, y_train=labels, x_test=images, y_test=labels, classes=np.array(3))
    idx = bytes([0, 0, 8, 3]) + b"".join(extent.to_bytes(4, "big") for extent in images.shape) + images.tobytes()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
        stream.write(idx)
    return {
        "tape": Original(tape.path("initial").read_bytes(), "initial.safetensors", read_tape),
        "snapshot": Original(snapshots.path.read_bytes(), "snapshot.safetensors", read_snapshot),
        "npz": Original(buffer.getvalue(), "data.npz", read_data),
        "idx": Original(idx, "train-images-idx3-ubyte", read_images),
        "idx.gz": Original(packed.getvalue(), "train-images-idx3-ubyte.gz", read_images),
    }
