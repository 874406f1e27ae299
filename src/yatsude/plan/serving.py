"""What serving a model takes: accelerators, memory of the cache, speed, and yen a million Japanese characters.

A step of decoding gives each of b sequences one token. It reads the weights that b tokens touch, reads every sequence's
cache, computes, and sends rows to experts and back:

    step = (weights(b) + b · context · cache) / (bandwidth · G) + b · FLOPs / (rate · G) + layers · exchange

Reading a prompt is arithmetic and exchange, which wait for each other. Weights are cut evenly over the G accelerators
of an instance, caches by sequence.
"""

import bisect
import dataclasses
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yatsude.errors import RecipeError
from yatsude.plan.mesh import Group
from yatsude.plan.rates import rates
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import Dtype, cache_bytes, count, forward_flops, read_bytes, resident_bytes
from yatsude.spec.hardware import Accelerator

__all__ = ["CHARACTERS", "Load", "Offer", "Serving", "dense", "offers", "serve"]

CHARACTERS = 1.425
"""Japanese characters a token of DeepSeek-V3's tokenizer, measured on mixed text; others lie between 1 and 2."""
USABLE = 0.90
"""Of the memory: the rest is activations, graphs and what the framework takes."""
MOST_GPUS = 1024
DEEPEST = 400
"""Layers of the largest dense model: 14 trillion parameters."""
DECODING = 0.6
"""Of the rate of large products that the thin ones of decoding reach."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """Who asks for what."""

    users: int = 64
    """Answers under way at once."""
    context: int = 8192
    """Tokens of prompt and answer together."""
    answer: int = 1024
    """Tokens of the answer."""
    speed: float = 20.0
    """Tokens a second that a user waits for at worst."""
    characters: float = CHARACTERS
    """Japanese characters a token."""

    def __post_init__(self) -> None:
        """Refuse a load that is none."""
        for name in ("users", "context", "answer", "speed", "characters"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected more than 0")
        if self.answer > self.context:
            raise RecipeError(f"answer = {self.answer}: expected at most context = {self.context}, which it is part of")

    @property
    def prompt(self) -> int:
        """Tokens before the answer."""
        return self.context - self.answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """A fleet that carries a load."""

    gpus: int
    """Of one instance."""
    instances: int
    users: int
    """Of one instance."""
    weights: float
    """Bytes of one instance."""
    cache: float
    """Bytes of one instance, all its users at full context."""
    user_speed: float
    """Tokens a second that one user sees."""
    tokens_a_second: float
    """Answered by the whole fleet."""

    @property
    def fleet(self) -> int:
        """Accelerators in all."""
        return self.gpus * self.instances

    def yen(self, yen_per_gpu_hour: float, characters: float) -> float:
        """Yen a million characters answered, the reading of their prompts included."""
        return self.fleet * yen_per_gpu_hour / 3600 / (self.tokens_a_second * characters) * 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offer:
    """A provider's price, yen a million tokens."""

    name: str
    prompt: float
    answer: float
    characters: float = CHARACTERS

    def yen(self, load: Load) -> float:
        """Yen a million characters answered, with the prompts of the load. Its tokenizer reads as many characters."""
        read = load.prompt / load.answer * self.prompt * load.characters / self.characters
        return read / load.characters + self.answer / self.characters


def serve(config: ModelConfig, machine: Accelerator, load: Load, dtype: Dtype = "bfloat16") -> Serving:
    """The smallest fleet that carries the load; of equally large ones, that of the smallest instances."""
    if dtype == "float8":
        rates(machine, "fp8")  # or refuse
    found = [fleet for gpus in _sizes(machine) if (fleet := _fleet(config, machine, load, dtype, gpus))]
    if not found:
        raise RecipeError(
            f"no fleet of up to {MOST_GPUS} {machine.name} an instance gives {load.speed:g} tokens/s at {load.context}"
            f" tokens: the weights are {resident_bytes(config, dtype) / 1e9:.0f} GB; lower --speed or --context, or"
            " choose another --gpu"
        )
    return min(found, key=lambda fleet: (fleet.fleet, fleet.gpus))


def dense(billions: float) -> ModelConfig:
    """A dense model of about that many parameters: an assumption, in the proportions of Llama 3.

    128 times as wide as deep, feed-forward of 3.5 widths, heads of 128 with keys and values of 8, a vocabulary of 128k.
    """
    if not billions > 0:
        raise RecipeError(f"dense = {billions:g}: expected billions of parameters, more than 0")
    deeper = bisect.bisect_left(range(1, DEEPEST), billions * 1e9, key=_parameters) + 1
    return _llama(min((deeper, max(deeper - 1, 1)), key=lambda layers: abs(_parameters(layers) - billions * 1e9)))


