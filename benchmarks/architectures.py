"""Small networks of the families that slimming must follow and the zoo does not have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsepack.models.source import InputSpec


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Return convolution, BatchNorm and activation."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


class DenseNet(nn.Module):
    """Two dense blocks of four layers: every layer reads all before it through Concat."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 1, 1)
        self.layers = nn.ModuleList()
        width = 24
        for block in range(2):
            for _ in range(4):
                narrow = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 48, 1)]
                self.layers.append(nn.Sequential(*narrow, nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 12, 3, 1, 1)))
                width += 12
            if block == 0:
                half = nn.Conv2d(width, width // 2, 1)
                self.transition = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), half, nn.AvgPool2d(2))
                width //= 2
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        x = self.stem(x)
        for position, layer in enumerate(self.layers):
            if position == 4:
                x = self.transition(x)
            x = torch.cat([x, layer(x)], 1)
        scores: Tensor = self.head(F.relu(x).mean((2, 3)))
        return scores


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups."""
    batch, channels, height, width = x.shape
    split = x.view(batch, groups, channels // groups, height, width)
    return split.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNet: grouped 1x1, shuffle, depthwise, grouped 1x1, residual."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        narrow = width // 4
        self.groups = groups
        self.reduce = conv(width, narrow, 1, 1, groups)
        self.depthwise = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3, 1, 1, groups=narrow, bias=False), nn.BatchNorm2d(narrow)
        )
        self.widen = nn.Sequential(nn.Conv2d(narrow, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return activations of the same shape."""
        return F.relu(x + self.widen(self.depthwise(shuffle(self.reduce(x), self.groups))))


class SplitUnit(nn.Module):
    """ShuffleNet V2: half of the channels pass by, then both halves are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        depthwise = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.branch = nn.Sequential(conv(half, half, 1), depthwise, nn.BatchNorm2d(half), conv(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return activations of the same shape."""
        first, second = x.chunk(2, 1)
        return shuffle(torch.cat([first, self.branch(second)], 1), 2)


class ShuffleNet(nn.Module):
    """Four units of one kind between a stem and a head."""

    def __init__(self, unit: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = conv(3, 96, 3, 2)
        self.units = nn.Sequential(*(unit() for _ in range(4)))
        self.last = conv(96, 128, 1)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        scores: Tensor = self.head(self.last(self.units(self.stem(x))).mean((2, 3)))
        return scores


class MobileNet(nn.Module):
    """Depthwise separable convolutions with four kinds of activation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 32, 3, 2),
            conv(32, 32, 3, 1, 32),
            conv(32, 64, 1),
            conv(64, 64, 3, 2, 64),
            conv(64, 128, 1, act=nn.ReLU6),
            conv(128, 128, 3, 1, 128, nn.SiLU),
            conv(128, 96, 1, act=nn.PReLU),
        )
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        scores: Tensor = self.head(self.body(x).mean((2, 3)))
        return scores


class UNet(nn.Module):
    """Two levels down and up again: ConvTranspose and skips through Concat."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 16), conv(16, 32), conv(32, 64)
        self.rise2, self.up2 = nn.ConvTranspose2d(64, 32, 2, 2), conv(64, 32)
        self.rise1, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), conv(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of class scores at the input's resolution."""
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.rise2(self.bottom(F.max_pool2d(second, 2)))
        y = self.rise1(self.up2(torch.cat([y, second], 1)))
        scores: Tensor = self.head(self.up1(torch.cat([y, first], 1)))
        return scores


class Tagger(nn.Module):
    """Embedding, a bidirectional LSTM and two linear layers, one tag a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(100, 32), nn.Linear(32, 48)
        self.recurrent = nn.LSTM(48, 64, batch_first=True, bidirectional=True)
        self.outer, self.head = nn.Linear(128, 64), nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Return tag scores."""
        states, _ = self.recurrent(F.relu(self.inner(self.embedding(x))))
        scores: Tensor = self.head(F.relu(self.outer(states)))
        return scores


class Excite(nn.Module):
    """A squeeze-and-excitation gate between two convolutions, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 32), conv(32, 32)
        self.squeeze, self.widen = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        x = self.first(x)
        x = x * torch.sigmoid(self.widen(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        scores: Tensor = self.head(F.adaptive_avg_pool2d(self.second(x), 4).flatten(1))
        return scores


_IMAGE = InputSpec("input", (3, 32, 32))
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], InputSpec]] = {
    "densenet": (DenseNet, _IMAGE),
    "shufflenet": (lambda: ShuffleNet(lambda: ShuffleUnit(96, 3)), _IMAGE),
    "shufflenet-v2": (lambda: ShuffleNet(lambda: SplitUnit(96)), _IMAGE),
    "mobilenet": (MobileNet, _IMAGE),
    "unet": (UNet, _IMAGE),
    "squeeze-excite": (Excite, _IMAGE),
    "lstm-tagger": (Tagger, InputSpec("input", (12,), "int64")),
}
VOCABULARY = 100


def initialised(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return the network in eval mode with weights that keep signals alive through every layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=1.4 / float(parameter[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.1)
    return module.eval()


def examples_of(spec: InputSpec, batch: int, seed: int) -> tuple[Tensor, ...]:
    """Return random inputs."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *spec.shape)
    if spec.dtype == "int64":
        return (torch.randint(0, VOCABULARY, shape, generator=generator),)
    return (torch.randn(shape, generator=generator),)
