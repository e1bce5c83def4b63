"""Learning-rate schedules: a factor on the peak learning rate, as a function of the number of updates done."""

import math

from tl_keras.utils.lr_schedules import SCHEDULES

PLATEAU_PATIENCE = 5  # epochs without a lower validation loss; ReduceLROnPlateau as in source report E
PLATEAU_FACTOR = 0.1


class Schedule:
    """The factor on the peak learning rate over a run.

    All but `one_cycle` rise linearly over the warm-up. Then `cosine` falls to 0 at the last update, and `step` multiplies by 0.1
    after each third of the remaining run. `plateau` multiplies by 0.1 when the validation loss has not fallen for 5 epochs, and is
    the only one with a state to resume. `one_cycle` (Smith and Topin 2018; torch's OneCycleLR) rises from 1/25 and falls to
    1/250,000 along cosines. Its rise takes the warm-up, or 30 % of the run without one, and momentum stays constant.

    A step is an update of the weights, which takes several batches if gradients are accumulated.

    Attributes:
        state: the JSON-able state of `plateau`.
    """

    def __init__(self, name: str, *, steps_per_epoch: int, epochs: int, warmup_epochs: float = 0.0):
        self._schedule = SCHEDULES[name]
        self._uses_loss = name == "plateau"
        self._warmup_steps = round(warmup_epochs * steps_per_epoch)
        self._num_steps = steps_per_epoch * epochs
        self.state: dict[str, float] = {"best": math.inf, "num_bad_epochs": 0, "factor": 1.0}

    def factor(self, step: int) -> float:
        """Return the factor for `step`, counted from 0 over the whole run."""
        return self._schedule(step, self._warmup_steps, self._num_steps) * self.state["factor"]

    def on_validation_loss(self, loss: float) -> None:
        """Update the state of `plateau` with the loss of an epoch. Call once per epoch."""
        if not self._uses_loss:
            return
        if loss < self.state["best"]:
            self.state.update(best=loss, num_bad_epochs=0)
            return
        self.state["num_bad_epochs"] += 1
        if self.state["num_bad_epochs"] > PLATEAU_PATIENCE:
            self.state.update(num_bad_epochs=0, factor=self.state["factor"] * PLATEAU_FACTOR)
