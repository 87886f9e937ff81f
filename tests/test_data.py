from __future__ import annotations

import gzip
import io
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparsepack.errors import DataError, UnknownNameError, UsageError
from sparsepack.files import sha256_array
from sparsepack.models.augment import crop_flip
from sparsepack.models.data import Dataset, load_data, make_dataset
from sparsepack.models.dataset import Split
from sparsepack.models.seeding.shuffle import permutation
from sparsepack.models.source import InputSpec, ModelRecord

# Typed as anything, because numpy's own stubs take any keyword for its one option.
SAVE: Any = np.savez
SAVE_COMPRESSED: Any = np.savez_compressed
RNG = np.random.default_rng(0)
DIGITS = Path(sys.modules[load_data.__module__].__file__ or "").with_name("digits.npz")


def loaded(text: str, **options: Any) -> Dataset:
    data = load_data(text, **options)
    assert data is not None
    return data


def arrays(n: int = 20, shape: tuple[int, ...] = (6, 6), classes: int = 3) -> dict[str, np.ndarray]:
    labels = np.arange(n) % classes
    return {
        "x_train": RNG.integers(0, 256, (n, *shape), np.uint8),
        "y_train": labels,
        "x_test": RNG.integers(0, 256, (n // 2, *shape), np.uint8),
        "y_test": labels[: n // 2],
    }


def epoch(data: Dataset, split: Split = "train", **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    parts = list(data.batches(split, options.pop("batch_size", 7), **options))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def test_digits_are_the_published_set_split_once_and_for_all() -> None:
    data = loaded("digits")
    assert data.train_inputs.shape == (1437, 1, 8, 8)
    assert data.test_inputs.shape == (360, 1, 8, 8)
    assert data.train_inputs.dtype == np.uint8
    assert (data.classes, data.input_spec) == (10, InputSpec("input", (1, 8, 8), "float32"))
    both = np.concatenate([data.train_inputs, data.test_inputs])
    labels = np.concatenate([data.train_labels, data.test_labels])
    # The class counts that UCI lists for its test set; every image is there once, with values 0 to 16.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(np.unique(both.reshape(1797, 64), axis=0)) == 1797
    assert (int(both.min()), int(both.max())) == (0, 16)
    # Each class's share of 360, rounded to whole images.
    assert np.bincount(data.test_labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert int(both.astype(np.int64).sum()) == 561718
    # Results of different releases compare only if this never changes.
    assert sha256_array(data.test_inputs) == "3faeb62f83ca66045f7284f4cf1ad2b9e61dec233118b264bb69274373185ecd"


def test_the_file_itself_says_where_it_comes_from() -> None:
    with np.load(DIGITS, allow_pickle=False) as archive:
        assert "UCI" in str(archive["source"])
        assert "CC BY 4.0" in str(archive["licence"])
    with zipfile.ZipFile(DIGITS) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_normalisation_is_that_of_the_training_split() -> None:
    made = arrays(50, (2, 5, 5))
    data = make_dataset("made", *made.values())
    assert data.normalise is not None
    x = made["x_train"] / 255
    np.testing.assert_allclose(data.normalise.mean, x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.normalise.std, x.std(axis=(0, 2, 3)), rtol=1e-12)
    inputs, _ = epoch(data, shuffle=False)
    np.testing.assert_allclose(inputs.mean(dim=(0, 2, 3)), np.zeros(2), atol=1e-6)
    np.testing.assert_allclose(inputs.std(dim=(0, 2, 3), correction=0), np.ones(2), atol=1e-6)
    tested, _ = data.test()
    np.testing.assert_allclose(
        tested[:, 1], (made["x_test"][:, 1] / 255 - x[:, 1].mean()) / x[:, 1].std(), rtol=1e-4, atol=1e-6
    )


def test_a_constant_channel_is_centred_and_not_divided_by_zero() -> None:
    data = make_dataset("made", *(np.full_like(a, 77) if a.dtype == np.uint8 else a for a in arrays().values()))
    assert torch.equal(epoch(data)[0], torch.zeros(20, 1, 6, 6))


@pytest.mark.parametrize("augment", [None, "crop-flip"])
def test_batches_depend_on_seed_and_epoch_alone(augment: str | None) -> None:
    made = list(arrays().values())
    fresh = epoch(make_dataset("made", *made, augment=augment), seed=5, epoch=3)
    used = make_dataset("made", *made, augment=augment)
    epoch(used, seed=5, epoch=4)
    epoch(used, split="test")
    used.test()
    half_consumed = used.batches("train", 4, 5, 3)
    next(half_consumed)
    for again in (epoch(used, seed=5, epoch=3), epoch(used, seed=5, epoch=3, batch_size=20)):
        assert torch.equal(fresh[0], again[0])
        assert torch.equal(fresh[1], again[1])
    for other in (epoch(used, seed=6, epoch=3), epoch(used, seed=5, epoch=4)):
        assert not torch.equal(fresh[0], other[0])


def test_every_example_comes_once_an_epoch_with_its_own_label() -> None:
    made = arrays()
    made["x_train"][:, 0, 0] = np.arange(20)
    made["x_train"][:, 1:] = 0
    data = make_dataset("made", *made.values())
    assert data.normalise is not None
    for shuffle in (True, False):
        inputs, labels = epoch(data, shuffle=shuffle)
        values = inputs[:, 0, 0, 0] * 255 * data.normalise.std[0] + 255 * data.normalise.mean[0]
        places = values.round().int().tolist()
        assert sorted(places) == list(range(20))
        assert (places == list(range(20))) is not shuffle
        assert [place % 3 for place in places] == labels.tolist()
    assert [len(y) for _, y in data.batches("train", 7)] == [7, 7, 6]


@pytest.mark.parametrize(("batch_size", "sizes"), [(19, [20]), (20, [20]), (9, [9, 9, 2]), (1, [1] * 20), (30, [20])])
def test_a_single_example_that_is_left_over_joins_the_last_batch(batch_size: int, sizes: list[int]) -> None:
    # Batch normalisation has no variance on one example.
    data = make_dataset("made", *arrays().values())
    assert [len(y) for _, y in data.batches("train", batch_size)] == sizes
    assert data.steps(batch_size) == len(sizes)


def test_large_splits_give_the_same_batches_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list(arrays().values())
    kept = epoch(make_dataset("made", *made), seed=1)
    monkeypatch.setattr("sparsepack.models.dataset._RESIDENT_BYTES", 0)
    data = make_dataset("made", *made)
    streamed = epoch(data, seed=1)
    assert torch.equal(kept[0], streamed[0])
    assert torch.equal(kept[1], streamed[1])
    data.test()
    assert not data._resident


def test_batches_can_be_changed_without_changing_the_data() -> None:
    data = make_dataset("made", *(a.astype(np.float32) if a.ndim > 1 else a for a in arrays().values()))
    before = epoch(data, shuffle=False)[0]
    for x, _ in data.batches("train", 20, shuffle=False):
        x.zero_()
    assert torch.equal(epoch(data, shuffle=False)[0], before)
    np.testing.assert_array_equal(before.numpy(), data.train_inputs)


def test_crop_and_flip_is_what_doing_it_image_by_image_gives() -> None:
    images = RNG.integers(1, 256, (40, 2, 5, 6), np.uint8)
    places = np.array(permutation(3, "some order", 40))
    got = crop_flip(9, 2, 40)(torch.from_numpy(images[places]), places).numpy()
    padded = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    windows = {
        (y, x, flip): padded[:, :, y : y + 5, x : x + 6][..., :: -1 if flip else 1]
        for y in range(9)
        for x in range(9)
        for flip in (False, True)
    }
    seen = []
    for index, place in enumerate(places):
        matches = [key for key, window in windows.items() if np.array_equal(window[place], got[index])]
        assert matches
        seen.append(matches[0])
    assert len({y for y, _, _ in seen}) == 9
    assert len({x for _, x, _ in seen}) >= 8
    assert 8 <= sum(flip for _, _, flip in seen) <= 32


def test_only_training_batches_are_augmented() -> None:
    made = list(arrays().values())
    plain, augmented = make_dataset("made", *made), make_dataset("made", *made, augment="crop-flip")
    assert torch.equal(epoch(plain, "test")[0], epoch(augmented, "test")[0])
    assert torch.equal(epoch(plain)[0], epoch(augmented, augment=False)[0])
    assert not torch.equal(epoch(plain)[0], epoch(augmented)[0])
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'crop-flop'. Did you mean 'crop-flip'"):
        make_dataset("made", *made, augment="crop-flop")
    tokens = [a.reshape(len(a), -1).astype(np.int64) if a.ndim > 1 else a for a in made]
    with pytest.raises(DataError, match="is for images"):
        make_dataset("made", *tokens, augment="crop-flip")


@pytest.mark.parametrize(
    ("convert", "shape", "dtype", "normalised"),
    [
        (lambda x: x, (1, 6, 6), torch.float32, True),
        (lambda x: np.repeat(x[:, None], 3, axis=1), (3, 6, 6), torch.float32, True),
        (lambda x: x.astype(np.float64), (1, 6, 6), torch.float32, False),
        (lambda x: x.astype(np.float16)[:, 0], (6,), torch.float32, False),
        (lambda x: x[:, 0], (6,), torch.float32, True),
        (lambda x: x[:, 0].astype(np.int32), (6,), torch.int64, False),
        (lambda x: x[:, 0].astype(np.uint16), (6,), torch.int64, False),
    ],
)
def test_what_an_array_means_follows_from_its_shape_and_type(
    convert: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype, normalised: bool, tmp_path: Path
) -> None:
    made = {key: convert(a) if key.startswith("x") else a for key, a in arrays().items()}
    SAVE(tmp_path / "made.npz", **made)
    data = loaded(f"npz:{tmp_path / 'made.npz'}")
    assert data.input_spec.shape == shape
    assert (data.normalise is not None) is normalised
    x, y = next(data.batches("train", 4))
    assert (x.shape, x.dtype) == ((4, *shape), dtype)
    assert (y.shape, y.dtype) == ((4,), torch.int64)
    options = {"input_shape": list(shape), "classes": 3}
    if dtype is torch.int64:
        options["vocabulary"] = int(max(made["x_train"].max(), made["x_test"].max())) + 1
    assert data.model_options == options


def test_npz_may_say_how_many_classes_there_are(tmp_path: Path) -> None:
    SAVE_COMPRESSED(tmp_path / "made.npz", **arrays(), classes=5)
    assert loaded(f"npz:{tmp_path / 'made.npz'}").classes == 5
    SAVE_COMPRESSED(tmp_path / "few.npz", **arrays(), classes=2)
    with pytest.raises(DataError, match="has the label 2 but is said to have 2 classes"):
        load_data(f"npz:{tmp_path / 'few.npz'}")


def _npz(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**arrays(), **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_npz(y_test=None), "lacks y_test; it holds"),
        (_npz(y_train=np.arange(19)), "has 20 inputs and 19 labels in its train split"),
        (_npz(y_train=np.zeros((20, 1), int)), r"y_train must be whole numbers \[N\]; it is int64 \(20, 1\)"),
        (_npz(y_train=np.zeros(20)), "y_train must be whole numbers"),
        (_npz(y_train=np.full(20, -1)), "y_train has the negative label -1"),
        (_npz(x_train=np.zeros((20, 6, 6), np.int64)), r"x_train is int64 \(20, 6, 6\); expected images"),
        (_npz(x_train=np.zeros(20, np.uint8)), "expected images"),
        (_npz(x_test=np.zeros((10, 6, 7), np.uint8)), "they must be alike"),
        (_npz(x_train=np.full((20, 6, 6), np.nan), x_test=np.zeros((10, 6, 6))), "x_train holds values that are not"),
        (_npz(x_train=np.full((20, 6), -3), x_test=np.zeros((10, 6), int)), "negative token id -3"),
        (_npz(x_train=np.zeros((0, 6, 6), np.uint8), y_train=np.zeros(0, int)), "has 0 inputs and 0 labels"),
        (_npz(x_train=np.zeros((20, 0, 6), np.uint8)), r"x_train of shape \(20, 0, 6\) holds no number for an example"),
        (_npz(x_train=np.zeros((20, 0), np.int64)), "holds no number for an example"),
        (_npz(x_train=np.full((20, 6, 6), 1e308), x_test=np.zeros((10, 6, 6))), "are not finite as float32"),
        (_npz(y_train=np.full(20, 2**63, np.uint64)), "has the label 9223372036854775808; they end at 16777215"),
        (_npz(x_train=np.full((20, 6), 2**40), x_test=np.zeros((10, 6), int)), "has the token id 1099511627776"),
    ],
)
def test_arrays_that_form_no_data_set_are_refused(made: dict[str, Any], message: str, tmp_path: Path) -> None:
    SAVE(tmp_path / "made.npz", **made)
    with pytest.raises(DataError, match=message):
        load_data(f"npz:{tmp_path / 'made.npz'}")


def test_hostile_npz_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    text = f"npz:{path}"
    with pytest.raises(DataError, match="does not exist"):
        load_data(text)
    SAVE(path, **{**arrays(), "x_train": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(DataError, match=r"needs? pickle; refused"):
        load_data(text)
    SAVE_COMPRESSED(path, **arrays())
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cannot read"):
            load_data(text)
    broken = bytearray(whole)
    broken[200] ^= 0xFF
    path.write_bytes(broken)
    with pytest.raises(DataError):
        load_data(text)
    # A dtype of several fields that does not parse.
    member = io.BytesIO()
    np.save(member, arrays()["x_train"])
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", re.sub(rb"'descr': '[^']*'", b"'descr': '(,u1'", member.getvalue()))
    with pytest.raises(DataError, match="cannot read"):
        load_data(text)
    # A header that promises more than the file could hold, once against its own size and once against all reason.
    for shape, size in (((10**12, 6, 6), None), ((1 << 20, 1 << 10), 1 << 30)):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays().items():
                member = io.BytesIO()
                np.save(member, array)
                archive.writestr(f"{key}.npy", buffer.getvalue() if key == "x_train" else member.getvalue())
        if size is not None:
            content = path.read_bytes()
            real = struct.pack("<I", len(buffer.getvalue()))
            path.write_bytes(content.replace(real, struct.pack("<I", size)))
        with pytest.raises(DataError, match=r"does not fit its|claims|cannot read"):
            load_data(text)


def write_idx(path: Path, array: np.ndarray, header: bytes | None = None) -> None:
    start = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", extent) for extent in array.shape)
    content = (start if header is None else header) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize(("mark", "end"), [("-", ""), (".", ""), ("-", ".gz")])
def test_idx_files_are_read_under_their_usual_names(mark: str, end: str, tmp_path: Path) -> None:
    made = arrays()
    for part, key in (("train", "train"), ("t10k", "test")):
        write_idx(tmp_path / f"{part}-images{mark}idx3-ubyte{end}", made[f"x_{key}"])
        write_idx(tmp_path / f"{part}-labels{mark}idx1-ubyte{end}", made[f"y_{key}"])
    data = loaded(f"idx:{tmp_path}")
    np.testing.assert_array_equal(data.train_inputs[:, 0], made["x_train"])
    np.testing.assert_array_equal(data.test_labels, made["y_test"])


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "is no idx file"),
        (bytes([0, 0, 13, 3]) + bytes(12), "is no idx file of unsigned bytes with 3 dimensions"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 720), "is no idx file"),
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**31, 2**31, 2**31), "too short for that"),
        (
            bytes([0, 0, 8, 3]) + struct.pack(">III", 21, 6, 6),
            "too short for that|should hold 756 values.* it holds 720",
        ),
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 19, 6, 6), "it holds more"),
    ],
)
def test_idx_files_that_lie_are_refused(header: bytes, message: str, end: str, tmp_path: Path) -> None:
    made = arrays()
    write_idx(tmp_path / f"train-images-idx3-ubyte{end}", made["x_train"], header)
    with pytest.raises(DataError, match=message):
        load_data(f"idx:{tmp_path}")


