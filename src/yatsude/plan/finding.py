"""One thing that a plan says against a setting."""

import dataclasses
from typing import Literal

__all__ = ["Finding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong or doubtful, and what to do; `str()` is the line shown."""

    severity: Literal["error", "warning"]
    """An error cannot work; a warning has cost others a run."""
    key: str
    """The setting, as a recipe names it."""
    value: object
    message: str
    """The equation with the numbers, and what to do."""

    def __str__(self) -> str:
        value = f"{self.value:.6g}" if isinstance(self.value, float) else repr(self.value)
        return f"{self.severity}: {self.key} = {value}: {self.message}"
