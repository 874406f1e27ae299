"""Where the router sends tokens: the load of each expert, for each kind of text and for all.

Shapes: L mixture layers, E experts, K kinds of text, B rows, T tokens.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from yatsude.evaluate.heldout import Part
from yatsude.evaluate.results import ExpertLoad
from yatsude.model.router_stats import layer_loads, relative_load
from yatsude.model.transformer import Transformer, document_mask

__all__ = ["information", "measure"]

ROWS = 16


def measure(model: Transformer, kinds: Mapping[str, Part], window: int, tokens: int) -> ExpertLoad:
    """Count loads on about `tokens` held-out tokens, the same number of each kind as far as there are enough."""
    budget = max(1, tokens // max(len(kinds), 1))
    counts = {name: _count(model, part, window, budget) for name, part in kinds.items()}
    counts_KLE = torch.stack(list(counts.values())).double()
    shares_KLE = counts_KLE / counts_KLE.sum(-1, keepdim=True).clamp_min(1)
    mean_LE = shares_KLE.mean(0)
    layers = layer_loads(mean_LE)
    return ExpertLoad(
        all=relative_load(mean_LE).tolist(),
        kinds={name: relative_load(loads).tolist() for name, loads in counts.items()},
        busiest=[layer.busiest for layer in layers],
        idlest=[layer.idlest for layer in layers],
        entropy=[layer.entropy for layer in layers],
        dead=(counts_KLE.sum(0) == 0).sum(-1).tolist(),
        information=information(shares_KLE),
        tokens=int(counts_KLE[:, 0].sum()) // model.config.num_experts_per_tok if model.routers else 0,
    )


def information(shares_KLE: Tensor) -> list[float]:
    """Mutual information in bits between the kind of a text and the expert of one of its tokens, layer by layer.

    `shares_KLE` holds each kind's distribution over experts; kinds weigh the same, so the most there can be is log2 K.
    """
    entropy = torch.special.entr(shares_KLE.mean(0)).sum(-1) - torch.special.entr(shares_KLE).sum(-1).mean(0)
    return (entropy.clamp_min(0) / math.log(2)).tolist()


@torch.inference_mode()
def _count(model: Transformer, part: Part, window: int, tokens: int) -> Tensor:
    """Tokens that each expert received, (L, E), from packed rows without padding."""
    inputs_BT, documents_BT = _rows(part, window, tokens)
    for router in model.routers:
        router.load.zero_()
    for inputs, documents in zip(inputs_BT.split(ROWS), documents_BT.split(ROWS), strict=True):
        model(inputs, mask_BTS=document_mask(documents, model.norm.weight.dtype))
    loads = [router.load.clone() for router in model.routers]
    return torch.stack(loads) if loads else torch.zeros(0, model.config.n_routed_experts)


def _rows(part: Part, window: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Lay documents end to end and cut them into whole rows: token ids and document numbers, each (B, T)."""
    ids: list[np.ndarray] = []
    size = 0
    for document in part.documents():
        ids.append(document[:-1])
        size += len(document) - 1
        if size >= tokens:
            break
    numbers = np.repeat(np.arange(len(ids)), [len(piece) for piece in ids])
    width = min(window, size)
    rows = max(1, min(size, tokens) // width)
    shape = (rows, width)
    return (
        torch.from_numpy(np.concatenate(ids)[: rows * width].reshape(shape)),
        torch.from_numpy(numbers[: rows * width].reshape(shape)),
    )
