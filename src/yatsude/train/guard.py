"""Notices a step that went wrong, before it moves a weight: no number, a spike, a climb."""

import math
from collections.abc import Callable

from yatsude.errors import TrainingError

__all__ = ["Guard", "NotFiniteError", "SpikeError"]

SMOOTHING = 0.02
"""Weight of a new step in the smoothed loss: it looks back about 50 steps."""
LIMIT_NATS = 1.5
"""A smoothed loss this far above the best one is not noise: a uniform guess is about ln(vocabulary) = 9 nats."""
GRACE_STEPS = 50
"""Until the smoothed loss means something."""
SPIKE_DEVIATIONS = 7.0
"""A loss this many standard deviations above the smoothed one is a spike (OLMo 2, arXiv 2501.00656, spike score)."""
SPIKE_NATS = 0.5
"""And this far above it at least: a loss that has become very even deviates by little."""


class NotFiniteError(TrainingError):
    """The loss or the gradient is no number: the weights are as they were, and another batch may do."""


class SpikeError(TrainingError):
    """The loss is far above what it was: steps before this one may have done it, and the weights are suspect."""


class Guard:
    """Watches the training loss, in nats a token; with `spikes` a single step that is far off is an error too."""

    def __init__(self, table: str, spikes: bool = False) -> None:
        """`table` of the recipe is where the rates stand."""
        self.table, self.spikes = table, spikes
        self.smooth = math.nan
        self.best = math.inf
        self.variance = 0.0
        self._seen = 0

    @property
    def good(self) -> bool:
        """Whether the present weights are worth a checkpoint."""
        return not self.smooth > self.best + LIMIT_NATS / 2

    def watch(self, step: int, loss: float, norm: float, where: Callable[[], str] = str) -> None:
        """Take note of a step's loss and gradient norm; a step that should move no weight is an error.

        `where` finds out from where on something is no number.
        """
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                first = f", {place}" if (place := where()) else ""
                raise NotFiniteError(
                    f"{name} is {value} at step {step}{first}; every checkpoint is from before it: lower"
                    f" {self.table}.optimizer.rate and muon_rate, or look at the data around this step"
                )
        above = 0.0 if math.isnan(self.smooth) else loss - self.smooth
        if self.spikes and self._seen > GRACE_STEPS:
            self._refuse_spike(step, loss, above)
        self.smooth = loss if math.isnan(self.smooth) else self.smooth + SMOOTHING * above
        self.variance = (1 - SMOOTHING) * (self.variance + SMOOTHING * above**2)
        self.best = min(self.best, self.smooth)
        self._seen += 1
        if self._seen > GRACE_STEPS and self.smooth > self.best + LIMIT_NATS:
            raise SpikeError(
                f"loss diverges: {self.smooth:.2f} at step {step} after {self.best:.2f} before; checkpoints are from"
                f" before it: lower {self.table}.optimizer.rate and muon_rate"
            )

    def end(self) -> None:
        """Refuse a run that ends in a climb: its last weights are not its best."""
        if not self.good:
            raise TrainingError(
                f"the loss ends at {self.smooth:.2f} after {self.best:.2f} before; no model is written: lower"
                f" {self.table}.optimizer.rate and muon_rate"
            )

    def state(self) -> list[float]:
        """Numbers that a checkpoint keeps."""
        return [self.smooth, self.best, float(self._seen), self.variance]

    def restore(self, state: list[float]) -> None:
        """Go on from `state`; one that is older than the watch over spikes has no variance."""
        self.smooth, self.best, self._seen = state[0], state[1], int(state[2])
        self.variance = state[3] if len(state) > 3 else LIMIT_NATS**2

    def _refuse_spike(self, step: int, loss: float, above: float) -> None:
        deviation = math.sqrt(self.variance)
        if above > max(SPIKE_DEVIATIONS * deviation, SPIKE_NATS):
            raise SpikeError(
                f"loss spikes: {loss:.2f} at step {step}, {self.smooth:.2f} ± {deviation:.2f} in the steps before"
            )
