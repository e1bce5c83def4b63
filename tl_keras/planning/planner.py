"""Makes the plan of a run: looks at the images, measures times, and lets `plan.py` choose."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras import backbones
from tl_keras.config import RunConfig
from tl_keras.data import DatasetSource, make_splits
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.planning import plan
from tl_keras.planning.features import ImageFeatures
from tl_keras.planning.findings import make_record
from tl_keras.planning.inspection import WITHOUT_FEATURES, FeatureFindings, describe_data, describe_features, examine_features, shorter_side
from tl_keras.planning.plan import Choice, Clock
from tl_keras.results.inspection_record import Inspection, write_inspection
from tl_keras.runs.resolve import load_source, locate_weights, resolve

Log = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The settings of a run, and the choices that they consist of.

    Attributes:
        head: settings of a run of the head alone, to be compared on validation; None if the run itself is one, or is not pre-trained.
        inspection: the findings on the images, for the report.
    """

    config: RunConfig
    choices: tuple[Choice, ...]
    head: RunConfig | None
    inspection: Inspection

    def write_findings(self, run_dirs: Iterable[Path]) -> None:
        """Write the findings into directories of runs, where their reports read them."""
        for run_dir in run_dirs:
            write_inspection(run_dir, self.inspection)


def make_plan(dataset: str, given: Mapping[str, Any], clock: Clock, log: Log = print) -> Plan:
    """Look at the images of `dataset` and choose the settings of a run on them that ends within the budget of `clock`.

    Args:
        dataset: `folder:PATH` or `csv:PATH`.
        given: settings of the user, which win.
        log: called with the findings, a line each.

    Raises:
        UserError: The images cannot be trained on, or a setting is impossible.
    """
    source, choices = _open(RunConfig().replace(dataset=dataset, **given), given)
    described = describe_data(source)
    for line in (*described, *source.notes):
        log(line)
    maker = _Planner(dataset, given, clock, log, source, choices)
    from tl_keras.training.runtime import preserve_global_state

    with preserve_global_state():
        maker.choose()
    inspection = make_record(source, maker.findings, maker.found, described)
    return Plan(maker.config, tuple(maker.choices), maker.head, inspection)


def _open(config: RunConfig, given: Mapping[str, Any]) -> tuple[DatasetSource, list[Choice]]:
    """Return the data set, without unreadable files unless the user wants to stop at them, and the choice to do so."""
    try:
        return load_source(config.data), []
    except DamagedError:
        if "on_corrupt" in given:
            raise
    skip = Choice("on_corrupt", "skip", "files that are not images are left out; they are listed above")
    return load_source(config.replace(on_corrupt="skip").data), [skip]


class _Planner:
    """The choices so far. Each method adds some."""

    def __init__(self, dataset: str, given: Mapping[str, Any], clock: Clock, log: Log, source: DatasetSource, choices: list[Choice]):
        self._dataset, self._given, self._clock, self._log, self._source, self.choices = dataset, given, clock, log, source, choices
        self.head: RunConfig | None = None
        self.found: ImageFeatures | None = None
        self.findings: FeatureFindings = WITHOUT_FEATURES

    @property
    def config(self) -> RunConfig:
        """The settings of the choices so far."""
        return plan.apply(RunConfig().replace(dataset=self._dataset), self.choices, self._given)

    def choose(self) -> None:
        """Make all choices that the user has not made."""
        self._choose_data()
        self._choose_backbone()
        is_trained = self.config.model.weights != "none"
        per_image = self._choose_image_size(is_trained)
        self._choose_training() if is_trained else self._choose_from_scratch(per_image)
        times = self._clock.times()
        self.choices.append(plan.choose_time_limit(times, self._clock.budget))
        resolve(self.config)

    def _choose_data(self) -> None:
        self.choices += plan.choose_validation(len(self._source.train)) if self._source.validation is None else []
        self._splits = make_splits(self._source, self.config.data, self.config.seed)
        self.choices.append(plan.choose_batch_size(len(self._splits.train)))

    def _choose_backbone(self) -> None:
        if "weights" not in self._given:
            self.choices += plan.choose_backbone(self._given.get("weights_dir", ""), self._given.get("backbone", ""))
        elif "backbone" not in self._given:
            raise ConfigError("`weights` is given without `backbone`. Say which backbone has these weights.")
        locate_weights(self.config)

    def _choose_image_size(self, is_trained: bool) -> float:
        """Choose the size of the images, and return the seconds that the features of one take, measured."""
        from tl_keras.planning import features

        own = resolve(self.config).geometry.image_size
        own = own if is_trained else min(own, plan.RANDOM_IMAGE_SIZE, max(plan.IMAGE_SIZES[-1], shorter_side(self._source.train)))
        size = self.config.model.image_size or own
        self._setup = features.prepare(self.config.replace(image_size=size))
        per_image = features.seconds_per_image(self._setup)
        if "image_size" in self._given:
            return per_image
        backbone = backbones.get_backbone(self.config.model.backbone)
        choice = plan.choose_image_size(backbone, size, self._num_images, self._clock.times(per_image))
        self.choices.append(choice)
        if choice.value != size:
            self._setup = features.prepare(self.config)
        return per_image * (choice.value / size) ** 2

    @property
    def _num_images(self) -> int:
        splits = self._splits
        return len(splits.train) + len(splits.validation or ()) + len(splits.test)

    def _choose_training(self) -> None:
        """Choose between the head and the last stages too, with the features of a pre-trained network, which are computed here."""
        from tl_keras.planning import features

        started = time.perf_counter()
        found = features.compute_features(self._setup)
        per_image = (time.perf_counter() - started) / self._num_images
        self.found, self.findings = found, examine_features(found, len(self._source.class_names))
        for line in describe_features(self.findings, found, self._source.class_names):
            self._log(line)
        if found.features is None or not self._splits.validation:
            self.choices += plan.choose_plainly(self._given, "a grid of heads needs features in memory and validation images")
        elif not plan.is_grid_possible(self._given):
            self.choices += plan.choose_plainly(self._given, "the settings that are given exclude a grid of heads")
        else:
            head, deep = plan.choose_head(found.features.shape[1], len(self._source.class_names)), self._deep(per_image)
            self.head = plan.apply(self.config, head, self._given) if deep else None
            self.choices += deep or head

    def _deep(self, per_image: float) -> list[Choice]:
        """Return the training of the last stages after the head if enough of its epochs fit, measured; else nothing."""
        from tl_keras.planning import features

        backbone, num_train = backbones.get_backbone(self.config.model.backbone), len(self._splits.train)
        is_possible = "strategy" not in self._given and len(backbone.stages) > 1
        if not (is_possible and plan.is_worth_measuring(self._clock.times(per_image), self._num_images)):
            return []
        trial = plan.apply(self.config, plan.choose_deep(backbone, plan.MIN_DEEP_EPOCHS), self._given)
        per_step = features.seconds_per_step(trial)
        epochs = plan.num_deep_epochs(self._clock.times(per_image, per_step), -(-num_train // trial.train.batch_size))
        return plan.choose_deep(backbone, epochs) if epochs >= plan.MIN_DEEP_EPOCHS else []

    def _choose_from_scratch(self, per_image: float) -> None:
        for line in self.findings.notes:
            self._log(line)
        epochs = plan.num_scratch_epochs(self._clock.times(per_image), len(self._splits.train))
        self.choices += plan.choose_from_scratch(epochs)
