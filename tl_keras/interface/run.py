"""A run: its directory, read; and what is done with a finished one. TensorFlow is imported when the model is needed."""

import html
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.errors import MissingError
from tl_keras.interface.evaluation import Evaluation
from tl_keras.interface.image_data import ImageData, OnCorrupt, as_image_data, data_settings
from tl_keras.interface.tensorflow import require_tensorflow
from tl_keras.results import run_directory
from tl_keras.results.predicted import Predictions
from tl_keras.results.predictions import read_predictions
from tl_keras.results.split_record import SPLIT, read_split
from tl_keras.runs.resolve import resolve
from tl_keras.utils.progress import progress_bar

if TYPE_CHECKING:
    import keras

    from tl_keras.runs.predict import Images, Predictor

Format = Literal["keras", "saved_model", "onnx", "litert", "openvino", "all"]


class Run:
    """A run directory, read-only. `fit` and `load_run` return one.

    Everything is read from the directory, which may be moved or copied. The model is loaded once, by the first method that needs it;
    the methods may be called from several threads.

    Attributes:
        path: the directory.
        config: the settings, defaults included.

    Example:
        >>> run = tl_keras.load_run(finished_run)  # a run on ten digits
        >>> run
        <Run tiny on digits, full, seed 0: finished>
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.config: RunConfig = run_directory.read_config(self.path)
        self._lock = threading.Lock()
        self._loaded: Predictor | None = None

    @property
    def is_finished(self) -> bool:
        """True if the run was trained and tested. `fit` with the same data and settings finishes one that is not."""
        return run_directory.try_load_result(self.path) is not None

    @property
    def result(self) -> Mapping[str, Any]:
        """The content of `result.json`; `results/run_directory.py` documents its keys."""
        return run_directory.load_result(self.path)

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One entry per epoch so far, with the columns of `history.csv`."""
        return run_directory.read_history(self.path) if (self.path / run_directory.HISTORY).exists() else []

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of labels, logits and probabilities."""
        if record := read_split(self.path):
            return record.class_names
        return tuple(self.result["data"]["class_names"])

    @property
    def image_size(self) -> int:
        """Side of the model's square input in pixels."""
        return resolve(self.config).geometry.image_size

    @property
    def temperature(self) -> float | None:
        """Temperature of the calibrated probabilities, fitted on validation; None for a run without validation images."""
        return self.result.get("temperature")

    @property
    def evaluation(self) -> Evaluation:
        """The scores on the test split, from the end of `fit`.

        Raises:
            ConfigError: The run is not finished.
        """
        result = self.result
        logits, labels = read_predictions(self.path)
        names = result["data"]["class_names"]
        return Evaluation.from_metrics(result["metrics"]["test"], logits, labels, names, result["data"]["notes"])

    def evaluate(
        self, data: ImageData | str | Path | None = None, *, batch_size: int | None = None, limit_test: int | None = None
    ) -> Evaluation:
        """Score the model on labelled images: each once, cropped and resized as in the run.

        Args:
            data: images; of data with a test split that is scored, of others every image. Classes are matched by name, and some may
                be absent. None: the test split of the run.
            batch_size: images per step; None: that of the run.
            limit_test: score at most this many images, stratified; 0: all. None: as the run for its own data, and all of others.

        Returns:
            The scores. Images that the run was trained on are counted in the notes.

        Raises:
            ConfigError: The run is not finished, the data have other classes, or test images of the run have changed.
        """
        require_tensorflow()
        from tl_keras.runs.evaluate import evaluate_run

        images = self.load_data() if data is None else as_image_data(data)
        given = {"limit_test": limit_test, "batch_size": batch_size}
        settings = data_settings(images) | {name: value for name, value in given.items() if value is not None}
        scored = evaluate_run(self.path, settings, images.record)
        return Evaluation.from_metrics(scored.metrics, scored.logits, scored.labels, self.class_names, scored.notes)

    def predict(
        self,
        images: "Images",
        *,
        calibrated: bool = True,
        batch_size: int = 32,
        on_corrupt: OnCorrupt = "error",
        tta: bool = False,
    ) -> Predictions:
        """Predict the classes of images, with probabilities by class name.

        Args:
            images: a file, a directory (with its sub-directories, sorted), an array uint8 RGB (h, w, 3) or (n, h, w, 3), or a sequence of
                these. Float arrays are refused, since 0..1 and 0..255 cannot be told apart.
            calibrated: True to divide logits by the temperature that was fitted on validation (Guo et al. 2017). No label changes.
            batch_size: images per step.
            on_corrupt: `error`, or `skip` to leave out unreadable files and name them in the result.
            tta: True to average the probabilities of an image and its mirror image.

        Returns:
            The predictions, also for a single image.

        Raises:
            ConfigError: The run is not finished, or has no temperature since it had no validation images.
            MissingError: A file or directory does not exist.
            DamagedError: A file is not an image.
        """
        options: dict[str, Any] = {"calibrated": calibrated, "batch_size": batch_size, "on_corrupt": on_corrupt, "tta": tta}
        predictor = self._predictor()
        with progress_bar("predicting") as update:
            return predictor.predict(images, **options, on_progress=update)

    def embed(self, images: "Images", *, batch_size: int = 32) -> np.ndarray:
        """Return the features of images before the head, float32 (n, channels), for search and clustering."""
        predictor = self._predictor()
        with progress_bar("embedding") as update:
            return predictor.embed(images, batch_size=batch_size, on_progress=update)

    def export(
        self,
        directory: str | Path,
        *,
        format: Format = "keras",
        quantize: Literal["none", "float16", "int8"] = "none",
        calibrated: bool = True,
        force: bool = False,
        data: ImageData | str | Path | None = None,
    ) -> Path:
        """Write the model for use without tl_keras: uint8 RGB images in, probabilities out.

        The export is loaded in a fresh process and compared with the run on test images that the run has kept. Nothing is written if
        they differ.

        Args:
            directory: a new or empty directory.
            format: `keras` and `saved_model` take images of any size, `onnx`, `litert` and `openvino` those of the model's own
                size, with `preprocess.py` beside them; `all` writes each into a directory of its own.
            quantize: `float16` or `int8` weights, for the last three formats.
            calibrated: True for calibrated probabilities, where the run has a temperature.
            force: True to write an int8 model that loses more than one point of accuracy.
            data: images to compare on instead of those that the run has kept.

        Returns:
            The directory.

        Raises:
            ConfigError: The run is not finished, or the directory is not empty.
            MissingError: The package of the format is not installed; the message has the command.
            ExportError: The outputs of the export differ.
        """
        require_tensorflow()
        from tl_keras.exports.export import export_run

        settings = {} if data is None else data_settings(as_image_data(data))
        with _preserved_state():
            export_run(self.path, format, Path(directory), quantize=quantize, calibrated=calibrated, force=force, data_settings=settings)
        return Path(directory)

    def load_model(self, *, serving: bool = False, calibrated: bool = True) -> "keras.Model":
        """Return the tested model, a functional Keras model of stock layers.

        Args:
            serving: False: from float32 RGB (b, image_size, image_size, 3) in 0..255 to logits. True: from uint8 RGB
                (b, height, width, 3) of any size to probabilities, as `export` writes it.
            calibrated: True for calibrated probabilities, where the run has a temperature; only with `serving`.

        Raises:
            ConfigError: The run is not finished, or did not save its model.
        """
        require_tensorflow()
        from tl_keras.exports.serving import serving_model
        from tl_keras.runs.evaluate import geometry_of, load_model

        with _preserved_state():
            model = load_model(self.path)
            return serving_model(model, geometry_of(self.result), self.temperature if calibrated else None) if serving else model

    def load_data(self) -> ImageData:
        """Return the images that the run saw, in its three splits, from wherever its settings say they are.

        Raises:
            MissingError: No epoch was trained, so the splits are not recorded.
        """
        record = read_split(self.path)
        if record is None:
            raise MissingError(f"{self.path} has no {SPLIT}: the run has not begun, so its splits are not recorded. Call fit again.")
        return ImageData(self.config.data, record)

    def _predictor(self) -> "Predictor":
        require_tensorflow()
        from tl_keras.runs.predict import Predictor

        with self._lock:
            if self._loaded is None:
                with _preserved_state():
                    self._loaded = Predictor.of_run(self.path)
            return self._loaded

    def __str__(self) -> str:
        """Return the scores, sizes and times of a finished run, one per line."""
        from tl_keras.report import describe_result

        return describe_result(self.result, self.path) if self.is_finished else repr(self)

    def __repr__(self) -> str:
        config = self.config
        name = f"{config.model.backbone} on {config.data.dataset}, {config.train.strategy}, seed {config.seed}"
        return f"<Run {name}: {'finished' if self.is_finished else 'not finished'}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + (self.evaluation._repr_html_() if self.is_finished else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return load_run, (self.path,)


