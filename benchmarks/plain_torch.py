"""Plain PyTorch: torchvision's AlexNet and ResNet18, and the training loop of the source reports' scripts, in float32.

Names of modules are torchvision's. Frozen weights have `requires_grad=False`, so PyTorch omits gradients that are not needed. The
whole model is in train mode, as `model.train()` leaves it. The number of threads is torch's default.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.arrays import Arrays
from benchmarks.work import CLASSES, LEARNING_RATE, MOMENTUM, Clock, Once, Outcome, Work, timed
from tl_keras.backbones import HEAD
from tl_keras.strategies import Phase

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


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


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_narrow": partial(AlexNet, filters=(16, 48, 96, 64, 64), units=384),
    "resnet18": ResNet18,
}


def _loader(images: np.ndarray, labels: np.ndarray, batch_size: int, *, shuffle: bool) -> DataLoader:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return DataLoader(TensorDataset(pixels, torch.from_numpy(labels)), batch_size, shuffle=shuffle)


def _prepare(pixels: torch.Tensor, image_size: int) -> torch.Tensor:
    """uint8 (b, 3, h, w) -> float32 (b, 3, size, size), normalised."""
    images = functional.interpolate(pixels.float() / 255, size=(image_size, image_size), mode="bilinear", align_corners=False)
    return (images - MEAN) / STD


def _optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """Freeze the stages that `phase` does not train, and return an optimizer of the others."""
    for stage, modules in model.stages().items():
        for module in modules:
            module.requires_grad_(stage in phase.trainable)
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE, MOMENTUM)


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Train on batches of normalized images once. Return the summed loss."""
    model.train()
    total = 0.0
    for images, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total


def _test(model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> int:
    """Return the number of images that are classified correctly."""
    model.eval()
    with torch.no_grad():
        return sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)


def _prepared(loader: DataLoader, image_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return ((_prepare(pixels, image_size), labels) for pixels, labels in loader)


@contextmanager
def train(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Do the whole job: build, train all phases, test."""

    def job() -> Outcome:
        clock = Clock(work)
        model = MODELS[work.backbone](CLASSES)
        training = _loader(arrays.train, arrays.train_labels, work.batch_size, shuffle=True)
        for phase in work.phases():
            optimizer = _optimizer(model, phase)
            for _ in clock.epochs(phase):
                _train(model, optimizer, _prepared(training, work.image_size))
        testing = _loader(arrays.test, arrays.test_labels, work.batch_size, shuffle=False)
        num_correct = _test(model, _prepared(testing, work.image_size))
        return clock.outcome(num_correct / len(arrays.test))

    yield job


def _batch(work: Work, arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    loader = _loader(arrays.train, arrays.train_labels, work.batch_size, shuffle=False)
    return next(iter(_prepared(loader, work.image_size)))


@contextmanager
def step(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train on a prepared batch, step by step."""
    model = MODELS[work.backbone](CLASSES)
    optimizer, batches = _optimizer(model, work.phases()[0]), [_batch(work, arrays)] * work.steps
    yield timed(lambda: _train(model, optimizer, batches))


@contextmanager
def predict(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Predict a prepared batch."""
    model, batches = MODELS[work.backbone](CLASSES), [_batch(work, arrays)] * work.steps
    yield timed(lambda: _test(model, batches))


@contextmanager
def feed(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Read the batches of an epoch."""
    loader = _loader(arrays.train, arrays.train_labels, work.batch_size, shuffle=True)
    yield timed(lambda: sum(len(labels) for _, labels in _prepared(loader, work.image_size)))


def first_step(work: Work, arrays: Arrays) -> None:
    """Build everything and take the first training step."""
    model = MODELS[work.backbone](CLASSES)
    loader = _loader(arrays.train, arrays.train_labels, work.batch_size, shuffle=True)
    _train(model, _optimizer(model, work.phases()[0]), [next(_prepared(loader, work.image_size))])


def matrix_rate(dtype: str, size: int, seconds: float) -> float:
    """Return the multiply-adds per second of a product of square matrices of `size`, measured for `seconds`."""
    matrix = torch.ones((size, size), dtype=getattr(torch, dtype))
    matrix @ matrix
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        matrix @ matrix
        count += 1
    return count * size**3 / (time.perf_counter() - started)
