"""Starting weights."""

import torch
from torch import nn

from yatsude.model.transformer import Transformer

__all__ = ["initialise", "writes"]


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Fill every weight, the same for the same seed.

    embed_tokens           normal, deviation `initializer_range`
    matrices that write    normal, deviation 1 / sqrt(inputs) / sqrt(2 · layers)  (o_proj, down_proj)
    other matrices         normal, deviation 1 / sqrt(inputs)
    lm_head                zero: the first prediction is uniform (tied: as embed_tokens)
    norms                  one
    biases                 zero
    """
    generator = torch.Generator().manual_seed(seed)
    depth = (2 * model.config.num_hidden_layers) ** -0.5
    for name, weight in model.named_parameters():
        if name.startswith("embed_tokens"):
            weight.normal_(std=model.config.initializer_range, generator=generator)
        elif name.startswith("lm_head") or name.endswith(".bias"):
            nn.init.zeros_(weight)
        elif weight.ndim == 1:
            nn.init.ones_(weight)
        else:
            weight.normal_(std=weight.shape[-1] ** -0.5 * (depth if writes(name) else 1.0), generator=generator)


def writes(name: str) -> bool:
    """Whether the matrix of this name writes to the residual stream."""
    return name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
