"""Learning-rate schedules: a factor on the peak learning rate, as a function of the number of updates done."""

import math

from tl_keras.config import TrainConfig
from tl_keras.utils import lr_schedules
from tl_keras.utils.lr_schedules import Plateau, RunLength


class Schedule:
    """The factor on the peak learning rate over a run.

    All but `one_cycle` rise linearly over the warm-up. Then `cosine` falls to 0 at the last update. `step` multiplies by 0.1 after
    each third of the remaining run, or as torch's StepLR after every N epochs of it. `plateau` is torch's ReduceLROnPlateau, and the
    only one with a state to resume. `one_cycle` (Smith and Topin 2018; torch's OneCycleLR) rises from 1/25 and falls to 1/250,000
    along cosines. Its rise takes the warm-up, or 30 % of the run without one, and momentum stays constant.

    With `schedule_interval=epoch`, an epoch counts as one update, in the warm-up too. The factor is constant within an epoch, as with
    torch's schedulers when they are called once per epoch: CosineAnnealingLR(T_max=epochs), OneCycleLR(total_steps=epochs).

    An update of the weights takes several batches if gradients are accumulated.

    Args:
        config: `schedule`, `schedule_interval`, `warmup_epochs` and `epochs` are used.
        updates_per_epoch: number of updates in an epoch.

    Attributes:
        state: the JSON-able state of `plateau`.
    """

    def __init__(self, config: TrainConfig, updates_per_epoch: int):
        self._schedule = lr_schedules.parse(config.schedule)
        by_epoch = config.schedule_interval == "epoch"
        self._updates_per_step, steps = (updates_per_epoch, 1) if by_epoch else (1, updates_per_epoch)
        self._length = RunLength(round(config.warmup_epochs * steps), steps * config.epochs, steps)
        self.state: dict[str, float] = {"best": math.inf, "num_bad_epochs": 0, "factor": 1.0}

    def factor(self, update: int) -> float:
        """Return the factor for `update`, counted from 0 over the whole run."""
        return self._schedule(update // self._updates_per_step, self._length) * self.state["factor"]

    def on_validation_loss(self, loss: float) -> None:
        """Update the state of `plateau` with the loss of an epoch. Call once per epoch."""
        if isinstance(self._schedule, Plateau):
            self._update_plateau(self._schedule, loss)

    def _update_plateau(self, plateau: Plateau, loss: float) -> None:
        if loss < self.state["best"] * (1 - plateau.threshold):
            self.state.update(best=loss, num_bad_epochs=0)
            return
        self.state["num_bad_epochs"] += 1
        if self.state["num_bad_epochs"] > plateau.patience:
            self.state.update(num_bad_epochs=0, factor=self.state["factor"] * plateau.factor)