def test_missing_and_broken_idx_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte \(nor train-images-idx3-ubyte.gz\)"):
        load_data(f"idx:{tmp_path}")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(5000))[:-9])
    with pytest.raises(DataError, match=r"is no idx file|cannot read"):
        load_data(f"idx:{tmp_path}")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="cannot read"):
        load_data(f"idx:{tmp_path}")


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10_is_read_from_its_binary_version(subfolder: str, tmp_path: Path) -> None:
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    records = RNG.integers(0, 256, (12, 3073), np.uint8)
    records[:, 0] %= 10
    names = [*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"]
    for index, name in enumerate(names):
        (folder / name).write_bytes(records[2 * index : 2 * index + 2].tobytes())
    data = loaded(f"cifar10:{tmp_path}")
    assert (data.classes, data.input_spec.shape) == (10, (3, 32, 32))
    np.testing.assert_array_equal(data.train_inputs.reshape(10, -1), records[:10, 1:])
    np.testing.assert_array_equal(data.test_labels, records[10:, 0])
    (folder / names[3]).write_bytes(bytes(3000))
    with pytest.raises(DataError, match=r"data_batch_4\.bin has 3000 bytes, no whole number of records"):
        load_data(f"cifar10:{tmp_path}")
    (folder / names[3]).write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(DataError, match="has the label 11"):
        load_data(f"cifar10:{tmp_path}")
    (folder / names[3]).unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin does not exist"):
        load_data(f"cifar10:{tmp_path}")


def write_images(folder: Path, counts: dict[str, int], mode: str = "L", size: tuple[int, int] = (5, 4)) -> None:
    for index, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, size, (index * 50 + number) if mode == "L" else (index, number, 9)).save(
                folder / name / f"{number:02}.png"
            )


