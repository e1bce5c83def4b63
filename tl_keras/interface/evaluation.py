"""The scores of a test set, by class name. No TensorFlow."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.results.metrics import confusion_matrix
from tl_keras.utils.text import join_names

INTERVAL_METHODS = {"wilson": "Wilson", "bootstrap_groups": "bootstrap over groups"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a classifier on a test set, every image counted once.

    Attributes:
        accuracy: fraction of correct predictions.
        interval: interval of the accuracy at `confidence_level`.
        confidence_level: 0.95.
        interval_method: `wilson` (Wilson 1927), or `bootstrap_groups` where images belong to groups, such as patients.
        num_examples: number of images.
        loss: mean cross-entropy in nats.
        balanced_accuracy: mean recall of the classes that have images.
        top5_accuracy: fraction of images whose class is among the five likeliest; None for at most five classes.
        precision, recall, f1: class name -> score; None for an empty denominator.
        calibration_error: expected calibration error (Guo et al. 2017) of the probabilities without temperature.
        confusion_matrix: int64 (classes, classes), true class by predicted class.
        class_names: names of its rows and columns.
        notes: remarks on the data, e.g. classes without images.

    Example:
        >>> evaluation = tl_keras.load_run(finished_run).evaluation
        >>> int(evaluation.confusion_matrix.sum()) == evaluation.num_examples, len(evaluation.recall)
        (True, 10)
    """

    accuracy: float
    interval: tuple[float, float]
    interval_method: str
    num_examples: int
    loss: float
    balanced_accuracy: float
    top5_accuracy: float | None
    precision: Mapping[str, float | None]
    recall: Mapping[str, float | None]
    f1: Mapping[str, float | None]
    calibration_error: float
    confusion_matrix: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    confidence_level: float = 0.95

    @classmethod
    def from_metrics(
        cls, metrics: Mapping[str, Any], logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], notes: Sequence[str]
    ) -> "Evaluation":
        """Return the evaluation of logits float (n, classes) and labels int (n,) with these test metrics of `result.json`."""
        by_class: dict[str, Any] = {name: dict(zip(class_names, metrics[name], strict=True)) for name in ("precision", "recall", "f1")}
        same: dict[str, Any] = {name: metrics[name] for name in ("accuracy", "num_examples", "loss", "balanced_accuracy")}
        return cls(
            **same,
            **by_class,
            top5_accuracy=metrics.get("top5_accuracy"),
            interval=tuple(metrics["interval"]),
            interval_method=metrics.get("interval_method", "wilson"),
            calibration_error=metrics["calibration"]["ece"],
            confusion_matrix=confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1]),
            class_names=tuple(class_names),
            notes=tuple(notes),
        )

    def __str__(self) -> str:
        """Return e.g. `accuracy 93.40 % [89.22, 96.03], 95 % Wilson, n = 212`, and the other scores and notes in lines of their own."""
        lines = [
            f"accuracy {_percent(self.accuracy)} % [{', '.join(map(_percent, self.interval))}], "
            f"{100 * self.confidence_level:g} % {INTERVAL_METHODS[self.interval_method]}, n = {self.num_examples}",
            f"balanced accuracy {_percent(self.balanced_accuracy)} %, cross-entropy {self.loss:.4f} nats, "
            f"calibration error {_percent(self.calibration_error)} %",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        lines = str(self).split("\n")
        rows = [(name, self.precision[name], self.recall[name], self.f1[name], row.sum()) for name, row in self._rows()]
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{_cell(score)}</td>' for score in scores)}<td>{number}</td></tr>"
            for name, *scores, number in rows
        )
        heading = "<tr><th>class</th><th>precision (%)</th><th>recall (%)</th><th>F1 (%)</th><th>images</th></tr>"
        return f"<p>{'<br>'.join(map(html.escape, lines))}</p><table>{heading}{cells}</table>"

    def _rows(self) -> Sequence[tuple[str, np.ndarray]]:
        return list(zip(self.class_names, self.confusion_matrix, strict=True))

    def __repr__(self) -> str:
        return f"<Evaluation: {str(self).partition(chr(10))[0]}; classes {join_names(self.class_names)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as JSON would have them."""
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return own | {"confusion_matrix": self.confusion_matrix.tolist()}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _cell(score: float | None) -> str:
    return "-" if score is None else _percent(score)
