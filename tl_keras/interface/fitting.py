"""Training: from labelled images and settings to a run. TensorFlow is imported when a function is called."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from tl_keras.config import RunConfig
from tl_keras.data.table_file import Table, write_table
from tl_keras.errors import ConfigError
from tl_keras.interface.image_data import ImageData, as_image_data, data_settings
from tl_keras.interface.run import Run
from tl_keras.interface.settings import Settings
from tl_keras.interface.tensorflow import require_tensorflow
from tl_keras.results.run_directory import TABLE_PREFIX
from tl_keras.runs.resolve import SOURCE_SETTINGS, ResolvedRun, check_available, locate_weights, resolve
from tl_keras.utils.progress import hidden

if TYPE_CHECKING:
    import keras

Verbose = Literal["auto", 0, 1, 2]
Data = ImageData | str | Path


def fit(
    data: Data,
    run_dir: str | Path,
    *,
    config: RunConfig | None = None,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    verbose: Verbose = "auto",
    **settings: Unpack[Settings],
) -> Run:
    """Train and test a classifier on `data`, in the directory `run_dir`.

    In a new directory it trains. In one with an unfinished run of the same settings and data it goes on from the last checkpoint, and of a
    finished one it returns the run. So an interrupted call is repeated as it is.

    Args:
        data: the images: an `ImageData`, a text like the setting `dataset` (`cifar10`, `folder:photos`, `csv:photos.csv`), or the path of
            a folder or CSV file.
        run_dir: directory of the run.
        config: settings; None: the defaults. How `data` are opened is said by `data`, whatever `config` says.
        callbacks: Keras callbacks, called as by `model.fit`, with the columns of `history.csv` as `logs`.
        verbose: 0 silent, 1 a progress bar, 2 a line per epoch; `auto` is 1 in a terminal or notebook and 2 elsewhere.
        **settings: settings by the names of the flags, e.g. `strategy="head"`; they win over `config`. A strategy may be an object, and
            `weights` a run, whose model training starts from, or the path of a file.

    Returns:
        The finished run.

    Raises:
        ConfigError: A setting is impossible, or the directory holds a run of other settings or data; the message lists the differences.
        MissingError: Data or weights are absent and cannot be downloaded.
        DamagedError: A file is corrupt.
        TrainingError: The loss is not finite, or a frozen weight has changed.

    Example:
        >>> run = tl_keras.fit("digits", new_directory, backbone="tiny", weights="none", epochs=1, fraction=0.1, verbose=0)
        >>> run.evaluation.num_examples
        500
    """
    images = as_image_data(data)
    resolved = _resolve(images, config, settings)
    if callbacks and resolved.config.train.grid:
        raise ConfigError("a grid of heads calls no `callbacks`. Leave one of them out.", setting="grid", value=resolved.config.train.grid)
    directory, verbosity = Path(run_dir).expanduser(), _verbosity(verbose)
    require_tensorflow()
    with hidden(not verbosity):
        _run(images, resolved, directory, callbacks, verbosity)
    return Run(directory)


def _run(
    images: ImageData, resolved: ResolvedRun, directory: Path, callbacks: "Sequence[keras.callbacks.Callback]", verbosity: int
) -> None:
    """Train and test in `directory`, unless the run there is finished."""
    check_available(resolved, images.record)
    from tl_keras.runs.run import load_finished, run_resolved

    if images.config.dataset.startswith(TABLE_PREFIX):
        write_table(directory, Table.read(images.config.data_dir, images.config.dataset))
    if not load_finished(resolved, directory, images.record):
        run_resolved(resolved, directory, callbacks=callbacks, verbose=verbosity, given=images.record)
    elif verbosity:
        print(f"{directory} holds this run, finished before.", flush=True)


def dry_run(data: Data, *, config: RunConfig | None = None, **settings: Unpack[Settings]) -> str:
    """Return a description of what `fit` would train, at which learning rates and cost, and what would be cached. Nothing is trained.

    Data and weights may be absent; the description says what it assumes then.

    Args:
        data, config, settings: as those of `fit`.

    Raises:
        ConfigError: A setting is impossible.

    Example:
        >>> text = tl_keras.dry_run("digits", backbone="tiny", weights="none", strategy="head", epochs=2)
        >>> [line for line in text.splitlines() if line.startswith("phase")]
        ['phase 1 of 1: head, 2 epochs, trains 170 of 1,658 parameters (10.25 %)']
    """
    resolved = _resolve(as_image_data(data), config, settings)
    require_tensorflow()
    from tl_keras.runs.explain import explain

    return explain(resolved.config)


def lr_find(
    data: Data, *, output: str | Path | None = None, config: RunConfig | None = None, **settings: Unpack[Settings]
) -> dict[str, float]:
    """Return learning rates that suit the first phase, from a range test (Smith 2017): rule -> learning rate.

    The learning rate rises over 100 training batches, until the loss diverges. Nothing of that training is kept.

    Args:
        output: directory for lr_find.csv and lr_find.png; None: no files.
        data, config, settings: as those of `fit`.

    Raises:
        ConfigError, MissingError, DamagedError: as `fit`.
        TrainingError: The loss was not finite from the first batch on.

    Example:
        >>> sorted(tl_keras.lr_find("digits", backbone="tiny", weights="none", batch_size=32))
        ["a tenth of the minimum's", 'steepest descent']
    """
    images = as_image_data(data)
    resolved = _resolve(images, config, settings)
    require_tensorflow()
    check_available(resolved, images.record)
    from tl_keras.runs.lr_find import run_lr_find, suggestions, write_lr_curve

    curve = run_lr_find(resolved, images.record)
    if output is not None:
        write_lr_curve(curve, Path(output).expanduser())
    return suggestions(curve)


def build_model(
    backbone: str, num_classes: int, *, weights: str | Path | None = "imagenet", image_size: int | None = None
) -> "keras.Model":
    """Build a classifier with pre-trained weights and a new head, as a plain Keras model of stock layers.

    Args:
        backbone: a name of `list_available("backbones")`.
        num_classes: number of logits.
        weights: a variant of the backbone, the path of a file, or None for new weights.
        image_size: side of the input in pixels; None: that of the weights' own test images.

    Returns:
        A model from float32 RGB (b, image_size, image_size, 3) in 0..255 to logits float32 (b, num_classes). Normalization is inside.

    Raises:
        ConfigError: A name is unknown, or the image size does not fit the backbone.
        MissingError: The weights are absent and cannot be downloaded.

    Example:
        >>> tl_keras.build_model("alexnet_narrow", 3, weights="glyphs").output_shape
        (None, 3)
    """
    resolved = resolve(RunConfig().replace(backbone=backbone, weights=_text(weights), image_size=image_size or 0, dataset="digits"))
    require_tensorflow()
    from tl_keras.runs import setup
    from tl_keras.weights import load_weights

    path, model = locate_weights(resolved.config), setup.build_model(resolved, num_classes)
    if path:
        load_weights(model, backbone, path)
    return model


def _resolve(images: ImageData, config: RunConfig | None, settings: Mapping[str, Any]) -> ResolvedRun:
    """Return the resolved settings of `fit`."""
    if given := [name for name in settings if name in SOURCE_SETTINGS]:
        raise ConfigError(
            f"`{given[0]}` belongs to `data`: give it to ImageData.from_directory, from_csv, from_dataframe, from_tfds or split instead."
        )
    texts = {name: _text(value) for name, value in settings.items()}
    return resolve((config or RunConfig()).replace(**{**texts, **data_settings(images)}))


def _text(value: Any) -> Any:
    """Return the text of a strategy, a run, a path or None, and other values as they are."""
    if value is None:
        return "none"
    if isinstance(value, Run):
        return str(value.path)
    return str(value) if isinstance(value, os.PathLike) or type(value).__module__.startswith("tl_keras.strategies") else value


def _verbosity(verbose: Verbose) -> int:
    """Return 0, 1 or 2."""
    if verbose == "auto":
        return 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
    if verbose not in (0, 1, 2):
        raise ConfigError("expected auto, 0, 1 or 2.", setting="verbose", value=verbose)
    return int(verbose)
