"""Every tensor of a model, from its config alone and without torch: in our model, and in the files of its family.

in the files                                       in the model
model.layers.3.mlp.experts.5.gate_proj.weight  ->  layers.3.mlp.experts.gate_up_proj [5, :width]
model.layers.3.mlp.experts.5.down_proj.weight  ->  layers.3.mlp.experts.down_proj    [5]
model.layers.0.mlp.up_proj.weight              ->  layers.0.mlp.gate_up_proj.weight  [width:]
model.layers.61.shared_head.norm.weight        ->  mtp.0.norm.weight
model.norm.weight                              ->  norm.weight
lm_head.weight                                 ->  lm_head.weight
"""

import dataclasses
from collections.abc import Iterator

from yatsude.spec.config import ModelConfig
from yatsude.spec.family import family

__all__ = ["EMBEDDING", "HEAD", "Place", "Shape", "Stored", "names_of_copies", "stored", "tensors"]

Shape = tuple[int, ...]
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor of a file lies: a tensor of the model, an expert of it, and some of its rows."""

    tensor: str
    expert: int | None = None
    rows: tuple[int, int] | None = None

    @property
    def index(self) -> tuple[int | slice, ...]:
        """As an index of the tensor."""
        first = () if self.expert is None else (self.expert,)
        return first if self.rows is None else (*first, slice(*self.rows))


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor of a file: its shape, and its place in the model."""

    shape: Shape
    place: Place


def tensors(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of every tensor of our model, in the order of a forward pass, a tied head left out."""
    table = (config.vocab_size, config.hidden_size)
    found: dict[str, Shape] = {EMBEDDING: table}
    for layer in range(config.num_hidden_layers):
        found |= {f"layers.{layer}.{name}": shape for name, shape in _block(config, layer)}
    found["norm.weight"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        found[HEAD] = table
    for number in range(config.num_nextn_predict_layers):
        found |= {f"mtp.{number}.{name}": shape for name, shape in _ahead(config, config.num_hidden_layers + number)}
    return found


def stored(config: ModelConfig) -> dict[str, Stored]:
    """Name in the files -> what is stored under it, in the order of a forward pass."""
    shapes = tensors(config)
    own = {_theirs(config, part): entry for name, shape in shapes.items() for part, entry in _parts(name, shape)}
    return own | {name: Stored(shapes[ours], Place(ours)) for name, ours in names_of_copies(config).items()}


def names_of_copies(config: ModelConfig) -> dict[str, str]:
    """Names under which files repeat a tensor: the layers of multi-token prediction bring embedding and head again."""
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    layers = [config.num_hidden_layers + number for number in range(config.num_nextn_predict_layers)]
    return {
        f"model.layers.{layer}.{name}": ours
        for layer in layers
        for name, ours in (("embed_tokens.weight", EMBEDDING), ("shared_head.head.weight", head))
    }


def _block(config: ModelConfig, layer: int) -> Iterator[tuple[str, Shape]]:
    hidden = config.hidden_size
    yield "input_layernorm.weight", (hidden,)
    attention = _latent(config) if config.kv_lora_rank else _grouped(config)
    yield from ((f"self_attn.{name}", shape) for name, shape in attention)
    yield "post_attention_layernorm.weight", (hidden,)
    if not config.is_moe(layer):
        yield from _swiglu("mlp", hidden, config.intermediate_size)
        return
    experts, width = config.n_routed_experts, config.moe_intermediate_size
    yield "mlp.gate.weight", (experts, hidden)
    if config.scoring_func == "sigmoid":
        yield "mlp.gate.e_score_correction_bias", (experts,)
    yield "mlp.experts.gate_up_proj", (experts, 2 * width, hidden)
    yield "mlp.experts.down_proj", (experts, hidden, width)
    if config.n_shared_experts:
        yield from _swiglu("mlp.shared_experts", hidden, width * config.n_shared_experts)


def _swiglu(name: str, hidden: int, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.gate_up_proj.weight", (2 * width, hidden)
    yield f"{name}.down_proj.weight", (hidden, width)


def _latent(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    hidden, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    queries = heads * config.qk_head_dim
    if config.q_lora_rank is None:
        yield "q_proj.weight", (queries, hidden)
    else:
        yield "q_a_proj.weight", (config.q_lora_rank, hidden)
        yield "q_a_layernorm.weight", (config.q_lora_rank,)
        yield "q_b_proj.weight", (queries, config.q_lora_rank)
    yield "kv_a_proj_with_mqa.weight", (latent + config.qk_rope_head_dim, hidden)
    yield "kv_a_layernorm.weight", (latent,)
    yield "kv_b_proj.weight", (heads * (config.qk_nope_head_dim + config.v_head_dim), latent)
    yield "o_proj.weight", (hidden, heads * config.v_head_dim)


def _grouped(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    hidden, width = config.hidden_size, config.head_dim
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads, "v": config.num_key_value_heads}
    for name, count in heads.items():
        yield f"{name}_proj.weight", (count * width, hidden)
        if config.attention_bias:
            yield f"{name}_proj.bias", (count * width,)
    if config.qk_norm:
        yield "q_norm.weight", (width,)
        yield "k_norm.weight", (width,)
    yield "o_proj.weight", (hidden, config.num_attention_heads * width)


def _ahead(config: ModelConfig, layer: int) -> Iterator[tuple[str, Shape]]:
    hidden = config.hidden_size
    yield "enorm.weight", (hidden,)
    yield "hnorm.weight", (hidden,)
    yield "eh_proj.weight", (hidden, 2 * hidden)
    yield from ((f"block.{name}", shape) for name, shape in _block(config, layer))
    yield "norm.weight", (hidden,)


def _parts(name: str, shape: Shape) -> Iterator[tuple[str, Stored]]:
    """Cut a tensor of the model into those that files hold: one an expert, gate and up by themselves."""
    if ".experts." not in name:
        yield from _halves(name, shape, name, None)
        return
    for expert in range(shape[0]):
        yield from _halves(name.replace(".experts.", f".experts.{expert}.") + ".weight", shape[1:], name, expert)


def _halves(part: str, shape: Shape, name: str, expert: int | None) -> Iterator[tuple[str, Stored]]:
    if "gate_up_proj" not in part:
        yield part, Stored(shape, Place(name, expert))
        return
    half = shape[0] // 2
    for word, rows in (("gate_proj", (0, half)), ("up_proj", (half, 2 * half))):
        yield part.replace("gate_up_proj", word), Stored((half, *shape[1:]), Place(name, expert, rows))


def _theirs(config: ModelConfig, name: str) -> str:
    """Name a tensor as files do."""
    if name.startswith("mtp."):
        _, number, rest = name.split(".", 2)
        rest = "shared_head.norm.weight" if rest == "norm.weight" else rest.removeprefix("block.")
        name = f"layers.{config.num_hidden_layers + int(number)}.{rest}"
    for ours, theirs in family(config.model_type).tensors:
        name = name.replace(ours, theirs)
    return name if name.startswith("lm_head.") else f"model.{name}"
