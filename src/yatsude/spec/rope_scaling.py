"""How rotary positions are stretched beyond the length that a model was first trained at.

    yarn     frequencies are slowed down by how often they turn in the first length (arXiv 2309.00071)
    llama3   the same idea with a ramp over wavelengths (Llama 3.1)
    linear   every position is divided by the factor

Names are those of `rope_parameters` in config.json; older files say `rope_scaling` and `type`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from yatsude.errors import CheckpointError, RecipeError

__all__ = ["RopeScaling", "from_hf", "to_hf"]

NONE = (None, "default")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """One way to stretch; fields that the way does not use keep their defaults."""

    rope_type: Literal["yarn", "llama3", "linear"]
    factor: float
    original_max_position_embeddings: int = 0
    """Length of the first training, tokens."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise RecipeError(f"rope_scaling.factor = {self.factor}: expected at least 1")
        if self.rope_type != "linear" and self.original_max_position_embeddings < 1:
            raise RecipeError(
                f"rope_scaling.original_max_position_embeddings = {self.original_max_position_embeddings}:"
                f" {self.rope_type} needs the length of the first training"
            )
        if not 0 < self.beta_slow <= self.beta_fast:
            raise RecipeError(
                f"rope_scaling.beta_slow = {self.beta_slow}, beta_fast = {self.beta_fast}: expected 0 < slow <= fast"
            )
        if self.low_freq_factor >= self.high_freq_factor:
            raise RecipeError(
                f"rope_scaling.low_freq_factor = {self.low_freq_factor}: expected less than high_freq_factor ="
                f" {self.high_freq_factor}"
            )

    def magnitude(self, mscale: float) -> float:
        """YaRN's factor for scores at this stretch: 0.1 · mscale · ln(factor) + 1 (arXiv 2309.00071, eq. 22)."""
        return 0.1 * mscale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    @property
    def rotation_factor(self) -> float:
        """What the cosines and sines are multiplied by."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self.magnitude(self.mscale) / self.magnitude(self.mscale_all_dim)
        return self.magnitude(1.0)


_ADAPTER = TypeAdapter(RopeScaling)
_OWN = {
    "yarn": ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "linear": (),
}


def from_hf(page: Mapping[str, Any]) -> RopeScaling | None:
    """Read `rope_parameters` or `rope_scaling` of a config.json; none where positions are not stretched."""
    values = {("rope_type" if key == "type" else key): value for key, value in page.items() if value is not None}
    values = {key: value for key, value in values.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if values.get("rope_type") in NONE:
        if more := sorted(values.keys() - {"rope_type"}):
            raise CheckpointError(f"rope_scaling has {', '.join(more)} but no type that it belongs to; add rope_type")
        return None
    try:
        return _ADAPTER.validate_python(values, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"rope_scaling: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Content of `rope_scaling`, with the type under its new and its old name."""
    if scaling is None:
        return None
    page: dict[str, Any] = {"type": scaling.rope_type, "rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.original_max_position_embeddings:
        page["original_max_position_embeddings"] = scaling.original_max_position_embeddings
    own = {name: getattr(scaling, name) for name in _OWN[scaling.rope_type]}
    if not scaling.mscale:
        own.pop("mscale", None)
    if not scaling.mscale_all_dim:
        own.pop("mscale_all_dim", None)
    return {**page, **{name: value for name, value in own.items() if value is not None}}