def test_a_folder_with_a_split_of_its_own_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"dog": 3, "cat": 2}, "RGB")
    write_images(tmp_path / "test", {"cat": 1, "dog": 2}, "RGB")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    data = loaded(f"folder:{tmp_path}")
    assert data.input_spec.shape == (3, 4, 5)
    assert data.train_labels.tolist() == [0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 1, 1]
    assert data.train_inputs[3, :, 0, 0].tolist() == [0, 1, 9]


def test_a_folder_without_a_split_gives_a_fifth_of_each_class_to_testing(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 10, "b": 5, "c": 2})
    data, again = loaded(f"folder:{tmp_path}"), loaded(f"folder:{tmp_path}")
    assert data.input_spec.shape == (1, 4, 5)
    assert np.bincount(data.test_labels).tolist() == [2, 1, 1]
    assert np.bincount(data.train_labels).tolist() == [8, 4, 1]
    np.testing.assert_array_equal(data.test_inputs, again.test_inputs)
    both = np.concatenate([data.train_inputs, data.test_inputs])[:, 0, 0, 0]
    assert sorted(both.tolist()) == sorted([*range(10), *range(50, 55), 100, 101])


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"folder:{tmp_path / 'images'}"
    folder = tmp_path / "images"
    with pytest.raises(DataError, match="is no folder"):
        load_data(text)
    folder.mkdir()
    with pytest.raises(DataError, match="holds no folders of images"):
        load_data(text)
    write_images(folder, {"a": 3, "b": 3})
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        load_data(text)
    write_images(folder / "empty", {"train": 1})
    (folder / "empty").rename(tmp_path / "elsewhere")
    Image.new("L", (6, 4)).save(folder / "b" / "09.png")
    with pytest.raises(DataError, match=r"00\.png is 5x4 and .*09\.png is 6x4; all images must be of one size"):
        load_data(text)
    (folder / "b" / "09.png").write_bytes((folder / "b" / "00.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cannot read the image .*09\.png"):
        load_data(text)
    (folder / "b" / "09.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read the image .*09\.png"):
        load_data(text)
    (folder / "b" / "09.png").unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match="cannot read the image"):
        load_data(text)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'sparsepack\[images\]'"):
        load_data(text)


