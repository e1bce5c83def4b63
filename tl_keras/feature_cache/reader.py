"""Replaces batches of images by batches of cached features, computing those that are missing."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.data.augmentation import NONE
from tl_keras.data.examples import Examples, ImageStore
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder, batch_sizes
from tl_keras.feature_cache import split_model
from tl_keras.feature_cache.shards import Features, FeatureSpec
from tl_keras.feature_cache.split_point import Budget, SplitChoice
from tl_keras.feature_cache.store import Store
from tl_keras.training.runtime import Runtime, versions
from tl_keras.training.trainer import Batches
from tl_keras.utils.progress import progress_bar

FORMAT = 1  # Bump when the meaning of a feature changes.


class ReadableRun(Protocol):
    """The parts of a run that the reader needs."""

    @property
    def source(self) -> data.DatasetSource: ...
    @property
    def order(self) -> TrainingOrder: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def runtime(self) -> Runtime: ...


class FeatureReader:
    """The features that `prefix` computes from the images of a run.

    Feature ids: the index of the image in its source; for augmented training images, plus `num_images` times the view.

    Attributes:
        record: the cache record in the result; counts and seconds grow while it reads.
    """

    def __init__(self, prefix: keras.Model, choice: SplitChoice, config: RunConfig, run: ReadableRun, store: Store, budget: Budget):
        self._prefix, self._choice, self._config, self._run, self._store, self._budget = prefix, choice, config, run, store, budget
        split_point = choice.split_point
        self._spec = FeatureSpec(split_point.shape, prefix.output.dtype)
        self._prefix_hash = split_model.content_hash(prefix)
        self._compiled_prefix: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._requested: dict[str, np.ndarray] = {}  # key -> ids that were requested so far
        self.record: dict[str, Any] = {
            "split_point": split_point.name,
            "storage": choice.storage,
            "bytes_per_feature": split_point.num_bytes,
            "saved_macs": split_point.macs,
            "features_computed": 0,
            "features_reused": 0,
            "seconds": 0.0,
        }

    def training(self, image_batches: Batches) -> Callable[[int], tf.data.Dataset]:
        """Return epoch -> batches (features, targets), with the examples, the order and the sizes of `image_batches`."""
        num_classes, images = len(self._run.source.class_names), self._run.order.examples.images

        def batches(epoch: int) -> tf.data.Dataset:
            ids, labels = self._epoch(epoch)
            features = self.get_features(images, ids, augmented=True)
            if features is None:
                return image_batches.training(epoch).map(lambda images, targets: (self._apply_prefix(images), targets))
            cached = self._feature_batches(features, ids, (labels,), image_batches.sizes)
            return cached.map(lambda features, labels: (features, tf.one_hot(labels, num_classes)))

        return batches

    def evaluation(self, examples: Examples, image_batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return batches (features, labels, weights), with the examples and the order of `image_batches`."""
        features = self.get_features(examples.images, examples.indices, augmented=False)
        if features is None:
            return image_batches.map(lambda images, *others: (self._apply_prefix(images), *others))
        positions, weights = pipeline.padded_positions(len(examples), self._run.runtime.replicas)
        others = examples.labels[positions].astype(np.int32), weights
        sizes = batch_sizes(len(positions), self._config.train.batch_size)
        return self._feature_batches(features, examples.indices[positions], others, sizes)

    def _feature_batches(
        self, features: Features, ids: np.ndarray, others: tuple[np.ndarray, ...], sizes: Sequence[int]
    ) -> tf.data.Dataset:
        spec = tf.TensorSpec(self._spec.shape, self._spec.dtype)
        return pipeline.feature_batches(features.take, ids, others, spec, sizes)

    def prepare(self, validation: Examples | None, epoch: int) -> None:
        """Compute what `epoch` and its validation need, in one pass if both read the same images."""
        ids, _ = self._epoch(epoch)
        images = self._run.order.examples.images
        if validation and validation.images is images and not self._is_augmented(True):
            ids = np.concatenate([ids, validation.indices])
        self.get_features(images, ids, augmented=True)

    def get_features(self, images: ImageStore, ids: np.ndarray, *, augmented: bool) -> Features | None:
        """Return the features `ids` of `images`, computing those that are missing, or None if they exceed the budget."""
        started = time.perf_counter()
        augmented = self._is_augmented(augmented)
        key = self._key(images, augmented)
        features, num_computed = self._store.get_or_compute(
            key,
            ids,
            self._spec,
            self._choice.storage,
            self._budget,
            lambda missing: self._compute(images, missing, augmented),
        )
        new = np.setdiff1d(ids, self._requested.get(key, ()))
        self._requested[key] = np.append(self._requested.get(key, ids[:0]), new)
        self.record["features_computed"] += num_computed
        self.record["features_reused"] += len(new) - num_computed if features else 0
        self.record["seconds"] += time.perf_counter() - started if num_computed else 0.0
        return features

    def _is_augmented(self, for_training: bool) -> bool:
        return for_training and self._config.data.augmentation != NONE

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the feature ids of an epoch and its labels, int32, in order."""
        examples, order = self._run.order.examples, self._run.order.epoch(epoch)
        ids = examples.indices[order.positions]
        if self._is_augmented(True):
            ids = ids + len(examples.images) * order.views
        return ids, examples.labels[order.positions].astype(np.int32)

    def _compute(self, images: ImageStore, ids: np.ndarray, augmented: bool) -> Iterator[np.ndarray]:
        views, indices = np.divmod(ids, len(images))
        batches = pipeline.view_batches(
            Examples(images, indices, np.zeros_like(indices)),
            views,
            self._run.geometry,
            augmentation=self._config.data.augmentation if augmented else NONE,
            batch_size=self._config.train.batch_size * self._batches_per_call,
            seed=self._config.seed,
        )
        with progress_bar("features of frozen layers") as update:
            done = 0
            for (image_batch,) in batches:
                yield self._apply_prefix(image_batch).numpy()
                done += len(image_batch)
                update(done, len(ids))

    @property
    def _batches_per_call(self) -> int:
        """Number of training batches per call of the prefix: 2 in 16-bit precision, where results are not bit-identical anyway, else 1."""
        return 4 // tf.as_dtype(self._prefix.compute_dtype).size

    def _apply_prefix(self, images: tf.Tensor) -> tf.Tensor:
        if self._compiled_prefix is None:
            self._compiled_prefix = split_model.compile_prefix(self._prefix, self._run.runtime, self._run.geometry.device_resize())
        return self._compiled_prefix(images)

    def _key(self, images: ImageStore, augmented: bool) -> str:
        """Return the SHA-256 of everything that a feature depends on beside its id."""
        source, config, geometry, runtime = self._run.source, self._config, self._run.geometry, self._run.runtime
        split = next(name for name in ("train", "validation", "test") if getattr(getattr(source, name), "images", None) is images)
        dependencies = {
            "format": FORMAT,
            "prefix": self._prefix_hash,
            "data": [source.fingerprint, split],
            "geometry": [geometry.image_size, geometry.crop_fraction, geometry.interpolation],
            "view": [config.data.augmentation, config.seed] if augmented else NONE,
            "dtype": self._spec.dtype,
            "device": [runtime.device, runtime.precision, runtime.xla],
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()
