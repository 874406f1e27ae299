"""Whether the experts share the work, over the last hundred steps: one step alone is mostly its batch.

Shapes: L mixture layers, E experts.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.model.router_stats import drift, layer_loads, relative_load

__all__ = ["STEPS", "Evenness"]

STEPS = 100
"""Steps of a window."""
DEAD = 5e-4
"""An expert below this share of the mean is dead: the log, from which a resumed run goes on, has three digits."""
OVERLOADED = 3.0
"""An expert above so many times the mean is said."""


class Evenness:
    """Loads of the last two windows of steps, as the log has them."""

    def __init__(self) -> None:
        self._loads: deque[Tensor] = deque(maxlen=2 * STEPS)
        self._said: set[str] = set()

    def add(self, load: Sequence[Sequence[float]]) -> None:
        """Take one step's load of each expert over the mean of its layer, (L, E)."""
        self._loads.append(torch.tensor(load))

    def figures(self) -> dict[str, float | int]:
        """Over the last window and all layers: busiest, idlest, dead experts; drift since the window before it.

        Drift is the mean over the layers of the share of the load that moved; it needs two whole windows.
        """
        now = self._window(0)
        if not now.numel():
            return {}
        layers = layer_loads(now)
        found: dict[str, float | int] = {
            "busiest": round(max(layer.busiest for layer in layers), 3),
            "idlest": round(min(layer.idlest for layer in layers), 3),
            "dead": int((now < DEAD).sum()),
        }
        if len(self._loads) == 2 * STEPS:
            found["drift"] = round(float(torch.tensor(drift(self._window(1), now)).mean()), 4)
        return found

    def phrase(self) -> str:
        """Say the figures in few words; nothing for a model without experts.

        >>> Evenness().phrase()
        ''
        """
        found = self.figures()
        return f"load {found['idlest']:.2f}-{found['busiest']:.2f} of the mean, {found['dead']} dead" if found else ""

    def warnings(self) -> list[str]:
        """What is wrong with a layer over a whole window, and what to do; each kind of fault is told once."""
        now = self._window(0)
        if len(self._loads) < STEPS or not now.numel():
            return []
        faults = {"got no token": now < DEAD, f"did over {OVERLOADED:g} times the mean": now > OVERLOADED}
        new = {what: where for what, where in faults.items() if where.any() and what not in self._said}
        self._said |= new.keys()
        return [
            f"balance: {_places(where)} {what} in {STEPS} steps; a larger balance_rate or lower learning rates"
            " would spread the load"
            for what, where in new.items()
        ]

    def _window(self, back: int) -> Tensor:
        """Mean load of the last window (0) or the one before it (1), (L, E)."""
        rows = list(self._loads)[-STEPS * (back + 1) : len(self._loads) - STEPS * back]
        return relative_load(torch.stack(rows).double().mean(0)) if rows else torch.zeros(0, 0)


def _places(where_LE: Tensor) -> str:
    layer, expert = where_LE.nonzero()[0].tolist()
    rest = int(where_LE.sum()) - 1
    more = f" (and {rest} more)" if rest else ""
    return f"expert {expert + 1} of mixture layer {layer + 1}{more}"
