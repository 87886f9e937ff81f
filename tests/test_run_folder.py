"""The files that a run keeps for itself: its log and its snapshot."""

from pathlib import Path

import numpy as np
import pytest

from sparsepack import files
from sparsepack.compressor.run_folder import RunFolder, read_log, training_seconds
from sparsepack.compressor.training.resume import Position, Snapshots
from sparsepack.errors import FileFormatError


def test_the_log_is_cut_back_to_the_snapshot(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in range(3):
        folder.append({"event": "stage", "stage": str(number), "seconds": 1.5})
    size = folder.log_size()
    folder.append({"event": "epoch"})
    with folder.log.open("ab") as stream:
        stream.write(b'{"event": "cut sho')
    assert [event["event"] for event in read_log(folder.log)] == ["stage"] * 3 + ["epoch"]
    folder.cut_log(size)
    assert [event["stage"] for event in read_log(folder.log)] == ["0", "1", "2"]
    assert training_seconds(folder.log) == 4.5
    assert read_log(tmp_path / "none.jsonl") == []


def broken_snapshot(path: Path) -> Snapshots:
    snapshots = Snapshots(path, 1.0)
    snapshots.write(Position(0, None, {}, 0), {"model:w": np.arange(6, dtype=np.float32)})
    return snapshots


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "s.safetensors", 1e9)
    assert snapshots.read() is None
    assert not snapshots.due
    position = Position(3, {"step": 7, "loss_total": 0.1 + 0.2, "scaler": None}, {"seconds": 1.25}, 99)
    arrays = {"a": np.array([True, False]), "b": np.array(3.5, np.float32), "c": np.zeros((0, 4), np.int64)}
    snapshots.write(position, arrays)
    found = snapshots.read()
    assert found is not None
    assert found[0] == position
    assert found[1].keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name], array)
    snapshots.remove()
    assert snapshots.read() is None
    assert Snapshots(tmp_path / "s.safetensors", 0.0).due


@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign", "header"])
def test_a_damaged_snapshot_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.safetensors"
    snapshots = broken_snapshot(path)
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[:-4])
    elif damage == "flip":
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 16]) + content[-1:])
    elif damage == "foreign":
        files.write_safetensors(path, {"w": np.zeros(3, np.float32)}, {"format": "other"})
    else:
        path.write_bytes(content.replace(b'\\"stage\\":0', b'\\"stage\\":"'))
    with pytest.raises(FileFormatError, match=r"the run cannot go on: .* Give --force to begin it anew\."):
        snapshots.read()
