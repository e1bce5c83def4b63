"""The trained model of a run and the images that its exports are checked on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras import data
from tl_keras.data import pipeline
from tl_keras.data.geometry import Geometry
from tl_keras.errors import DamagedError, MissingError
from tl_keras.exports.preprocess import preprocess
from tl_keras.exports.serving import float32_classifier
from tl_keras.results import run_directory
from tl_keras.results.predictions import read_test_images
from tl_keras.results.split_record import SPLIT, TEST, TRAIN, read_split
from tl_keras.runs.evaluate import geometry_of, load_model, sample_images
from tl_keras.runs.resolve import load_source
from tl_keras.runs.run_data import restore_splits

MAX_CHECK_IMAGES = 256  # of a data set that is given
MAX_SAMPLES = 128  # training images on which the ranges of int8 are measured


@dataclass(frozen=True, eq=False)
class Samples:
    """Training images that represent the inputs of a quantized model.

    Attributes:
        indices: their positions in the recorded training split.
        images: uint8 (height, width, 3).
    """

    indices: list[int]
    images: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run and what its exports are compared with.

    Attributes:
        result: the content of its `result.json`.
        classifier: its model in float32, with logits divided by `temperature`.
        temperature: None if probabilities are not calibrated.
        images: images to compare on, uint8 (height, width, 3) of any sizes.
        samples, test: training images for int8, and the whole test split; None unless asked for.
    """

    result: Mapping[str, Any]
    classifier: keras.Model
    geometry: Geometry
    temperature: float | None
    images: Sequence[np.ndarray]
    samples: Samples | None = None
    test: data.Examples | None = None

    @classmethod
    def load(cls, run_dir: Path, *, calibrated: bool, data_settings: Mapping[str, Any], with_data: bool) -> "TrainedRun":
        """Read the run in `run_dir`.

        Args:
            calibrated: True for calibrated probabilities, where the run has a temperature.
            data_settings: settings of data, by name. Those with `dataset` name other images to compare on than the run has kept.
            with_data: True to read the data set of the run, for `samples` and `test`.

        Raises:
            ConfigError: The run is not finished, did not save its model, or its images have changed.
            MissingError: The data set is needed and is absent.
        """
        result = run_directory.load_result(run_dir)
        temperature = result.get("temperature") if calibrated else None
        samples, test = _read_data(run_dir, data_settings) if with_data else (None, None)
        classifier = float32_classifier(load_model(run_dir), temperature)
        images = _check_images(run_dir, data_settings)
        return cls(result, classifier, geometry_of(result), temperature, images, samples, test)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in order."""
        return self.result["data"]["class_names"]

    @cached_property
    def preprocessing(self) -> Mapping[str, Any]:
        """The content of `preprocessing.json`."""
        geometry = self.geometry
        return {
            "image_size": geometry.image_size,
            "side": round(geometry.image_size / geometry.crop_fraction),
            "interpolation": geometry.interpolation,
            "steps": "RGB 0..255; centre square; resize to `side` with antialiasing; centre crop to `image_size`; round to uint8",
            "bicubic": "kernel of Keys (1981) with a = -0.5, as in Pillow; clip to 0..255",
        }

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return an image as `preprocess.py` makes it, uint8 (size, size, 3)."""
        return preprocess(image, self.preprocessing)

    def resized(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return images as the input pipeline of the run makes them, float32 (n, size, size, 3)."""
        return np.concatenate([np.asarray(self.geometry.resize(image[None])) for image in images])

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities float32 (n, classes) of resized images (n, size, size, 3)."""
        logits = self.classifier.predict(inputs, batch_size=64, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    @cached_property
    def predicted_test(self) -> np.ndarray:
        """The classes that the model predicts for the test split, from the input pipeline of the run, int (n,)."""
        if self.test is None:
            raise ValueError("the test split was not read")
        batches = pipeline.evaluation_batches(self.test, self.geometry, batch_size=64)
        return np.concatenate([self.classifier.predict_on_batch(images).argmax(axis=1) for images, _, _ in batches])

    def test_images(self) -> Iterator[np.ndarray]:
        """Yield the test images, uint8 (height, width, 3), in the order of the run."""
        if self.test is None:
            raise ValueError("the test split was not read")
        return (self.test.image(position) for position in range(len(self.test)))


def _check_images(run_dir: Path, data_settings: Mapping[str, Any]) -> Sequence[np.ndarray]:
    """Return the images to compare on: those that the run has kept, or some of another data set. Their labels are not used."""
    if "dataset" not in data_settings:
        return read_test_images(run_dir)
    config = run_directory.read_config(run_dir).replace(**data_settings)
    return sample_images(load_source(config.data, for_scoring=True).test, MAX_CHECK_IMAGES)


def _read_data(run_dir: Path, data_settings: Mapping[str, Any]) -> tuple[Samples, data.Examples]:
    """Return training images of a run, evenly spaced, and its test split."""
    recorded = read_split(run_dir)
    if recorded is None:
        raise DamagedError(f"{run_dir} has no {SPLIT}, so its training images are not known. Delete it and run its command again.")
    config = run_directory.read_config(run_dir).replace(**data_settings)
    try:
        source = load_source(config.data)
    except MissingError as error:
        raise MissingError(
            "`quantize=int8` measures ranges on training images and accuracy on the test split, so it needs the data set of the run. "
            f"{error}"
        ) from error
    splits, _ = restore_splits(recorded, source, needed=(TRAIN, TEST), run=str(run_dir))
    train = splits.train
    indices = np.linspace(0, len(train) - 1, min(MAX_SAMPLES, len(train))).astype(int).tolist()
    return Samples(indices, [train.image(index) for index in indices]), splits.test
