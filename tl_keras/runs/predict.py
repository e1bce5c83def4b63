"""Predicts the classes of images with the model of a run, of a `.keras` file or of an export."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tl_keras.data.geometry import Geometry
from tl_keras.data.image_inputs import ImageInput, Images, list_images
from tl_keras.errors import ConfigError, DamagedError, MissingError, unknown
from tl_keras.results import run_directory
from tl_keras.results.metrics import log_softmax
from tl_keras.results.predicted import Predictions
from tl_keras.runs.evaluate import geometry_of, load_model
from tl_keras.runs.model_files import load_keras_file, load_saved_model
from tl_keras.runs.networks import Classifier, Network, ServedModel, compiled, is_classifier
from tl_keras.utils.files import read_json
from tl_keras.utils.text import printable
from tl_keras.weights import restore_model
from tl_keras.weights.delta_file import is_delta, read_recipe

__all__ = ["Images", "Predictor", "Progress"]

LABELS, SAVED_MODEL, SAVED_MODEL_GRAPH = "labels.json", "saved_model", "saved_model.pb"
FOREIGN_FILES = ("model.onnx", "model.tflite", "model.xml")
ON_CORRUPT = ("error", "skip")
Progress = Callable[[int, int], None]  # (images done, all images)
Outcome = np.ndarray | DamagedError  # an input of the network, or the reason why a file has none


class Batch(NamedTuple):
    """Names of images, and what the network takes of each."""

    names: list[str]
    inputs: list[np.ndarray]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Predictor:
    """A model, the crop and resize of its images, and the names of its classes. Its methods may be called from several threads.

    Args:
        network: the model.
        class_names: names of its classes, in order.
        temperature: temperature of its calibrated probabilities (Guo et al. 2017); None: it has none.
        is_folded: True if the model already returns calibrated probabilities.
        notes: remarks on the model, e.g. on names that are not known.

    Example:
        >>> predictor = Predictor.of_run(finished_run)
        >>> found = predictor.predict(np.zeros((2, 20, 30, 3), np.uint8))
        >>> found.files, found.probabilities.shape
        (('image 0', 'image 1'), (2, 10))
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        temperature: float | None = None,
        *,
        is_folded: bool = False,
        notes: Sequence[str] = (),
    ):
        self.network, self.class_names, self.temperature = network, tuple(class_names), temperature
        self.notes, self._is_folded = tuple(notes), is_folded

    @classmethod
    def of_run(cls, run_dir: str | Path) -> "Predictor":
        """Return the predictor of a finished run.

        Raises:
            ConfigError: The run is not finished, or did not save its model.
        """
        directory = Path(run_dir).expanduser()
        result = run_directory.load_result(directory)
        network = Classifier(load_model(directory), geometry_of(result))
        return cls(network, result["data"]["class_names"], result.get("temperature"))

    @classmethod
    def of_model_file(cls, path: str | Path) -> "Predictor":
        """Return the predictor of a `.keras` file from a run or an export.

        Facts that the file lacks are in files beside it: `result.json` of a run, `labels.json` of an export. Without these, classes are
        called by their numbers, images are resized bilinearly without a crop, and `notes` say so.

        Raises:
            MissingError: There is no such file.
            DamagedError: It is no such file.
            ConfigError: It holds another model, or layers that could run code.
        """
        file = Path(path).expanduser()
        if file.name == run_directory.MODEL and (file.parent / run_directory.RESULT).is_file():
            return cls.of_run(file.parent)
        model = load_keras_file(file)
        if is_classifier(model):
            notes = "images are resized bilinearly without a crop, since the file does not say how its run did"
            return cls.named(Classifier(model, Geometry(model.input_shape[1], 1.0)), model.output_shape[-1], None, [notes])
        if not _is_served(model):
            raise ConfigError(
                f"{printable(file)} takes {model.input_shape} and returns {model.output_shape}. Expected the `model.keras` of a run, or of "
                "an export, which takes uint8 RGB images of any size."
            )
        num_classes = model.output_shape[-1]
        call = compiled(lambda images: model(images, training=False), tf.TensorSpec((None, None, None, 3), tf.uint8))
        return cls.named(ServedModel(lambda images: call(tf.constant(images)), num_classes), num_classes, read_labels(file.parent))

    @classmethod
    def of_delta(cls, path: str | Path) -> "Predictor":
        """Return the predictor of a delta file: what a run has trained, on the weights that it began with. It has no temperature.

        Raises:
            MissingError: The weights that the run began with are absent, and cannot be downloaded.
            DamagedError: The file is damaged, or these weights have changed.
        """
        file = Path(path).expanduser()
        recipe = read_recipe(file)
        geometry = Geometry(recipe.image_size, recipe.crop_fraction, recipe.interpolation)
        return cls(Classifier(restore_model(file), geometry), recipe.class_names)

    @classmethod
    def of_export(cls, directory: str | Path) -> "Predictor":
        """Return the predictor of an export in the format keras or saved_model. Loading a SavedModel runs its graph, and logs so.

        Raises:
            MissingError: There is no such directory.
            ConfigError: It is no export, or one in a format that other software runs.
        """
        root = Path(directory).expanduser()
        if not root.is_dir():
            raise MissingError(f"There is no directory {printable(root)}.")
        if (root / run_directory.MODEL).is_file():
            return cls.of_model_file(root / run_directory.MODEL)
        graph = root if (root / SAVED_MODEL_GRAPH).is_file() else root / SAVED_MODEL
        if (graph / SAVED_MODEL_GRAPH).is_file():
            return cls._of_saved_model(graph, read_labels(root) or read_labels(graph.parent))
        found = next((name for name in FOREIGN_FILES if (root / name).is_file()), None)
        reason = f"holds {found}, which its own runtime predicts with, see preprocess.py there" if found else "is no export"
        raise ConfigError(f"{printable(root)} {reason}. Expected a run, or an export with `format=keras` or `format=saved_model`.")

    @classmethod
    def open(cls, path: str | Path) -> "Predictor":
        """Return the predictor of a `.keras` file, of a delta file, or of the directory of a run or an export."""
        given = Path(path).expanduser()
        if not given.is_dir():
            return cls.of_delta(given) if is_delta(given) else cls.of_model_file(given)
        return cls.of_run(given) if (given / run_directory.CONFIG).is_file() else cls.of_export(given)

    @classmethod
    def _of_saved_model(cls, graph: Path, labels: Mapping[str, Any] | None) -> "Predictor":
        serve = load_saved_model(graph)
        try:
            num_classes = serve(np.zeros((1, 8, 8, 3), np.uint8)).shape[-1]
        except Exception as error:  # the graph of another model fails in its own way
            raise ConfigError(f"{printable(graph)} does not take uint8 RGB images of any size, as an export does ({error}).") from error
        return cls.named(ServedModel(serve, num_classes), num_classes, labels)

    @classmethod
    def named(cls, network: Network, num_classes: int, labels: Mapping[str, Any] | None, notes: Sequence[str] = ()) -> "Predictor":
        """Return the predictor with the names and the temperature in `labels`, or with numbers for names."""
        names = [str(name) for name in labels["class_names"]] if labels else [str(number) for number in range(num_classes)]
        if len(names) != num_classes:
            raise DamagedError(f"{LABELS} names {len(names)} classes, and the model has {num_classes}. Export the model again.")
        unnamed = [] if labels else [f"classes are called by their numbers, since there is no {LABELS} beside the model"]
        temperature = labels.get("temperature") if labels else None
        return cls(network, names, temperature, is_folded=bool(temperature), notes=[*unnamed, *notes])

    def predict(
        self,
        images: Images,
        *,
        calibrated: bool = True,
        batch_size: int = 32,
        on_corrupt: str = "error",
        tta: bool = False,
        on_progress: Progress = no_progress,
    ) -> Predictions:
        """Predict the classes of images. Each is cropped and resized as the test images of the run were.

        Args:
            images: a file, a directory (with its sub-directories, sorted), an array uint8 RGB (h, w, 3) or (n, h, w, 3), or a sequence of
                these.
            calibrated: True to divide logits by the temperature, which changes no label.
            batch_size: images per step.
            on_corrupt: `error`, or `skip` to leave out files that are no images and name them in the result.
            tta: True to average the probabilities of an image and of its mirror image. A label is then the likeliest class of the
                average, which the temperature can change where two classes are close.
            on_progress: called with the number of images that are done and of all, after each step.

        Raises:
            ConfigError: There is no temperature, an array is not uint8 RGB, or a setting is impossible.
            MissingError: A path does not exist.
            DamagedError: A file is not an image.
        """
        divisor, skipped = self._divisor(calibrated), dict[str, str]()
        files: list[str] = []
        parts = [(np.zeros((0, len(self.class_names)), np.float32), np.zeros(0, np.int64))]
        for batch in self.batches(images, skipped, batch_size=batch_size, on_corrupt=on_corrupt, on_progress=on_progress):
            files += batch.names
            parts.append(self._probabilities(batch.inputs, divisor, tta))
        probabilities, indices = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Predictions(tuple(files), self.class_names, probabilities, indices, self.temperature if calibrated else None, skipped)

    def embed(self, images: Images, *, batch_size: int = 32, on_corrupt: str = "error", on_progress: Progress = no_progress) -> np.ndarray:
        """Return the features of images before the head, float32 (n, channels), for search and clustering.

        Raises:
            ConfigError: The model is an export, which has no features.
            MissingError, DamagedError: As `predict`.
        """
        classifier = self.classifier("features")
        batches = self.batches(images, {}, batch_size=batch_size, on_corrupt=on_corrupt, on_progress=on_progress)
        return np.concatenate(
            [np.zeros((0, classifier.num_features), np.float32), *(classifier.features(batch.inputs) for batch in batches)]
        )

    def classifier(self, purpose: str) -> Classifier:
        """Return the network if it is a classifier with its layers; ConfigError with the purpose if it is an export."""
        if not isinstance(self.network, Classifier):
            raise ConfigError(f"An export has no {purpose}: use the run that it was made of, or the `model.keras` in it.")
        return self.network

    def batches(
        self,
        images: Images,
        skipped: dict[str, str],
        *,
        batch_size: int = 32,
        on_corrupt: str = "error",
        on_progress: Progress = no_progress,
    ) -> Iterator[Batch]:
        """Yield batches of images, each cropped and resized as the network takes it. Files are decoded in threads, one batch ahead.

        Args:
            images, batch_size, on_corrupt, on_progress: as those of `predict`.
            skipped: receives file -> reason of those that are left out.
        """
        _check(batch_size, on_corrupt)
        inputs, done = list_images(images), 0
        for outcomes in self._prepared(inputs, batch_size):
            read = [(image.name, outcome) for image, outcome in outcomes if not isinstance(outcome, DamagedError)]
            errors = {image.name: outcome for image, outcome in outcomes if isinstance(outcome, DamagedError)}
            if errors and on_corrupt == "error":
                first = next(iter(errors.values()))
                raise DamagedError(f"{first} Or go on without such files: `on_corrupt=skip`.") from first
            skipped.update({name: str(error) for name, error in errors.items()})
            if read:
                yield Batch([name for name, _ in read], [array for _, array in read])
            done += len(outcomes)
            on_progress(done, len(inputs))

    def _prepared(self, inputs: Sequence[ImageInput], batch_size: int) -> Iterator[Sequence[tuple[ImageInput, Outcome]]]:
        """Yield the images of each batch with what the network takes, or with the error of one that cannot be read."""
        pending: list[tuple[ImageInput, Future[Outcome]]] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(inputs), batch_size):
                following = [(image, pool.submit(self._prepare, image)) for image in inputs[start : start + batch_size]]
                if pending:
                    yield [(image, future.result()) for image, future in pending]
                pending = following
            if pending:
                yield [(image, future.result()) for image, future in pending]

    def _prepare(self, image: ImageInput) -> Outcome:
        try:
            return self.network.prepare(image.decode())
        except DamagedError as error:
            return error

    def _divisor(self, calibrated: bool) -> float:
        """Return the number that the scores of the network are divided by."""
        if self.temperature is None:
            if calibrated:
                raise ConfigError(
                    "there is no temperature: the model had no validation images, or was made without one. Probabilities "
                    "without it are given with `calibrated=False`.",
                    setting="calibrated",
                    value=True,
                )
            return 1.0
        if self._is_folded:
            return 1.0 if calibrated else 1 / self.temperature
        return self.temperature if calibrated else 1.0

    def _probabilities(self, inputs: Sequence[np.ndarray], divisor: float, tta: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities float32 (n, classes) and the number of the likeliest class int64 (n,)."""
        scores = np.asarray(self.network.log_scores(inputs), np.float64)
        probabilities = np.exp(log_softmax(scores / divisor))
        if not tta:
            return probabilities.astype(np.float32), scores.argmax(axis=1)
        mirrored = np.asarray(self.network.log_scores([image[:, ::-1] for image in inputs]), np.float64)
        mean = (probabilities + np.exp(log_softmax(mirrored / divisor))) / 2
        return mean.astype(np.float32), mean.argmax(axis=1)


def _check(batch_size: int, on_corrupt: str) -> None:
    if batch_size < 1:
        raise ConfigError("expected a positive number of images.", setting="batch_size", value=batch_size)
    if on_corrupt not in ON_CORRUPT:
        raise unknown("value of `on_corrupt`", on_corrupt, ON_CORRUPT)


def _is_served(model: keras.Model) -> bool:
    """Return True for an exported model: uint8 RGB images of any size to one probability per class."""
    is_single = len(model.inputs) == len(model.outputs) == 1
    return is_single and model.input_shape == (None, None, None, 3) and model.inputs[0].dtype == "uint8" and len(model.output_shape) == 2


def read_labels(directory: Path) -> Mapping[str, Any] | None:
    """Return the `labels.json` of an export, or None if there is none."""
    path = directory / LABELS
    if not path.exists():
        return None
    labels = read_json(path)
    names = labels.get("class_names") if isinstance(labels, dict) else None
    temperature = labels.get("temperature") if isinstance(labels, dict) else None
    is_temperature = temperature is None or (isinstance(temperature, int | float) and isfinite(temperature) and temperature > 0)
    if not isinstance(names, list) or not is_temperature:
        raise DamagedError(f"{printable(path)} does not list the classes of an export. Export the model again.")
    return {"class_names": names, "temperature": temperature}
