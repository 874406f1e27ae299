"""Where the server listens and what it allows."""

import dataclasses

from yatsude.errors import RecipeError
from yatsude.spec.chat import TEMPERATURE, TOP_P

__all__ = ["ServeSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The `[serve]` table of a recipe."""

    host: str = "127.0.0.1"
    """This machine alone by default. `0.0.0.0` lets everybody in who reaches the machine: there is no password."""
    port: int = 8000
    """0: any free one."""
    model_name: str = ""
    """What clients call the model; empty: the name of its folder."""
    temperature: float = TEMPERATURE
    """For requests that name none, as those of the chat page do until its user chooses."""
    top_p: float = TOP_P
    """For requests that name none."""
    max_waiting: int = 64
    """Answers that may wait for a free row; more requests are sent away with status 503."""
    max_body_mb: float = 4.0
    """Largest request body in megabytes (10⁶ bytes)."""

    def __post_init__(self) -> None:
        """Refuse values no server can run with."""
        if not 0 <= self.port <= 65535:
            raise RecipeError(f"serve.port = {self.port}: expected 0 to 65535")
        if not 0 <= self.temperature <= 2:
            raise RecipeError(f"serve.temperature = {self.temperature}: expected 0 to 2")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"serve.top_p = {self.top_p}: expected more than 0, at most 1")
        if self.max_waiting < 1 or self.max_body_mb <= 0:
            raise RecipeError(
                f"serve.max_waiting = {self.max_waiting}, max_body_mb = {self.max_body_mb}: expected more than 0"
            )
