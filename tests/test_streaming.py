"""Networks larger than memory: packed files are written and read tensor by tensor, in a process that has no room."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.errors import FileFormatError
from sparsepack.exporters import export

Build = Callable[..., SparseCheckpoint]
# 24 tensors of 4 MiB, all at 90 %: 96 MiB dense. Twice the largest tensor and 32 MiB are 40.
COUNT, SIZE = 24, 2**20
ROOM = 2 * 4 * SIZE + 32 * 2**20

# What is allocated once (imports, thread stacks) is not the codec's; from then on the address space is closed.
CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.packed import write_packed

folder, room = Path(sys.argv[2]), int(sys.argv[3])
np.sort(np.random.default_rng(0).random(1000)).astype(np.float32)
export(SparseCheckpoint.open(folder / "small.safetensors"), "packed", folder / "small.spk", force=True).verify()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + room
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
if sys.argv[1] == "all":
    held = SparseCheckpoint.load(folder / "large.safetensors").dense_state()
elif sys.argv[1] == "write":
    write_packed(SparseCheckpoint.open(folder / "large.safetensors"), folder / "large.spk")
else:
    artifact = open_artifact(folder / "large.spk")
    artifact.verify()
    print(sum(tensor.kept for tensor in artifact.sparse_tensors()))
"""


def large(index: int) -> SparseTensor:
    dense = np.random.default_rng(index).normal(size=(1024, SIZE // 1024)).astype(np.float32)
    return make_tensor(f"{index}.weight", dense, mask=np.abs(dense) > 1.645, record={"role": "prunable"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the address space is limited through Linux's /proc")
def test_a_network_larger_than_memory_goes_through(checkpoint_of: Build, tmp_path: Path) -> None:
    tensors = [large(index) for index in range(COUNT)]
    checkpoint_of(*tensors).save(tmp_path / "large.safetensors")
    checkpoint_of(tensors[0]).save(tmp_path / "small.safetensors")

    def child(what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CHILD, what, str(tmp_path), str(ROOM)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    # The limit is real: the whole network does not fit.
    assert "MemoryError" in child("all").stderr
    wrote = child("write")
    assert wrote.returncode == 0, wrote.stderr
    read = child("read")
    assert read.returncode == 0, read.stderr
    assert int(read.stdout) == sum(tensor.kept for tensor in tensors)
    whole = export(checkpoint_of(*tensors), "packed", tmp_path / "whole.spk")
    assert (tmp_path / "large.spk").read_bytes() == whole.path.read_bytes()


def test_an_opened_checkpoint_is_the_loaded_one(checkpoint_of: Build, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    tensors = [
        make_tensor("a", weight, mask=weight > 0),
        make_tensor("b", weight),
        make_tensor("c", weight, record={"alias_of": "b"}),
    ]
    path = tmp_path / "checkpoint.safetensors"
    checkpoint_of(*tensors).save(path)
    opened, loaded = SparseCheckpoint.open(path), SparseCheckpoint.load(path)
    assert list(opened.tensors) == list(loaded.tensors) == ["a", "b", "c"]
    assert len(opened.tensors) == 3
    for name, array in opened.dense_state().items():
        np.testing.assert_array_equal(array, loaded.dense_state()[name])
    opened.verify()
    with pytest.raises(KeyError):
        opened.tensors["d"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="truncated"):
        SparseCheckpoint.open(path)
