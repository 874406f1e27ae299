"""A start that already knows which token follows which.

Embedding and head alone are a log-bilinear bigram model: logits = head · norm(embedding). All pairs of neighbouring
tokens are counted once, and the two tables are fitted to the counts, a share of the contexts a step. That costs
seconds, sees every pair of the corpus many times, and spares the training run its first minutes, which would be spent
on these counts. The layers start silent: what they write to the residual stream is zero.

Shapes: V vocabulary, D hidden width, P counted pairs, C contexts of one step.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yatsude.model.init import writes
from yatsude.model.transformer import Transformer
from yatsude.progress import bar
from yatsude.shards import Shards
from yatsude.train.schedule import share
from yatsude.train.workers import Workers

__all__ = ["Pairs", "count_pairs", "fit", "seconds", "start"]

EPOCHS, PARTS = 24, 8
"""Passes over all contexts, and steps of one pass."""
RATE, EMBEDDING_RATE = 0.02, 0.16
"""A row of the embedding is moved by one step in PARTS only. From WIDTH on the head's rate falls with the width."""
WIDTH = 128
DECAY = 1 / 48
"""Of the head, times the width: without it the start learns the training text's pairs by heart, and the layers learn to
trust them."""
BETAS = (0.9, 0.95)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Counts of neighbouring tokens by context: the pairs of context v stand from `starts[v]` to `starts[v + 1]`."""

    following_P: npt.NDArray[np.int64]
    counts_P: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]

    def of(self, contexts_C: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of some contexts: the context's place among them, the token that follows, and the count."""
        lengths = self.starts[contexts_C + 1] - self.starts[contexts_C]
        rows = np.repeat(np.arange(len(contexts_C)), lengths)
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(self.starts[contexts_C], lengths) + offsets
        return (
            torch.from_numpy(rows),
            torch.from_numpy(self.following_P[places]),
            torch.from_numpy(self.counts_P[places]),
        )


def count_pairs(corpora: Sequence[tuple[Shards, float]]) -> Pairs:
    """Count all pairs of neighbouring tokens of some corpora over one vocabulary, each with its weight."""
    size = corpora[0][0].vocab_size
    codes: list[npt.NDArray[np.int64]] = []
    counts: list[npt.NDArray[np.float64]] = []
    for shards, weight in corpora:
        for tokens in shards.streams():
            code, count = np.unique(tokens[:-1].astype(np.int64) * size + tokens[1:], return_counts=True)
            codes.append(code)
            counts.append(weight * count.astype(np.float64))
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.bincount(place, weights=np.concatenate(counts)).astype(np.float32)
    return Pairs(code % size, total, np.searchsorted(code // size, np.arange(size + 1)))


def fit(
    pairs: Pairs, shape: tuple[int, int], seed: int, *, eps: float, dtype: torch.dtype, workers: Workers
) -> tuple[Tensor, Tensor]:
    """Fit embedding, each row of root mean square 1, and head to the counts by AdamW; `shape` is (V, D) of both.

    `dtype` is that of the products.
    """
    generator = np.random.default_rng(seed)
    embedding = torch.from_numpy(generator.standard_normal(shape, np.float32)).requires_grad_()
    head = torch.zeros(shape, requires_grad=True)
    optimizer = _optimizer(embedding, head)
    rates = (RATE * min(1.0, WIDTH / shape[1]), EMBEDDING_RATE)
    total = float(pairs.counts_P.sum())
    steps = EPOCHS * PARTS
    recent: collections.deque[float] = collections.deque(maxlen=PARTS)  # a pass: parts differ
    with bar("bigram start", steps, "steps") as progress:
        for step in range(steps):
            if step % PARTS == 0:
                parts = np.array_split(generator.permutation(shape[0]), PARTS)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share((step + 0.5) / steps, 10 / steps, 1.0)
            part = parts[step % PARTS]
            nats = _gradients(pairs, part, embedding, head, eps=eps, dtype=dtype, scale=PARTS / total, workers=workers)
            optimizer.step()
            recent.append(nats)
            progress.advance(1, f"{sum(recent) / len(recent):.3f} nats a token")
    with torch.no_grad():
        embedding /= embedding.square().mean(-1, keepdim=True).sqrt()
    return embedding.detach(), head.detach()


def seconds(shape: tuple[int, int], dtype: torch.dtype, workers: Workers, clock: Callable[[], float]) -> float:
    """Estimate from one step what the steps of `fit` take on this machine, in seconds of `clock`."""
    vocab = shape[0]
    pairs = Pairs(np.arange(vocab), np.ones(vocab, np.float32), np.arange(vocab + 1))
    contexts = np.arange(math.ceil(vocab / PARTS))
    embedding, head = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    optimizer = _optimizer(embedding, head)
    for _ in range(2):  # the first one is a warm-up
        begin = clock()
        _gradients(pairs, contexts, embedding, head, eps=1e-6, dtype=dtype, scale=1.0, workers=workers)
        optimizer.step()
    return EPOCHS * PARTS * (clock() - begin)


def start(
    model: Transformer, corpora: Sequence[tuple[Shards, float]], seed: int, dtype: torch.dtype, workers: Workers
) -> None:
    """Give `model` fitted embedding and head, and silence the matrices that write to the residual stream."""
    config = model.config
    shape = config.vocab_size, config.hidden_size
    embedding, head = fit(count_pairs(corpora), shape, seed, eps=config.rms_norm_eps, dtype=dtype, workers=workers)
    with torch.no_grad():
        model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.copy_(head)
        for name, weight in model.named_parameters():
            if writes(name):
                weight.zero_()


def _optimizer(embedding_VD: Tensor, head_VD: Tensor) -> torch.optim.AdamW:
    decay = DECAY * head_VD.shape[1]
    groups = [{"params": [head_VD], "weight_decay": decay}, {"params": [embedding_VD], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


@torch.no_grad()
def _gradients(
    pairs: Pairs,
    contexts: npt.NDArray[np.int64],
    embedding_VD: Tensor,
    head_VD: Tensor,
    *,
    eps: float,
    dtype: torch.dtype,
    scale: float,
    workers: Workers,
) -> float:
    """Set the tables' gradients of the contexts' cross-entropy times `scale`; that cross-entropy comes back."""
    narrow_VD = head_VD.to(dtype)

    @torch.no_grad()  # threads do not inherit it
    def part(contexts_C: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, float]:
        """Contexts, gradient of their embeddings, gradient of the head, and cross-entropy, all times `scale`."""
        rows, following, counts = pairs.of(contexts_C)
        chosen = torch.from_numpy(contexts_C)
        x = embedding_VD[chosen]
        inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        hidden = x * inverse
        narrow = hidden.to(dtype)
        error = torch.softmax(narrow @ narrow_VD.T, -1)
        nats = -float((counts * error[rows, following].float().clamp_min(1e-30).log()).sum())
        error *= torch.zeros(len(chosen)).index_add_(0, rows, counts)[:, None].to(dtype)
        error.index_put_((rows, following), -counts.to(dtype), accumulate=True)
        grad = (error @ narrow_VD).float() * scale
        grad = (grad - hidden * (grad * hidden).mean(-1, keepdim=True)) * inverse
        return chosen, grad, (error.T @ narrow).float() * scale, nats * scale

    found = workers.map(part, np.array_split(contexts, workers.count))
    embedding_VD.grad = torch.zeros_like(embedding_VD)
    for chosen, grad, _, _ in found:
        embedding_VD.grad[chosen] = grad
    head_VD.grad = torch.stack([grad for _, _, grad, _ in found]).sum(0)
    return math.fsum(nats for *_, nats in found)
