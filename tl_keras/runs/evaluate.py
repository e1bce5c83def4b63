"""Scores and loads finished runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data.geometry import Geometry
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.results import run_directory
from tl_keras.results.predictions import MAX_TEST_IMAGE_SIDE, MAX_TEST_IMAGES
from tl_keras.results.split_record import SPLIT, TEST, read_split
from tl_keras.runs.resolve import load_source, resolve
from tl_keras.runs.run_data import restore_splits
from tl_keras.runs.setup import build_runtime
from tl_keras.utils.text import join_names

if TYPE_CHECKING:
    import keras


def evaluate_run(run_dir: Path, data_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Score the model of a finished run on its own test images, or on another data set.

    Its own are those of the recorded split, wherever they lie in the data set now. Of another data set the test split is scored; of
    a folder without one, everything. Classes are matched by name, and some may be absent. Images are cropped and resized as in the
    run.

    Returns:
        The test metrics, with the keys `results.run_directory.TEST_KEYS`, and `notes` on the data.

    Raises:
        ConfigError: The run is not finished, images of its test split have changed, or the data set has classes that the model lacks.
    """
    result = run_directory.load_result(run_dir)
    own = RunConfig.from_dict(result["config"])
    resolved = resolve(own.replace(**data_settings))
    config = resolved.config
    is_own = (config.data.dataset, config.data.label) == (own.data.dataset, own.data.label)
    test, notes = _own_test(run_dir, own, config) if is_own else _other_test(config, result["data"]["class_names"])
    from tl_keras.data import pipeline
    from tl_keras.training import evaluation
    from tl_keras.training.runtime import preserve_global_state

    with preserve_global_state():
        runtime = build_runtime(resolved)
        with runtime.scope():
            model = load_model(run_dir)
        batches = pipeline.evaluation_batches(test, geometry_of(result), batch_size=config.train.batch_size, replicas=runtime.replicas)
        metrics = evaluation.compute_metrics(*evaluation.predict_logits(evaluation.make_predict(model, runtime), runtime, batches))
    return metrics | {"notes": [*notes, *data.untested_classes(test, result["data"]["class_names"])]}


def _own_test(run_dir: Path, own: RunConfig, config: RunConfig) -> tuple[data.Examples, Sequence[str]]:
    """Return the recorded test images, or with another `limit_test` those that the settings give, none of which was trained on."""
    source, recorded = load_source(config.data), read_split(run_dir)
    if recorded is None:
        raise DamagedError(f"{run_dir} has no {SPLIT}, so its test images are not known. Delete the directory and run its command again.")
    splits, note = restore_splits(recorded, source, needed=(TEST,), run=str(run_dir))
    test = splits.test
    if config.data.limit_test != own.data.limit_test:
        test = data.make_splits(source, config.data, config.seed).test
        seen = np.isin(test.images.digests[test.indices], recorded.digests[recorded.splits < TEST])
        test = test.subset(np.flatnonzero(~seen))
    return test, [*source.notes, *([note] if note else [])]


def _other_test(config: RunConfig, class_names: Sequence[str]) -> tuple[data.Examples, Sequence[str]]:
    source = load_source(replace(config.data, extra_classes=0), for_scoring=True)
    indices = {name: index for index, name in enumerate(class_names)}
    if unknown := [name for name in source.class_names if name not in indices]:
        raise ConfigError(
            f"The model has the classes {join_names(class_names)}; {source.name} also has {join_names(unknown)}. Leave these out, or "
            "choose a data set with the same classes."
        )
    labels = np.array([indices[name] for name in source.class_names])[source.test.labels]
    test = data.Examples(source.test.images, source.test.indices, labels)
    return data.limit(test, config.data.limit_test, data.TEST_SEED), source.notes


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
