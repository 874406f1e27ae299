"""A model in numbers, named as in Hugging Face's configurations: a checkpoint's config.json is a ModelConfig.

One transformer, two attentions: latent (DeepSeek-V2 and -V3, arXiv 2412.19437) where `kv_lora_rank` is given, grouped
(arXiv 2305.13245) where it is 0; dense layers at the bottom, mixtures above. `spec/hf.py` reads and writes files.
"""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError
from yatsude.spec.rope_scaling import RopeScaling

__all__ = ["ModelConfig"]

_POSITIVE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
_MOST = {"num_hidden_layers": 10_000, "n_routed_experts": 10_000, "num_nextn_predict_layers": 100}
"""Beyond any model there is: a damaged config.json must not ask for a list of a billion tensors."""
_LATENT = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_GROUPED = ("head_dim", "num_key_value_heads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shapes of a model; all sizes are counts of numbers, not bytes. 0 means that the model has no such thing."""

    model_type: str = "deepseek_v3"
    """The family in whose layout the model is written: see `spec/families`."""
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    """Width of the feed-forward part in the dense layers."""
    num_attention_heads: int

    kv_lora_rank: int = 0
    """Width of the latent that keys and values are made from; with the rotary key it is all that a cache holds."""
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0

    num_key_value_heads: int = 0
    """Grouped attention: heads of keys and values, each shared by several heads of queries."""
    head_dim: int = 0
    qk_norm: bool = False
    """Grouped attention: a norm on each head's query and key."""
    attention_bias: bool = False
    """Grouped attention: queries, keys and values have a bias."""
    partial_rotary_factor: float = 1.0
    """Grouped attention: the share of a head that is rotated."""

    moe_intermediate_size: int = 0
    """Width of one expert."""
    n_routed_experts: int = 0
    num_experts_per_tok: int = 0
    n_shared_experts: int = 0
    first_k_dense_replace: int = 0
    """How many layers at the bottom are dense."""
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    """Of the router. With sigmoid a bias a expert helps to choose; softmax has none."""
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    """Groups of experts; a token chooses among those of the best `topk_group` groups."""
    topk_group: int = 1
    num_nextn_predict_layers: int = 0
    """Layers that predict tokens further ahead (multi-token prediction)."""

    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    sliding_window: int | None = None
    """How far back the model's attention was trained to look. Ours looks at everything, so no text may be longer."""
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_interleave: bool = True
    """Rotary pairs are neighbours, or else a number of the first half and one of the second."""
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] | None = 0
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built, with the number that is wrong."""
        self._refuse_sizes()
        if not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise RecipeError(
                f"first_k_dense_replace = {self.first_k_dense_replace}: expected 0 to {self.num_hidden_layers}"
            )
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.qk_head_dim:
            name = "qk_rope_head_dim" if self.kv_lora_rank else "head_dim * partial_rotary_factor"
            raise RecipeError(
                f"{name} = {self.rotary_dim}: rotary pairs need an even number, at most {self.qk_head_dim}"
            )
        if not self.kv_lora_rank and self.num_attention_heads % self.num_key_value_heads:
            raise RecipeError(
                f"num_key_value_heads = {self.num_key_value_heads}: expected a divisor of num_attention_heads ="
                f" {self.num_attention_heads}"
            )
        if self.has_experts:
            self._refuse_mixture()

    def _refuse_sizes(self) -> None:
        needed = [*_POSITIVE, *(_LATENT if self.kv_lora_rank else _GROUPED)]
        if self.first_k_dense_replace:
            needed.append("intermediate_size")
        if self.has_experts:
            needed += ["moe_intermediate_size", "n_routed_experts"]
        for name in needed:
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("rope_theta", "rms_norm_eps"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected more than 0")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected at most {most}")
        for name in ("kv_lora_rank", "n_shared_experts", "num_nextn_predict_layers"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("q_lora_rank", "sliding_window"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise RecipeError(f"{name} = {size}: expected at least 1, or nothing")

    def _refuse_mixture(self) -> None:
        experts, groups = self.n_routed_experts, self.n_group
        if groups < 1 or experts % groups or (groups > 1 and experts // groups < 2):
            raise RecipeError(
                f"n_group = {groups}: expected a divisor of n_routed_experts = {experts}, 2 experts or more in each"
            )
        if not 1 <= self.topk_group <= groups:
            raise RecipeError(f"topk_group = {self.topk_group}: expected 1 to {groups}, the number of groups")
        within = self.topk_group * (experts // groups)
        if not 1 <= self.num_experts_per_tok <= within:
            raise RecipeError(
                f"num_experts_per_tok = {self.num_experts_per_tok}: expected 1 to {within}, the number of routed"
                " experts to choose from"
            )

    @property
    def qk_head_dim(self) -> int:
        """Width of one head's query and key."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim if self.kv_lora_rank else self.head_dim

    @property
    def value_dim(self) -> int:
        """Width of one head's value."""
        return self.v_head_dim if self.kv_lora_rank else self.head_dim

    @property
    def rotary_dim(self) -> int:
        """How much of a head's query and key is rotated."""
        return self.qk_rope_head_dim if self.kv_lora_rank else int(self.head_dim * self.partial_rotary_factor)

    @property
    def cache_widths(self) -> tuple[int, int]:
        """What a cache holds for a token and layer: latent and rotary key, or keys and values of all their heads."""
        if self.kv_lora_rank:
            return self.kv_lora_rank, self.qk_rope_head_dim
        return self.num_key_value_heads * self.head_dim, self.num_key_value_heads * self.head_dim

    @property
    def context(self) -> int:
        """The longest text that is computed as the model was trained to."""
        return min(self.max_position_embeddings, self.sliding_window or self.max_position_embeddings)

    @property
    def moe_layers(self) -> int:
        """How many layers hold experts, those of multi-token prediction aside."""
        return self.num_hidden_layers - self.first_k_dense_replace

    @property
    def has_experts(self) -> bool:
        """Whether any layer is a mixture."""
        return self.moe_layers + self.num_nextn_predict_layers > 0

    def is_moe(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0, those of multi-token prediction last) holds experts."""
        return layer >= self.first_k_dense_replace