def test_half_a_split_and_unequal_classes_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="give both, or neither"):
        load_data(f"folder:{tmp_path}")
    write_images(tmp_path / "test", {"a": 2})
    with pytest.raises(DataError, match="'b' is in one of them only"):
        load_data(f"folder:{tmp_path}")
    write_images(tmp_path / "lonely", {"a": 1, "b": 2})
    with pytest.raises(DataError, match="the class 'a' has one image only"):
        load_data(f"folder:{tmp_path / 'lonely'}")


FACTORIES = """
import numpy as np
import torch
from sparsepack.models.data import make_dataset
x, y = np.arange(60, dtype=np.uint8).reshape(10, 2, 3), np.arange(10) % 2
def as_dict(): return {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": 4}
def as_tuple(): return x, y, x, y
def as_tensors(): return tuple(torch.from_numpy(a) for a in (x, y, x, y))
def as_dataset(): return make_dataset("mine", x, y, x, y, augment="crop-flip")
def at_random(): return np.random.rand(10, 3), y, torch.rand(10, 3), y
def short(): return {"x_train": x}
def wrong(): return [x, y]
def lists(): return x.tolist(), y, x, y
def raises(): raise KeyError("lost")
def half(): return torch.zeros(10, 3, dtype=torch.bfloat16), y, torch.zeros(10, 3, dtype=torch.bfloat16), y
def ten(): return {**as_dict(), "classes": "ten"}
"""


