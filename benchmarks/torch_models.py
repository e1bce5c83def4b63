"""The networks of the benchmarks in plain PyTorch, written as its users write them.

AlexNet, ResNet18 and ViT-B/16 are torchvision's, the first two with its names of modules. ResNet50 and MobileNet are those of Keras
Applications, as ours are: ResNet50 has its strides in the first convolution of a stage, and biases before BatchNorm; MobileNet pads on
one side.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tl_keras.backbones import HEAD


class AlexNet(nn.Module):
    """torchvision.models.alexnet (Krizhevsky 2014): images (b, 3, h, w) -> logits (b, num_classes)."""

    def __init__(self, num_classes: int, filters: tuple[int, ...] = (64, 192, 384, 256, 256), units: int = 4096):
        super().__init__()
        a, b, c, d, e = filters
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(e * 36, units), nn.ReLU(inplace=True),
            nn.Dropout(), nn.Linear(units, units), nn.ReLU(inplace=True),
            nn.Linear(units, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return stage -> the modules with its weights."""
        convolutions = {f"conv{number}": [self.features[index]] for number, index in enumerate((0, 3, 6, 8, 10), start=1)}
        return convolutions | {"fc6": [self.classifier[1]], "fc7": [self.classifier[4]], HEAD: [self.classifier[6]]}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and their shortcut."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x) if self.downsample else x
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """torchvision.models.resnet18 (He et al. 2015): images (b, 3, h, w) -> logits (b, num_classes)."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return stage -> the modules with its weights."""
        layers = {f"layer{number}": [getattr(self, f"layer{number}")] for number in (1, 2, 3, 4)}
        return {"stem": [self.conv1, self.bn1], **layers, HEAD: [self.fc]}


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, and their shortcut."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        outputs = 4 * filters
        self.convolutions = nn.Sequential(
            nn.Conv2d(inputs, filters, 1, stride), nn.BatchNorm2d(filters), nn.ReLU(inplace=True),
            nn.Conv2d(filters, filters, 3, 1, 1), nn.BatchNorm2d(filters), nn.ReLU(inplace=True),
            nn.Conv2d(filters, outputs, 1), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.convolutions(x) + (self.downsample(x) if self.downsample else x))


class ResNet50(nn.Module):
    """keras.applications.ResNet50 (He et al. 2015): images (b, 3, h, w) -> logits (b, num_classes)."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.layer1 = self._layer(64, 64, 1, 3)
        self.layer2 = self._layer(256, 128, 2, 4)
        self.layer3 = self._layer(512, 256, 2, 6)
        self.layer4 = self._layer(1024, 512, 2, 3)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    @staticmethod
    def _layer(inputs: int, filters: int, stride: int, num_blocks: int) -> nn.Sequential:
        others = [Bottleneck(4 * filters, filters, 1) for _ in range(num_blocks - 1)]
        return nn.Sequential(Bottleneck(inputs, filters, stride), *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return stage -> the modules with its weights."""
        layers = {f"layer{number}": [getattr(self, f"layer{number}")] for number in (1, 2, 3, 4)}
        return {"stem": [self.stem], **layers, HEAD: [self.fc]}


def _convolution(inputs: int, filters: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Return a convolution of MobileNet. At stride 2, Keras pads below and on the right only."""
    padding = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    convolution = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)
    return nn.Sequential(*padding, convolution, nn.BatchNorm2d(filters), nn.ReLU6(inplace=True))


class MobileNet(nn.Module):
    """keras.applications.MobileNet (Howard et al. 2017): images (b, 3, h, w) -> logits (b, num_classes)."""

    BLOCKS = (((64, 1),), ((128, 2), (128, 1)), ((256, 2), (256, 1)), ((512, 2), *[(512, 1)] * 5), ((1024, 2), (1024, 1)))

    def __init__(self, num_classes: int):
        super().__init__()
        self.stem, inputs, blocks = _convolution(3, 32, 3, 2), 32, []
        for block in self.BLOCKS:
            layers = []
            for filters, stride in block:
                layers += [_convolution(inputs, inputs, 3, stride, groups=inputs), _convolution(inputs, filters, 1, 1)]
                inputs = filters
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.avgpool(self.blocks(self.stem(x))), 1))

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return stage -> the modules with its weights."""
        blocks = {f"block{number}": [block] for number, block in enumerate(self.blocks, start=1)}
        return {"stem": [self.stem], **blocks, HEAD: [self.fc]}


class EncoderBlock(nn.Module):
    """Self-attention and two linear layers, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Embedding(nn.Module):
    """A class token and the patches of an image, with the embedding of their positions."""

    def __init__(self, image_size: int, dim: int):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, dim, 16, 16)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(1, 1 + (image_size // 16) ** 2, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embedding


class VisionTransformer(nn.Module):
    """torchvision.models.vit_b_16 (Dosovitskiy et al. 2020): images (b, 3, 224, 224) -> logits (b, num_classes)."""

    def __init__(self, num_classes: int, image_size: int = 224, dim: int = 768):
        super().__init__()
        self.embed = Embedding(image_size, dim)
        self.blocks = nn.Sequential(*[EncoderBlock(dim, dim // 64, 4 * dim) for _ in range(12)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.blocks(self.embed(x)))[:, 0])

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return stage -> the modules with its weights."""
        blocks = {f"block{number}": [block] for number, block in enumerate(self.blocks, start=1)}
        return {"embed": [self.embed], **blocks, "norm": [self.norm], HEAD: [self.fc]}


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_narrow": partial(AlexNet, filters=(16, 48, 96, 64, 64), units=384),
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "mobilenet": MobileNet,
    "vit_b16": VisionTransformer,
}
