"""The zoo against published parameter counts, closed forms, and its own promises about other sizes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from sparsepack.errors import ModelError, UsageError
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX
from sparsepack.models.zoo import ZOO
from sparsepack.models.zoo.resnet_cifar import BasicBlock

IMAGE_NETWORKS = [name for name, entry in ZOO.items() if entry.input_dtype == "float32"]
# A hundred megabytes and more: their shapes are looked at without memory for them.
LARGE = {"vgg-11", "alexnet", "wrn-28-10", "vgg-19", "resnet-18", "resnet-50"}


def counts(name: str, shape: tuple[int, ...] | None = None, classes: int | None = None) -> tuple[int, int, int]:
    """Return prunable weights, prunable tensors and all parameters."""
    with torch.device("meta"):
        module, _ = ZOO[name].build(shape, classes)
    tensors = prunable_tensors(module)
    return sum(t.size for t in tensors), len(tensors), sum(p.numel() for p in module.parameters())


# reference: methods.md 9.3. The totals of the batch-norm networks add two numbers a channel and the classifier's bias.
@pytest.mark.parametrize(
    ("name", "weights", "tensors", "total"),
    [
        ("lenet-300-100", 266_200, 3, 266_610),
        ("lenet-5-caffe", 430_500, 4, 431_080),
        ("lenet-s4", 59_838, 5, 60_074),
        ("conv-4", 2_425_024, 7, 2_425_024 + 64 + 64 + 128 + 128 + 256 + 256 + 10),
        ("conv-2", 4_300_992, 5, 4_300_992 + 2 * 64 + 2 * 256 + 10),
        ("conv-6", 2_261_184, 9, 2_261_184 + 2 * (64 + 128 + 256) + 2 * 256 + 10),
        ("resnet-20", 268_336, 20, 268_336 + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 10),
        # With 1x1 shortcuts, 512 + 2,048 weights more, it would be the 464,432 of the literature.
        ("resnet-32", 464_432 - 2_560, 32, 464_432 - 2_560 + 2 * (11 * 16 + 10 * 32 + 10 * 64) + 10),
        ("resnet-56", 848_944, 56, 848_944 + 2 * (19 * 16 + 18 * 32 + 18 * 64) + 10),
        ("vgg-16", 14_715_584, 14, 14_715_584 + 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512) + 10),
        ("vgg-19", 20_024_000, 17, 20_024_000 + 2 * (2 * 64 + 2 * 128 + 4 * 256 + 8 * 512) + 10),
        # The norms before the convolutions of three stages of three blocks, and the one at the end.
        ("wrn-22-2", 1_076_912, 23, 1_076_912 + 2 * (16 + 6 * 32 + 6 * 64 + 6 * 128) + 10),
        ("wrn-28-10", 36_461_232, 29, 36_479_194),
        ("vgg-11", 132_851_392, 11, 132_863_336),
        ("alexnet", 61_090_496, 8, 61_100_840),
        ("resnet-18", 11_678_912, 21, 11_689_512),
        ("resnet-50", 25_502_912, 54, 25_557_032),
        # Zhang and Stadie give the four gates of 28 inputs and 400 units as 684,800 weights; the classifier has 4,000.
        ("lstm", 684_800 + 4_000, 3, 688_800 + 1_600 + 10),
        # 784 features to 1,000 units; both to ten classes.
        ("rvfl", 784_000 + 17_840, 2, 801_840 + 1_000 + 10),
    ],
)
def test_published_parameter_counts(name: str, weights: int, tensors: int, total: int) -> None:
    assert counts(name) == (weights, tensors, total)
    assert f"{weights:,} weights" in ZOO[name].summary
    assert ZOO[name].build()[1] == []


def test_vgg_16_with_a_hundred_classes() -> None:
    assert counts("vgg-16", None, 100)[0] == 14_761_664


def test_resnet_50_has_the_batch_norm_parameters_and_statistics_of_the_paper() -> None:
    module, _ = ZOO["resnet-50"].build()
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # methods.md 7.3: 53,120 batch norm parameters; each layer has as many statistics and one counter.
    assert sum(p.numel() for norm in norms for p in norm.parameters()) == 53_120
    assert sum(b.numel() for b in module.buffers()) == 53_120 + len(norms) == 53_120 + 53


@pytest.mark.parametrize(
    ("tokens", "classes", "options"),
    [
        (32, 4, {}),
        (128, 2, {"vocabulary": 30522, "hidden": 384, "layers": 6, "heads": 12, "feed_forward": 1536}),
        (5, 3, {"vocabulary": 11, "hidden": 6, "layers": 1, "heads": 3, "feed_forward": 7}),
    ],
)
def test_text_encoder_has_the_parameters_of_the_closed_form(tokens: int, classes: int, options: dict[str, int]) -> None:
    module, _ = ZOO["text-encoder"].build((tokens,), classes, **options)
    v, h, n, _, m = {**ZOO["text-encoder"].options, **options}.values()
    weights = n * (4 * h * h + 2 * h * m) + h * classes
    others = v * h + tokens * h + 2 * h + n * (4 * h + m + h + 4 * h) + classes
    assert sum(t.size for t in prunable_tensors(module)) == weights
    assert sum(p.numel() for p in module.parameters()) == weights + others
    if options.get("hidden") == 384:
        # The six encoder layers of MiniLM-L6-H384 hold 10,646,784 parameters.
        assert sum(p.numel() for p in module.get_submodule("blocks").parameters()) == 10_646_784
    if not options:
        assert f"{weights:,} weights" in ZOO["text-encoder"].summary


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 17, 5), (4, 1, 1)])
def test_any_image_size_and_class_count_is_fitted(name: str, shape: tuple[int, int, int]) -> None:
    with torch.device("meta" if name in LARGE else "cpu"):
        module, adaptations = ZOO[name].build(shape, 7)
        logits = module(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    torch.autograd.backward(logits.sum())
    assert all(p.grad is not None for p in module.parameters())
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in adaptations)
    assert any("The last layer gives 7 classes" in sentence for sentence in adaptations)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("lenet-300-100", (1, 8, 8), ["fc1 takes 64 features instead of 784."]),
        (
            "lenet-5-caffe",
            (1, 8, 8),
            [
                "The 8x8 input is padded with zeros to 16x16, the smallest size that the convolutions and pools can "
                "take.",
                "fc1 takes 50 features instead of 800.",
            ],
        ),
        ("lenet-s4", (1, 10, 10), ["fc1 takes 16 features instead of 400."]),
        ("conv-4", (1, 8, 8), ["conv1 takes 1 channel instead of 3.", "fc1 takes 512 features instead of 8192."]),
        ("resnet-20", (3, 8, 8), []),
        ("vgg-16", (3, 8, 8), ["The 8x8 input has room for only the first 3 of 4 pools."]),
        ("vgg-16", (3, 64, 64), ["The 4x4 positions before fc are averaged instead of 2x2."]),
        ("conv-6", (3, 16, 16), ["fc1 takes 1024 features instead of 4096."]),
        ("alexnet", (3, 224, 224), []),
        (
            "vgg-11",
            (3, 30, 30),
            [
                "The 30x30 input is padded with zeros to 32x32, the smallest size that the convolutions and pools can "
                "take."
            ],
        ),
        ("lstm", (1, 8, 8), ["A step takes 8 features instead of 28."]),
        ("vit-tiny", (3, 16, 16), ["The encoder takes 16 patches instead of 64."]),
        ("text-encoder", (48,), ["The encoder takes 48 tokens instead of 32."]),
    ],
)
def test_an_adaptation_says_how(name: str, shape: tuple[int, ...], expected: list[str]) -> None:
    with torch.device("meta"):
        assert ZOO[name].build(shape)[1] == expected


def test_padding_is_symmetric_and_its_weights_see_the_image() -> None:
    module, _ = ZOO["lenet-5-caffe"].build((1, 8, 8))
    image = torch.zeros(1, 1, 8, 8)
    assert module.padding == (4, 4, 4, 4)
    outputs = [module(image)]
    for row, column in ((0, 0), (0, 7), (7, 0), (7, 7)):
        changed = image.clone()
        changed[0, 0, row, column] = 100.0
        outputs.append(module(changed))
    assert all(not torch.allclose(outputs[0], other) for other in outputs[1:])


def test_option_a_shortcut_is_strided_and_padded_with_zero_channels() -> None:
    block = BasicBlock(4, 8, 2)
    initialise(block, "uniform", 0, PHILOX)
    block.eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = torch.rand(2, 4, 6, 6)
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


def test_text_encoder_ignores_padding_and_survives_an_empty_text() -> None:
    module, _ = ZOO["text-encoder"].build()
    initialise(module, "uniform", 0, PHILOX)
    module.eval()
    ids = torch.randint(1, 1000, (1, 32), generator=torch.Generator().manual_seed(0))
    ids[0, 20:] = 0
    with torch.no_grad():
        before = module(ids)
        positions = module.get_parameter("positions.weight")
        positions[20:] = 1.0
        assert torch.equal(module(ids), before)
        positions[:20] = 1.0
        assert not torch.allclose(module(ids), before)
        assert torch.isfinite(module(torch.zeros_like(ids))).all()


def test_text_encoder_block_equals_the_frameworks_encoder_layer() -> None:
    module, _ = ZOO["text-encoder"].build()
    initialise(module, "kaiming-normal", 0, PHILOX)
    block = module.get_submodule("blocks.0")
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, activation="gelu", batch_first=True)
    state = block.state_dict()
    stacked = {
        "self_attn.in_proj_" + kind: [state[f"{p}.{kind}"] for p in ("query", "key", "value")]
        for kind in ("weight", "bias")
    }
    renamed = {name: torch.cat(parts) for name, parts in stacked.items()}
    for ours, theirs in {
        "attention_output": "self_attn.out_proj",
        "attention_norm": "norm1",
        "intermediate": "linear1",
        "output": "linear2",
        "output_norm": "norm2",
    }.items():
        renamed |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    layer.load_state_dict(renamed)
    x = torch.randn(3, 10, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(block(x, torch.zeros(1, 1, 1, 10)), layer(x), atol=1e-5)


def test_the_lstm_equals_the_frameworks() -> None:
    module, _ = ZOO["lstm"].build((1, 6, 5), 3, hidden=4)
    initialise(module, "uniform", 0, PHILOX)
    theirs = torch.nn.LSTM(5, 4, batch_first=True)
    state = module.state_dict()
    theirs.load_state_dict(
        {
            "weight_ih_l0": state["input.weight"],
            "weight_hh_l0": state["recurrent.weight"],
            "bias_ih_l0": state["input.bias"],
            "bias_hh_l0": torch.zeros(16),
        }
    )
    x = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, (hidden, _) = theirs(x[:, 0])
        assert torch.allclose(module(x), module.get_submodule("fc")(hidden[0]), atol=1e-6)


def test_the_vision_transformers_block_equals_the_frameworks_pre_norm_layer() -> None:
    module, _ = ZOO["vit-tiny"].build()
    initialise(module, "kaiming-normal", 0, PHILOX)
    block = module.get_submodule("blocks.0")
    layer = torch.nn.TransformerEncoderLayer(
        64, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    state = block.state_dict()
    renamed = {
        "self_attn.in_proj_" + kind: torch.cat([state[f"{p}.{kind}"] for p in ("query", "key", "value")])
        for kind in ("weight", "bias")
    }
    for ours, name in {
        "attention_output": "self_attn.out_proj",
        "attention_norm": "norm1",
        "intermediate": "linear1",
        "output": "linear2",
        "norm": "norm2",
    }.items():
        renamed |= {f"{name}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    layer.load_state_dict(renamed)
    x = torch.randn(3, 10, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(block(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in LARGE])
def test_every_network_is_drawn_from_a_seed_without_shared_parameters(name: str) -> None:
    module, _ = ZOO[name].build()
    records = initialise(module, "uniform", 0, KEYED_PRODUCT)
    names = [n for n, _ in module.named_parameters(remove_duplicate=False)]
    assert list(records) == names
    assert len({p.data_ptr() for p in module.parameters()}) == len(names)
    assert module.training


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg-16", (64,), r"images of shape \(channels, height, width\), the data has the shape \(64,\)"),
        ("text-encoder", (1, 8, 8), r"token ids of shape \(tokens,\), the data has the shape \(1, 8, 8\)"),
        ("lenet-300-100", (), "positive whole numbers"),
        ("lenet-300-100", (0,), "positive whole numbers"),
        ("lenet-300-100", (2.5,), "positive whole numbers"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ZOO[name].build(shape)


def test_classes_and_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="0 classes"):
        ZOO["lenet-s4"].build(None, 0)
    with pytest.raises(UsageError, match="no option 'hidden'; it takes none"):
        ZOO["lenet-s4"].build(hidden=3)
    with pytest.raises(UsageError, match=r"no option 'head'.* Did you mean 'heads'"):
        ZOO["text-encoder"].build(head=3)
    with pytest.raises(UsageError, match="'layers' is a positive whole number, not 0"):
        ZOO["text-encoder"].build(layers=0)
    with pytest.raises(ModelError, match="64 into 5 equal heads"):
        ZOO["text-encoder"].build(heads=5)


def test_numpy_integers_are_whole_numbers() -> None:
    module, _ = ZOO["lenet-300-100"].build((4,), np.arange(4).max())
    assert module(torch.zeros(1, 4)).shape == (1, 3)


def test_the_table_needs_no_framework() -> None:
    code = "import sys; from sparsepack.models.zoo import ZOO; sys.exit('torch' in sys.modules or len(ZOO) != 21)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["lenet-s4", "resnet-20", "wrn-22-2", "lstm", "vit-tiny", "text-encoder"])
def test_a_network_exports_with_a_dynamic_batch(name: str, tmp_path: object) -> None:
    entry = ZOO[name]
    module, _ = entry.build()
    initialise(module, "uniform", 0, PHILOX)
    module.eval()
    generator = torch.Generator().manual_seed(0)
    if entry.input_dtype == "int64":
        x = torch.randint(0, 1000, (5, *entry.input_shape), generator=generator)
    else:
        x = torch.randn(5, *entry.input_shape, generator=generator)
    path = f"{tmp_path}/network.onnx"
    torch.onnx.export(
        module, (x[:2],), path, dynamo=True, external_data=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        (got,) = session.run(None, {session.get_inputs()[0].name: x[:batch].numpy()})
        with torch.no_grad():
            expected = module(x[:batch])
        assert np.abs(got - expected.numpy()).max() < 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "rate"), [("lenet-5-caffe", 0.05), ("resnet-20", 0.05), ("wrn-22-2", 0.05), ("vit-tiny", 0.01)]
)
def test_a_network_learns(name: str, rate: float) -> None:
    module, _ = ZOO[name].build((1, 8, 8), 2)
    initialise(module, "uniform", 0, KEYED_PRODUCT)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    images = torch.rand(32, 1, 8, 8, generator=generator)
    images[labels == 1, :, 2:6, 2:6] += 1.0
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9)
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.cross_entropy(module(images), labels)
        torch.autograd.backward(loss)
        optimiser.step()
    assert float(loss.detach()) < 0.1