def test_a_factory_may_return_a_dict_a_tuple_tensors_or_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORIES)
    made = {name: loaded(f"{tmp_path}/mine.py:{name}") for name in ("as_dict", "as_tuple", "as_tensors", "as_dataset")}
    for data in made.values():
        assert data.input_spec.shape == (1, 2, 3)
        np.testing.assert_array_equal(data.train_inputs.reshape(-1), np.arange(60))
    assert [data.classes for data in made.values()] == [4, 2, 2, 2]
    assert made["as_dataset"].augment == "crop-flip"
    random = [loaded(f"{tmp_path}/mine.py:at_random") for _ in range(2)]
    np.testing.assert_array_equal(random[0].train_inputs, random[1].train_inputs)
    np.testing.assert_array_equal(random[0].test_inputs, random[1].test_inputs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "returned a dict without y_train, x_test, y_test"),
        ("wrong", "returned a list; expected a Dataset"),
        ("lists", "returned a list where an array was expected"),
        ("raises", r"raised KeyError: 'lost' \(mine\.py, line 14\)"),
        ("half", r"x_train is bfloat16 \(10, 3\); expected images"),
        ("ten", "returned 'ten' for 'classes', which must be one whole number"),
        ("as_tupel", "has no 'as_tupel'. Did you mean 'as_tuple'"),
    ],
)
def test_factories_that_fail_say_so_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORIES)
    with pytest.raises(DataError, match=message):
        load_data(f"{tmp_path}/mine.py:{name}")


