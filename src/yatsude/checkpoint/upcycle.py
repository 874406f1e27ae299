"""A dense model made into a mixture: every expert begins as the dense layer, or as a slice of it.

    naive              each expert is a copy (Komatsuzaki et al. 2022, arXiv 2212.05055)
    Drop-Upcycling     a share of each expert's intermediate columns is drawn anew, so that experts differ and learn to
                       (Nakamura et al. 2025, arXiv 2502.19261)
    fine-grained       the width is cut into slices, an expert each
    shared expert      some slices are used by every token

Copies add up to the dense layer where the weights of the chosen experts add up to 1, which every layout here does;
slices do only where all are chosen with the same weight.
"""

import functools
import re

import torch
from torch import Tensor

from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.pieces import MOST
from yatsude.checkpoint.settings import UpcycleSettings
from yatsude.checkpoint.write import Weights
from yatsude.errors import RecipeError
from yatsude.spec.config import ModelConfig
from yatsude.spec.family import family
from yatsude.spec.layout import in_layout, refuse_other_layouts
from yatsude.spec.stored import Place, stored

__all__ = ["Upcycled", "config_of"]

LAYOUTS = {"llama": "mixtral", "mistral": "mixtral", "qwen3": "qwen3_moe", "deepseek_v3": "deepseek_v3"}
"""Dense family -> the mixture that has the same attention; with a shared expert, `SHARED`."""
SHARED = "glm4_moe"
WORDS = ("gate_proj", "up_proj", "down_proj")
ATTENTION = (
    "qk_norm", "attention_bias", "partial_rotary_factor", "rope_interleave", "kv_lora_rank", "num_key_value_heads",
    "sliding_window",
)  # fmt: skip
"""What a mixture must have as its dense model has it."""
PART = re.compile(r"layers\.(\d+)\.mlp\.(gate|experts|shared_experts)\.(.*)")


def config_of(dense: ModelConfig, settings: UpcycleSettings) -> ModelConfig:
    """Shape of the mixture that a dense model becomes."""
    if dense.has_experts:
        mixtures = dense.moe_layers + dense.num_nextn_predict_layers
        raise RecipeError(f"the model has {mixtures} mixtures already; expected a dense one")
    slices = settings.slices
    model_type = settings.model_type or _layout(dense, settings)
    if settings.dense_layers and "first_k_dense_replace" not in family(model_type).fields:
        raise RecipeError(
            f"upcycle.dense_layers = {settings.dense_layers}: in the layout {model_type} every layer is a mixture;"
            " leave it 0 or choose another upcycle.model_type"
        )
    if dense.intermediate_size % slices:
        raise RecipeError(
            f"upcycle.slices = {slices}: expected a divisor of the width {dense.intermediate_size} of the dense layers"
        )
    width = dense.intermediate_size // slices
    config = in_layout(
        dense,
        model_type,
        moe_intermediate_size=width,
        n_routed_experts=settings.experts,
        num_experts_per_tok=settings.experts_per_token,
        n_shared_experts=settings.shared,
        routed_scaling_factor=1.0,
        first_k_dense_replace=settings.dense_layers,
        **({"norm_topk_prob": True} if model_type != "mixtral" else {}),
        **{name: getattr(dense, name) for name in ("qk_norm", "attention_bias") if model_type == SHARED},
    )
    refuse_other_layouts(config)
    for name in ATTENTION:
        if getattr(config, name) != getattr(dense, name):
            raise RecipeError(
                f"upcycle.model_type = '{model_type}': its {name} is {getattr(config, name)!r}, the dense model's"
                f" {getattr(dense, name)!r}; choose a layout with the same attention"
            )
    return config


def _layout(dense: ModelConfig, settings: UpcycleSettings) -> str:
    if not dense.kv_lora_rank and (settings.shared or dense.model_type not in LAYOUTS):
        return SHARED
    return LAYOUTS[dense.model_type]


