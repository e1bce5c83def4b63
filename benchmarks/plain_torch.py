"""Plain PyTorch: the training loop of the source reports' scripts, in float32.

Frozen weights have `requires_grad=False`, so PyTorch omits gradients that are not needed. The
whole model is in train mode, as `model.train()` leaves it. The number of threads is torch's default.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.arrays import Arrays
from benchmarks.torch_models import MODELS
from benchmarks.work import CLASSES, LEARNING_RATE, MOMENTUM, Clock, Once, Outcome, Work, timed
from tl_keras.strategies import Phase

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


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
