"""Stops a run whose loss is no number or climbs, before it overwrites what was good."""

import math

from yatsude.errors import TrainingError

__all__ = ["Guard"]

SMOOTHING = 0.02
"""Weight of a new step in the smoothed loss: it looks back about 50 steps."""
LIMIT_NATS = 1.5
"""A smoothed loss this far above the best one is not noise: a uniform guess is about ln(vocabulary) = 9 nats."""
GRACE_STEPS = 50
"""Until the smoothed loss means something."""


class Guard:
    """Watches the training loss, in nats a token."""

    def __init__(self, table: str) -> None:
        """`table` of the recipe is where the rates stand."""
        self.table = table
        self.smooth = math.nan
        self.best = math.inf
        self._seen = 0

    @property
    def good(self) -> bool:
        """Whether the present weights are worth a checkpoint."""
        return not self.smooth > self.best + LIMIT_NATS / 2

    def watch(self, step: int, loss: float, norm: float) -> None:
        """Take note of a step's loss and gradient norm; a run that cannot go on is an error."""
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {step}; every checkpoint is from before it: lower"
                    f" {self.table}.optimizer.rate and muon_rate, or look at the data around this step"
                )
        self.smooth = loss if math.isnan(self.smooth) else self.smooth + SMOOTHING * (loss - self.smooth)
        self.best = min(self.best, self.smooth)
        self._seen += 1
        if self._seen > GRACE_STEPS and self.smooth > self.best + LIMIT_NATS:
            raise TrainingError(
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
        return [self.smooth, self.best, float(self._seen)]

    def restore(self, state: list[float]) -> None:
        """Go on from `state`."""
        self.smooth, self.best, self._seen = state[0], state[1], int(state[2])
