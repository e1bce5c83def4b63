"""Scores and loads finished runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data.geometry import Geometry
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.results import run_directory
from tl_keras.results.predictions import MAX_TEST_IMAGE_SIDE, MAX_TEST_IMAGES
from tl_keras.results.split_record import SPLIT, TEST, SplitRecord, read_split
from tl_keras.runs.resolve import load_source, resolve
from tl_keras.runs.run_data import restore_splits, with_recorded_splits
from tl_keras.runs.setup import build_runtime
from tl_keras.utils.text import join_names

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class ScoredTest:
    """A test set, scored.

    Attributes:
        metrics: the keys `results.run_directory.TEST_KEYS`.
        logits: float32 (n, classes).
        labels: int64 (n,).
        notes: remarks on the data.
    """

    metrics: Mapping[str, Any]
    logits: np.ndarray
    labels: np.ndarray
    notes: Sequence[str]


def evaluate_run(run_dir: Path, data_settings: Mapping[str, Any], record: SplitRecord | None = None) -> ScoredTest:
    """Score the model of a finished run on its own test images, or on another data set.

    Its own are those of the recorded split, wherever they lie in the data set now. Of another data set the test split is scored; of
    one without, everything. Classes are matched by name, and some may be absent. Images are cropped and resized as in the run.

    Args:
        data_settings: settings of the data set, of `limit_test` and of `batch_size`, by name. Others are those of the run, except that
            `limit_test` is 0 for another data set.
        record: fixed splits of another data set; None: its own.

    Raises:
        ConfigError: The run is not finished, images of its test split have changed, or the data set has classes that the model lacks.
    """
    result, recorded = run_directory.load_result(run_dir), read_split(run_dir)
    if recorded is None:
        raise DamagedError(f"{run_dir} has no {SPLIT}, so its test images are not known. Delete the directory and run its command again.")
    own = run_directory.read_config(run_dir)
    config = own.with_data(**data_settings)
    is_own = (config.data.dataset, config.data.label) == (own.data.dataset, own.data.label)
    resolved = resolve(config if is_own or "limit_test" in data_settings else config.replace(limit_test=0))
    config = resolved.config
    source, test, notes = _own_test(run_dir, own, config, recorded) if is_own else _other_test(run_dir, own, config, recorded, record)
    from tl_keras.data import pipeline
    from tl_keras.training import evaluation
    from tl_keras.training.runtime import preserve_global_state

    with preserve_global_state():
        runtime = build_runtime(resolved)
        with runtime.scope():
            model = load_model(run_dir)
        batches = pipeline.evaluation_batches(test, geometry_of(result), batch_size=config.train.batch_size, replicas=runtime.replicas)
        logits, labels = evaluation.predict_logits(evaluation.make_predict(model, runtime), runtime, batches)
    notes = [*notes, *data.untested_classes(test, result["data"]["class_names"])]
    return ScoredTest(evaluation.compute_metrics(logits, labels, test.groups if source.has_groups else None), logits, labels, notes)


_Test = tuple[data.DatasetSource, data.Examples, Sequence[str]]  # a data set, its images to score, and notes


def _own_test(run_dir: Path, own: RunConfig, config: RunConfig, recorded: SplitRecord) -> _Test:
    """Return the recorded test images, or with another `limit_test` those that the settings give, none of which was trained on."""
    source = load_source(config.data)
    splits, note = restore_splits(recorded, source, needed=(TEST,), run=str(run_dir))
    test = splits.test
    if config.data.limit_test != own.data.limit_test:
        test = data.make_splits(source, config.data, config.seed).test
        test = test.subset(np.flatnonzero(~_was_trained_on(recorded, test)))
    return source, test, [*source.notes, *([note] if note else [])]


def _other_test(run_dir: Path, own: RunConfig, config: RunConfig, recorded: SplitRecord, record: SplitRecord | None) -> _Test:
    """Return the images of another data set, labelled as the run is. One with the content of the run's own has moved, and is its own."""
    source = load_source(replace(config.data, extra_classes=0), for_scoring=record is None)
    if record is None and source.fingerprint == recorded.fingerprint:
        return _own_test(run_dir, own, config, recorded)
    if record is not None:
        source = with_recorded_splits(record, source)
    indices = {name: index for index, name in enumerate(recorded.class_names)}
    if unknown := [name for name in source.class_names if name not in indices]:
        raise ConfigError(
            f"The model has the classes {join_names(recorded.class_names)}; {source.name} also has {join_names(unknown)}. Leave these out, "
            "or choose a data set with the same classes."
        )
    labels = np.array([indices[name] for name in source.class_names])[source.test.labels]
    test = data.limit(data.Examples(source.test.images, source.test.indices, labels), config.data.limit_test, data.TEST_SEED)
    num_seen = int(_was_trained_on(recorded, test).sum())
    seen = [f"{num_seen} of the {len(test)} images were in the training or validation split of the run"] if num_seen else []
    return source, test, [*source.notes, *seen]


def _was_trained_on(recorded: SplitRecord, examples: data.Examples) -> np.ndarray:
    """Return True for each image whose content is in the training or validation split of a run, bool (n,)."""
    return np.isin(examples.images.digests[examples.indices], recorded.digests[recorded.splits < TEST])


def geometry_of(result: Mapping[str, Any]) -> Geometry:
    """Return crop and resize of the run with this result, for images of any size."""
    model = result["model"]
    return Geometry(model["image_size"], model["crop_fraction"], model["interpolation"])


def load_model(run_dir: Path) -> "keras.Model":
    """Return the tested model of the finished run in `run_dir`.

    Raises:
        ConfigError: The run did not save its model.
    """
    import keras

    path = run_dir / run_directory.MODEL
    if not path.exists():
        raise ConfigError(
            f"{run_dir} has no {run_directory.MODEL}, since it ran with `save_model=false`. Run it again with `save_model=true`."
        )
    return keras.models.load_model(path, compile=False)


def sample_images(examples: data.Examples, max_images: int = MAX_TEST_IMAGES) -> list[np.ndarray]:
    """Return up to `max_images` images, evenly spaced, uint8 (height, width, 3), of at most `MAX_TEST_IMAGE_SIDE` pixels a side."""
    from tl_keras.training.evaluation import shrink

    positions = np.linspace(0, len(examples) - 1, min(max_images, len(examples))).astype(int)
    return [shrink(examples.image(position)[None], MAX_TEST_IMAGE_SIDE)[0] for position in positions]