def _preserved_state() -> AbstractContextManager[None]:
    """Return a context that restores the global state that building a model changes: random generators and the dtype policy."""
    from tl_keras.training.runtime import preserve_global_state

    return preserve_global_state()


def load_run(run_dir: str | Path) -> Run:
    """Open the run in `run_dir`, finished or not.

    The directory is read, never written, and TensorFlow is not imported. Methods that need the model import it and load the model at
    their first call.

    Args:
        run_dir: a directory that `fit` or `tl-keras train` wrote. It may have been moved or copied.

    Returns:
        The run. Of an unfinished one, `is_finished` is False, `history` has the epochs so far, and `evaluation` raises ConfigError;
        `fit` with the same data and settings finishes it.

    Raises:
        MissingError: There is no such directory.
        ConfigError: It holds no run, or one of another version; the message names the file that was expected.
        DamagedError: A file of the run cannot be read.

    Example:
        >>> run = tl_keras.load_run(finished_run)
        >>> run.is_finished, len(run.class_names)
        (True, 10)
        >>> low, high = run.evaluation.interval
        >>> 0 <= low <= run.evaluation.accuracy <= high <= 1
        True
    """
    if not Path(run_dir).expanduser().is_dir():
        raise MissingError(f"There is no directory {run_dir}. Expected that of a run, which fit or tl-keras train wrote.")
    return Run(run_dir)
