"""A start that already knows which token follows which.

Embedding and head alone are a log-bilinear bigram model: logits = head · norm(embedding). All pairs of neighbouring
tokens are counted once, and the two tables are fitted to the counts, a share of the contexts a step. That costs
seconds, sees every pair of the corpus many times, and spares the training run its first minutes, which would be spent
on these counts. The layers start silent: what they write to the residual stream is zero.

Shapes: V vocabulary, D hidden width, P counted pairs, C contexts of one step.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yatsude.model.transformer import Transformer
from yatsude.progress import bar
from yatsude.shards import Shards
from yatsude.train.schedule import share

__all__ = ["Pairs", "count_pairs", "fit", "seconds", "start"]

EPOCHS = 30
PARTS = 8
RATE = 0.02
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


def fit(pairs: Pairs, vocab: int, width: int, eps: float, seed: int) -> tuple[Tensor, Tensor]:
    """Fit embedding (V, D), each row of root mean square 1, and head (V, D) to the counts by Adam."""
    generator = np.random.default_rng(seed)
    embedding = torch.from_numpy(generator.standard_normal((vocab, width), np.float32)).requires_grad_()
    head = torch.zeros(vocab, width, requires_grad=True)
    optimizer = torch.optim.Adam([embedding, head], lr=RATE, betas=BETAS, fused=True)
    total = float(pairs.counts_P.sum())
    steps = EPOCHS * PARTS
    with bar("bigram start", steps, "steps") as progress:
        for step in range(steps):
            if step % PARTS == 0:
                parts = np.array_split(generator.permutation(vocab), PARTS)
            optimizer.param_groups[0]["lr"] = RATE * share((step + 1) / steps, 10 / steps, 1.0)
            nats = _gradients(pairs, parts[step % PARTS], embedding, head, eps, PARTS / total)
            optimizer.step()
            progress.advance(1, f"{nats:.3f} nats a token")
    with torch.no_grad():
        embedding /= embedding.square().mean(-1, keepdim=True).sqrt()
    return embedding.detach(), head.detach()


def seconds(vocab: int, width: int) -> float:
    """Estimate from one step what `fit` takes on this machine, in seconds."""
    one = np.ones(vocab)
    pairs = Pairs(np.arange(vocab), one.astype(np.float32), np.arange(vocab + 1))
    contexts = np.arange(math.ceil(vocab / PARTS))
    embedding, head = torch.randn(vocab, width), torch.randn(vocab, width)
    _gradients(pairs, contexts, embedding, head, 1e-6, 1.0)
    begin = time.perf_counter()
    _gradients(pairs, contexts, embedding, head, 1e-6, 1.0)
    return EPOCHS * PARTS * (time.perf_counter() - begin)


def start(model: Transformer, corpora: Sequence[tuple[Shards, float]], seed: int) -> None:
    """Give `model` fitted embedding and head, and silence the matrices that write to the residual stream."""
    config = model.config
    embedding, head = fit(count_pairs(corpora), config.vocab_size, config.hidden_size, config.rms_norm_eps, seed)
    with torch.no_grad():
        model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.copy_(head)
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj")):
                weight.zero_()


@torch.no_grad()
def _gradients(
    pairs: Pairs, contexts_C: npt.NDArray[np.int64], embedding: Tensor, head: Tensor, eps: float, scale: float
) -> float:
    """Set the gradients of the contexts' cross-entropy times `scale`; that cross-entropy comes back."""
    rows, following, counts = pairs.of(contexts_C)
    chosen = torch.from_numpy(contexts_C)
    x = embedding[chosen]
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    hidden = x * inverse
    narrow, head_narrow = hidden.bfloat16(), head.bfloat16()
    error = torch.softmax(narrow @ head_narrow.T, -1)
    nats = -float((counts * error[rows, following].float().clamp_min(1e-30).log()).sum())
    error *= torch.zeros(len(chosen)).index_add_(0, rows, counts)[:, None].bfloat16()
    error.index_put_((rows, following), -counts.bfloat16(), accumulate=True)
    head.grad = (error.T @ narrow).float() * scale
    grad = (error @ head_narrow).float() * scale
    embedding.grad = torch.zeros_like(embedding)
    embedding.grad[chosen] = (grad - hidden * (grad * hidden).mean(-1, keepdim=True)) * inverse
    return nats * scale