def offers(path: Path) -> list[Offer]:
    """Read a price list: TOML tables with `prompt` and `answer` in yen a million tokens, and perhaps `characters`.

    ["provider model"]
    prompt = 300.0
    answer = 1200.0
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no price list at {path}; give --prices a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    return [_offer(path, name, table) for name, table in tables.items()]


def _offer(path: Path, name: str, table: Any) -> Offer:
    known = ("prompt", "answer", "characters")
    if not isinstance(table, dict) or not {"prompt", "answer"} <= set(table) <= set(known):
        raise RecipeError(f"{path}: [{name}] needs 'prompt' and 'answer' (yen a million tokens), may have 'characters'")
    for key, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise RecipeError(f"{path}: [{name}] {key} = {value!r}: expected a number above 0")
    return Offer(name=name, **{key: float(value) for key, value in table.items()})


def _parameters(layers: int) -> int:
    return count(_llama(layers)).total


def _llama(layers: int) -> ModelConfig:
    heads = max(8, -(-layers // 8) * 8)  # 128 a layer in width, in whole groups of 8 heads
    return ModelConfig(
        model_type="llama",
        vocab_size=128_256,
        hidden_size=128 * heads,
        num_hidden_layers=layers,
        intermediate_size=448 * heads,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        first_k_dense_replace=layers,
        max_position_embeddings=131_072,
    )


def _sizes(machine: Accelerator) -> Iterator[int]:
    size = 1
    while size <= MOST_GPUS:
        yield size
        size = size * 2 if size < machine.node else size + machine.node


def _fleet(config: ModelConfig, machine: Accelerator, load: Load, dtype: Dtype, gpus: int) -> Serving | None:
    """A fleet of instances of `gpus`, each with as many users as memory and speed allow; None where not one."""
    weights, each = float(resident_bytes(config, dtype)), float(load.context * cache_bytes(config))
    room = int((gpus * machine.memory * USABLE - weights) // each)
    low, high = 0, min(room, load.users)
    while low < high:  # a step takes longer the more there are
        middle = (low + high + 1) // 2
        if _user_speed(config, machine, load, dtype, gpus, middle) >= load.speed:
            low = middle
        else:
            high = middle - 1
    if not low:
        return None
    instances = -(-load.users // low)
    users = -(-load.users // instances)
    speed = _user_speed(config, machine, load, dtype, gpus, users)
    return Serving(
        gpus=gpus,
        instances=instances,
        users=users,
        weights=weights,
        cache=users * each,
        user_speed=speed,
        tokens_a_second=speed * load.users,
    )


def _user_speed(config: ModelConfig, machine: Accelerator, load: Load, dtype: Dtype, gpus: int, users: int) -> float:
    """Tokens a second of each of `users`, the time taken by the prompts of new answers shared among them."""
    read = load.prompt / load.answer * users * _prompt_token(config, machine, load, dtype, gpus)
    return 1 / (_step(config, machine, load, dtype, gpus, users) + read)


def _step(config: ModelConfig, machine: Accelerator, load: Load, dtype: Dtype, gpus: int, users: int) -> float:
    reached = rates(machine, "fp8" if dtype == "float8" else "bf16")
    seen = load.prompt + load.answer / 2
    moved = users * (read_bytes(config, dtype, users) + seen * cache_bytes(config))
    work = (
        users * forward_flops(config) / (reached.matrix * DECODING) + users * _looking(config, seen) / reached.attention
    )
    waits = 2 * config.num_hidden_layers * reached.latency if gpus > 1 else 0.0
    return (moved / reached.bandwidth + work) / gpus + _exchange(config, machine, gpus, math.ceil(users / gpus)) + waits


def _prompt_token(config: ModelConfig, machine: Accelerator, load: Load, dtype: Dtype, gpus: int) -> float:
    reached = rates(machine, "fp8" if dtype == "float8" else "bf16")
    looks = forward_flops(config, load.prompt // 2) - forward_flops(config)
    work = forward_flops(config) / reached.matrix + looks / reached.attention
    return (work + _exchange(config, machine, gpus, 1.0)) / gpus


def _looking(config: ModelConfig, seen: float) -> float:
    """FLOPs of one token's attention over a cache: latent attention looks at latents, in every head."""
    if config.kv_lora_rank:
        width = 2 * config.kv_lora_rank + config.qk_rope_head_dim
    else:
        width = config.qk_head_dim + config.value_dim
    return 2 * config.num_hidden_layers * config.num_attention_heads * width * seen


def _exchange(config: ModelConfig, machine: Accelerator, gpus: int, rows: float) -> float:
    """Seconds that `rows` tokens of each accelerator travel: two exchanges a layer, of rows to experts or of sums."""
    if gpus == 1:
        return 0.0
    reached, ranks = rates(machine), Group(gpus, min(gpus, machine.node))
    copies = config.num_experts_per_tok if config.has_experts else 1
    link, network = ranks.exchange(rows * copies * config.hidden_size * 2)
    return 2 * config.num_hidden_layers * max(link / reached.link, network / reached.network)