def test_names_that_are_no_data_are_usage_errors(tmp_path: Path) -> None:
    assert load_data("none") is None
    with pytest.raises(
        UnknownNameError, match=r"unknown data 'digit'. Did you mean 'digits'. Choose from: digits, npz:"
    ):
        load_data("digit")
    with pytest.raises(UnknownNameError, match="unknown data 'npz:'"):
        load_data("npz:")
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef f(): pass\n")
    with pytest.raises(UsageError, match=r"run only when you name it; give --data .*mine\.py:f"):
        load_data(f"{tmp_path}/mine.py:f", allow_import=False)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ModelRecord("zoo", "net", [InputSpec("input", (1, 8, 8))], {"classes": 10}), None),
        (ModelRecord("onnx", "net.onnx", [InputSpec("x", (-1, 8, -1))]), None),
        (
            ModelRecord("zoo", "net", [InputSpec("input", (3, 32, 32))]),
            r"'digits' has inputs of shape \(1, 8, 8\), float32; 'net' takes \(3, 32, 32\), float32",
        ),
        (ModelRecord("zoo", "net", [InputSpec("input", (1, 8, 8), "int64")]), r"'net' takes \(1, 8, 8\), int64"),
        # One channel may go: the network takes rows of images as series.
        (ModelRecord("zoo", "net", [InputSpec("input", (8, 8))]), None),
        (ModelRecord("zoo", "net", [InputSpec("input", (8, 9))]), r"'net' takes \(8, 9\)"),
        (
            ModelRecord("zoo", "net", [InputSpec("input", (1, 8, 8))], {"classes": 1000}),
            "'digits' has 10 classes; 'net' has 1000. Labels that leave classes out .* 'classes' in the npz file",
        ),
        (
            ModelRecord("zoo", "net", [InputSpec("input", (1, 8, 8))], {"classes": 2}),
            r"'digits' has 10 classes; 'net' has 2\.$",
        ),
        (ModelRecord("factory", "net", [InputSpec("a", (1,)), InputSpec("b", (1,))]), "has 2 inputs"),
    ],
)
def test_data_says_whether_it_fits_a_model(record: ModelRecord, message: str | None) -> None:
    data = loaded("digits")
    if message is None:
        data.fitted(record)
        return
    with pytest.raises(DataError, match=message):
        data.fitted(record)


def test_token_ids_must_be_known_to_the_model() -> None:
    x, y = np.arange(20).reshape(5, 4), np.arange(5)
    data = make_dataset("tokens", x, y, x, y)
    data.fitted(ModelRecord("zoo", "text", [InputSpec("input", (4,), "int64")], {"vocabulary": 20}))
    with pytest.raises(DataError, match="has token ids up to 19; 'text' knows 19"):
        data.fitted(ModelRecord("zoo", "text", [InputSpec("input", (4,), "int64")], {"vocabulary": 19}))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'tset'. Did you mean 'test'"):
        next(loaded("digits").batches("tset", 4))  # type: ignore[arg-type]  # the point of the test
