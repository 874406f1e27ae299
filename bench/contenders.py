"""What `train_step.py` measures: the models, a packed batch, our training step and that of transformers."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor

from yatsude.checkpoint import hf
from yatsude.model.documents import Documents
from yatsude.model.init import initialise
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.train.balance import balance
from yatsude.train.optimizer import Optimizer
from yatsude.train.settings import OptimizerSettings
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

E8 = ModelConfig(
    vocab_size=16384,
    hidden_size=384,
    num_hidden_layers=8,
    intermediate_size=1536,
    moe_intermediate_size=512,
    num_attention_heads=8,
    kv_lora_rank=128,
    q_lora_rank=192,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=64,
    n_routed_experts=8,
    num_experts_per_tok=2,
    n_shared_experts=1,
    first_k_dense_replace=1,
)
CONFIGS = {
    "e8": E8,
    "e32": dataclasses.replace(E8, n_routed_experts=32, num_experts_per_tok=4, moe_intermediate_size=256),
}
ROWS, LENGTH = 8, 256
DOCUMENT = 80
"""Tokens of a document on average: rows hold three or four, or parts of them."""
RATE, BETAS, EPSILON, CLIP = 1e-3, (0.9, 0.95), 1e-8, 1.0
BALANCE_RATE = 1e-3

OURS = "yatsude bf16"
DEFAULT = "transformers fp32, grouped (its default)"
PLAIN = ", plain attention"
"""The peer's attention as products and a softmax; else it is `scaled_dot_product_attention`, its default."""
DENSE_ACTIVE, DENSE_TOTAL = "yatsude bf16, dense, active size", "yatsude bf16, dense, total size"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Packed rows (B, T): tokens, what each must say next, and the number of its document."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor

    @property
    def labels(self) -> Tensor:
        """The targets as transformers wants them: one place further, since it shifts by itself."""
        return torch.cat((torch.full_like(self.targets[:, :1], IGNORED), self.targets[:, :-1]), 1)


Step = Callable[[Batch], float]


def batches(number: int, vocabulary: int) -> list[Batch]:
    """Return some batches of random tokens in documents of random lengths; a document's end predicts nothing."""
    generator = torch.Generator().manual_seed(2)
    made = []
    for _ in range(number):
        tokens = torch.randint(vocabulary, (ROWS, LENGTH), generator=generator)
        documents = (torch.rand(ROWS, LENGTH, generator=generator) < 1 / DOCUMENT).cumsum(1)
        targets = torch.full_like(tokens, IGNORED)
        targets[:, :-1] = tokens[:, 1:].where(documents[:, 1:] == documents[:, :-1], IGNORED)
        made.append(Batch(tokens, targets, documents))
    return made


def model(config: ModelConfig) -> Transformer:
    """Return a model with random weights, its head too."""
    made = Transformer(config)
    initialise(made, 0)
    torch.nn.init.normal_(made.lm_head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return made


def dense(config: ModelConfig, parameters: int) -> ModelConfig:
    """Return the same with dense layers only, so wide that all of it has about so many active parameters."""
    layers = config.num_hidden_layers
    narrow = dataclasses.replace(config, first_k_dense_replace=layers, intermediate_size=1)
    width = (parameters - count(narrow).active) / (3 * config.hidden_size * layers) + 1
    return dataclasses.replace(narrow, intermediate_size=32 * round(width / 32))


def ours(model: Transformer, dtype: torch.dtype, workers: Workers, muon: bool = False) -> Step:
    """Return our step as the training loop takes it."""
    settings = OptimizerSettings(
        muon=muon,
        clip=CLIP,
        rate=RATE,
        embedding_rate=RATE,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON,
        weight_decay=0.0,
    )
    weights = Weights(model, dtype, workers.count)
    optimizer = Optimizer(settings, weights)

    def backward(part: tuple[Transformer, Tensor, Tensor, Tensor, float]) -> float:
        replica, tokens, targets, documents, scale = part
        hidden = replica(tokens, mask=Documents(documents)).flatten(0, 1)
        loss = cross_entropy(hidden, replica.lm_head.weight, targets.flatten(), scale)
        loss.backward()
        return loss.item()

    def step(batch: Batch) -> float:
        scale = 1 / int((batch.targets != IGNORED).sum())
        rows = (t.tensor_split(workers.count) for t in (batch.tokens, batch.targets, batch.documents))
        loss = sum(workers.map(backward, zip(weights.replicas, *rows, [scale] * workers.count, strict=True)))
        optimizer.step(1.0, math.sqrt(sum(workers.map(weights.collect, weights.shares))), workers)
        balance(weights.replicas, BALANCE_RATE)
        return loss

    return step


def theirs(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Step:
    """Return the peer's step with torch's fused AdamW: the mask over documents is ours, biases are not updated.

    Its experts are multiplied by groups, which was faster than its eager way.
    """
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    ).train()
    model.set_experts_implementation("grouped_mm")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True)

    def step(batch: Batch) -> float:
        mask = Documents(batch.documents).whole(dtype)[:, None]
        loss = model(batch.tokens, attention_mask=mask, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def contenders(config: ModelConfig, folder: Path) -> dict[str, Step]:
    """Return all steps that are compared at one thread; `folder` gets the weights for the peer."""
    one, bf16, fp32 = Workers(1), torch.bfloat16, torch.float32
    start = model(config)
    hf.write(start, folder, fp32, 1 << 40)
    counts = count(config)
    return {
        OURS: ours(start, bf16, one),
        "yatsude bf16, Muon": ours(start, bf16, one, muon=True),
        DENSE_ACTIVE: ours(model(dense(config, counts.active)), bf16, one),
        DENSE_TOTAL: ours(model(dense(config, counts.total - counts.embedding)), bf16, one),
        DEFAULT: theirs(folder, fp32),
        "transformers bf16, grouped": theirs(folder, bf16),
        f"transformers bf16, grouped{PLAIN}": theirs(folder, bf16, "eager"),
    }
