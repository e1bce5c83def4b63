"""The images of the benchmark, as uint8 arrays in memory: random, or of CIFAR-10 if it is available."""

from dataclasses import dataclass
from uuid import uuid4

import numpy as np

from tl_keras import data
from tl_keras.config import DataConfig

SIZE, CLASSES = 32, 10


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (n, 32, 32, 3) and labels int64 (n,) of both splits, and their origin."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    origin: str

    def take(self, num_train: int, num_test: int) -> "Arrays":
        """Return the first images of both splits."""
        return Arrays(
            self.train[:num_train], self.train_labels[:num_train], self.test[:num_test], self.test_labels[:num_test], self.origin
        )  # fmt: skip

    def source(self) -> data.DatasetSource:
        """Return the images for tl_keras. Each call has a new fingerprint, so no cached features are found."""
        return data.DatasetSource(
            name="benchmark",
            class_names=tuple("0123456789"),
            train=data.make_examples(data.ImageStore(self.train), self.train_labels),
            validation=None,
            test=data.make_examples(data.ImageStore(self.test), self.test_labels),
            fingerprint=uuid4().hex,
        )


def random(num_train: int, num_test: int) -> Arrays:
    """Return noise. The speed of a model does not depend on its images."""
    numbers = np.random.default_rng(0)
    parts = [(numbers.integers(0, 256, (n, SIZE, SIZE, 3), np.uint8), np.arange(n) % CLASSES) for n in (num_train, num_test)]
    return Arrays(*parts[0], *parts[1], origin="random")


def cifar10(data_dir: str, num_train: int, num_test: int) -> Arrays:
    """Return the first images of both splits of CIFAR-10.

    Raises:
        MissingError: CIFAR-10 is not prepared in `data_dir` and cannot be downloaded.
    """
    source = data.load_source(DataConfig(dataset="cifar10", data_dir=data_dir))
    splits = ((source.train, num_train), (source.test, num_test))
    parts = [(examples.load_batch(np.arange(n)), examples.labels[:n]) for examples, n in splits]
    return Arrays(*parts[0], *parts[1], origin="CIFAR-10")
