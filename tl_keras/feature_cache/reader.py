"""Reads a run's images through a cut: the batches that the trainer would get of images, of kept rows."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import pipeline, sampling
from tl_keras.data.augmentation import NONE
from tl_keras.data.examples import Examples, Images
from tl_keras.feature_cache import split_model
from tl_keras.feature_cache.shards import Rows, RowType
from tl_keras.feature_cache.split_point import Budget, Choice
from tl_keras.feature_cache.store import Store
from tl_keras.training.runtime import Runtime, versions

FORMAT = 1  # of what a key stands for: to be raised when rows come to mean something else


class Reader:
    """The rows that `prefix` makes of the images of a run.

    Args:
        geometry: image_size, crop_fraction and batch_size, as the pipeline takes them.
        enlarge: what the device does to images before `prefix`; None: the pipeline does it.

    Attributes:
        record: what the result says of it; counts and seconds grow while it reads.
    """

    def __init__(
        self,
        prefix: keras.Model,
        choice: Choice,
        config: RunConfig,
        source: data.Source,
        geometry: dict[str, Any],
        enlarge: Callable[[tf.Tensor], tf.Tensor] | None,
        runtime: Runtime,
        store: Store,
        limits: Budget,
    ):
        self._prefix, self._choice, self._config, self._source = prefix, choice, config, source
        self._geometry, self._enlarge, self._runtime, self._store, self._limits = geometry, enlarge, runtime, store, limits
        self._kind = RowType(choice.cut.shape, prefix.output.dtype)
        self._fingerprint = split_model.fingerprint(prefix)
        self._run_prefix: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._asked: dict[str, np.ndarray] = {}  # the rows that this reader was asked for, by key
        self.record = {
            "split_point": choice.cut.name,
            "storage": choice.place,
            "bytes_per_row": choice.cut.num_bytes,
            "saved_multiply_adds": choice.cut.multiply_adds,
            "features_computed": 0,
            "features_reused": 0,
            "seconds": 0.0,
        }

    def training(self, examples: Examples, images: Callable[[int], tf.data.Dataset]) -> Callable[[int], tf.data.Dataset]:
        """Epoch -> batches (rows, targets), with the examples of those of `images` in the same order."""
        num_classes = len(self._source.class_names)

        def batches(epoch: int) -> tf.data.Dataset:
            ids, labels = self._epoch(examples, epoch)
            rows = self.hold(examples.images, ids, augmented=True)
            if rows is None:
                return images(epoch).map(lambda pixels, targets: (self._through(pixels), targets))
            read = pipeline.row_batches(rows.take, ids, (labels,), self._like(), self._geometry["batch_size"])
            return read.map(lambda rows, labels: (rows, tf.one_hot(labels, num_classes)))

        return batches

    def evaluation(self, examples: Examples, images: tf.data.Dataset) -> tf.data.Dataset:
        """Batches (rows, labels, weights), with the examples of those of `images` in the same order."""
        rows = self.hold(examples.images, examples.indices, augmented=False)
        if rows is None:
            return images.map(lambda pixels, *rest: (self._through(pixels), *rest))
        order, weights = pipeline.padded_order(len(examples), self._runtime.replicas)
        rest = (examples.labels[order].astype(np.int32), weights)
        return pipeline.row_batches(rows.take, examples.indices[order], rest, self._like(), self._geometry["batch_size"])

    def prepare(self, training: Examples, validation: Examples | None, epoch: int) -> None:
        """Compute what `epoch` and the validation after it read, in one pass over the images that they share."""
        ids, _ = self._epoch(training, epoch)
        if validation and validation.images is training.images and not self._is_augmented(True):
            ids = np.concatenate([ids, validation.indices])
        self.hold(training.images, ids, augmented=True)

    def hold(self, images: Images, ids: np.ndarray, *, augmented: bool) -> Rows | None:
        """The rows `ids` of `images`, computed where they are missing; None where there is no room for them."""
        started = time.perf_counter()
        augmented = self._is_augmented(augmented)
        key = self._key(images, augmented)
        rows, num_computed = self._store.hold(
            key,
            ids,
            self._kind,
            self._choice.place,
            self._limits,
            lambda missing: self._compute(images, missing, augmented),
        )
        new = np.setdiff1d(ids, self._asked.get(key, ()))
        self._asked[key] = np.append(self._asked.get(key, ids[:0]), new)
        self.record["features_computed"] += num_computed
        self.record["features_reused"] += len(new) - num_computed if rows else 0
        self.record["seconds"] += time.perf_counter() - started if num_computed else 0.0
        return rows

    def _is_augmented(self, wanted: bool) -> bool:
        return wanted and self._config.data.augmentation != NONE

    def _epoch(self, examples: Examples, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the rows of an epoch, and labels int32, in order."""
        config = self._config
        shown = sampling.training_epoch(
            examples,
            config.data.sampling,
            seed=config.seed,
            epoch=epoch,
            replicas=self._runtime.replicas,
            num_views=config.data.cache_views,
        )
        ids = examples.indices[shown.order]
        if self._is_augmented(True):
            ids = ids + len(examples.images) * shown.views
        return ids, examples.labels[shown.order].astype(np.int32)

    def _compute(self, images: Images, ids: np.ndarray, augmented: bool) -> Iterator[np.ndarray]:
        views, indices = np.divmod(ids, len(images))
        batches = pipeline.view_batches(
            Examples(images, indices, np.zeros_like(indices)),
            views,
            augmentation=self._config.data.augmentation if augmented else NONE,
            seed=self._config.seed,
            resized=self._enlarge is None,
            **self._geometry | {"batch_size": self._geometry["batch_size"] * self._batches_at_once},
        )
        for (pixels,) in batches:
            yield self._through(pixels).numpy()

    @property
    def _batches_at_once(self) -> int:
        """How many training batches of float32 go into the prefix at once: as many as have its memory, where rounding may differ anyway."""
        return 4 // tf.as_dtype(self._prefix.compute_dtype).size

    def _through(self, pixels: tf.Tensor) -> tf.Tensor:
        if self._run_prefix is None:
            self._run_prefix = split_model.compiled(self._prefix, self._runtime, self._enlarge)
        return self._run_prefix(pixels)

    def _like(self) -> tf.TensorSpec:
        return tf.TensorSpec(self._kind.shape, self._kind.dtype)

    def _key(self, images: Images, augmented: bool) -> str:
        """SHA-256 of everything that a row depends on but its number."""
        source, data_config = self._source, self._config.data
        split = next(name for name in ("train", "validation", "test") if getattr(getattr(source, name), "images", None) is images)
        facts = {
            "format": FORMAT,
            "prefix": self._fingerprint,
            "data": [source.fingerprint, split],
            "geometry": [self._geometry["image_size"], self._geometry["crop_fraction"]],
            "view": [data_config.augmentation, self._config.seed] if augmented else NONE,
            "dtype": self._kind.dtype,
            "device": [self._runtime.device, self._runtime.precision, self._runtime.xla],
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