class Upcycled:
    """The weights of the mixture, made from those of the dense model as they are asked for."""

    def __init__(self, dense: Weights, settings: UpcycleSettings) -> None:
        self.dense, self.settings = dense, settings
        self.config = config_of(dense.config, settings)
        self._places = {name: entry.place for name, entry in stored(self.config).items()}
        self._names = {entry.place: name for name, entry in stored(dense.config).items()}

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or some rows of it."""
        place = self._places[name]
        found = PART.fullmatch(place.tensor)
        if found is None:
            return self.dense.read(self._names[place], rows)
        layer, part, rest = int(found[1]), found[2], found[3]
        if part == "gate":
            made = self._router(layer, rest)
            return made if rows is None else made[slice(*rows)]
        word = "down_proj" if "down_proj" in rest else "up_proj" if place.rows and place.rows[0] else "gate_proj"
        first, count, share = self._slices(place.expert)
        if place.expert is None or not self.settings.ratio:
            weight = self._columns(layer, word, first, count, rows)
        else:
            weight = self._drawn(layer, word, place.expert, first)[slice(*(rows or (None,)))]
        return weight.float() * (share if word == "down_proj" else 1.0)

    def lies(self, name: str) -> tuple[Folder, str] | None:
        """Where the dense model's tensors lie, but for those of its mixtures."""
        place = self._places[name]
        return None if PART.fullmatch(place.tensor) else self.dense.lies(self._names[place])

    def _slices(self, expert: int | None) -> tuple[int, int, float]:
        """First slice and number of slices that an expert is (None: the shared one), and what its output counts."""
        settings = self.settings
        half = 0.5 if settings.shared and settings.slices == 1 else 1.0  # both are the whole layer
        if expert is None:
            return 0, max(settings.shared, 1), half
        return settings.slices - settings.routed + expert % settings.routed, 1, settings.routed * half

    @functools.lru_cache(maxsize=MOST)  # noqa: B019  (a tensor a thread: the next piece of rows is of the same one)
    def _drawn(self, layer: int, word: str, expert: int, first: int) -> Tensor:
        """One matrix of an expert with a share of the columns drawn anew, in the precision of the dense model."""
        weight = self._columns(layer, word, first, 1).clone()
        width = weight.shape[1] if word == "down_proj" else weight.shape[0]
        count = round(self.settings.ratio * width)
        chosen = torch.randperm(width, generator=self._generator(layer, expert, 0))[:count]
        if len(chosen):
            index = (slice(None), chosen) if word == "down_proj" else (chosen,)
            part = weight[index].float()
            mean, std = part.mean(), part.std()
            part.normal_(generator=self._generator(layer, expert, 1 + WORDS.index(word))).mul_(std).add_(mean)
            weight[index] = part.to(weight.dtype)
        return weight

    def _columns(self, layer: int, word: str, first: int, count: int, rows: tuple[int, int] | None = None) -> Tensor:
        """Slices of a dense matrix, or some of their rows: rows of gate and up, columns of down."""
        width, size = self.config.moe_intermediate_size, self.dense.config.intermediate_size
        start, stop = first * width, (first + count) * width
        if word == "down_proj":
            name = self._names[Place(f"layers.{layer}.mlp.down_proj.weight")]
            return self.dense.read(name, rows)[:, start:stop]
        half = (0, size) if word == "gate_proj" else (size, 2 * size)
        name = self._names[Place(f"layers.{layer}.mlp.gate_up_proj.weight", None, half)]
        return self.dense.read(name, (start + rows[0], start + rows[1]) if rows else (start, stop))

    def _router(self, layer: int, rest: str) -> Tensor:
        if rest == "e_score_correction_bias":
            return torch.zeros(self.config.n_routed_experts)
        shape = (self.config.n_routed_experts, self.config.hidden_size)
        return torch.empty(shape).normal_(
            std=self.config.initializer_range, generator=self._generator(layer, self.config.n_routed_experts, 0)
        )

    def _generator(self, layer: int, expert: int, use: int) -> torch.Generator:
        """Draws that depend on nothing but the seed and what they are for."""
        number = ((self.settings.seed * 1009 + layer) * 100_003 + expert) * 11 + use
        return torch.Generator().manual_seed(number)
