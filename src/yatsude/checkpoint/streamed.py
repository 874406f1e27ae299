"""A model whose weights stay on disk: each is read when its product comes, and forgotten after it.

So the logits of a folder of any size can be computed in little memory. The arithmetic is `model`'s own, in float32;
only where a weight is used is replaced.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.checkpoint.pieces import pieces
from yatsude.checkpoint.write import Weights
from yatsude.model.experts import Experts
from yatsude.model.norm import RMSNorm
from yatsude.model.router import Router
from yatsude.model.swiglu import swiglu
from yatsude.model.transformer import Transformer
from yatsude.spec.stored import EMBEDDING, Shape, names_of_copies, stored

__all__ = ["logits"]

Read = Callable[[str, tuple[int, int] | None], Tensor]


@torch.no_grad()
def logits(source: Weights, prompts: Tensor) -> Tensor:
    """Scores of every position, (B, T, V) in float32, for token ids (B, T)."""

    def read(name: str, rows: tuple[int, int] | None) -> Tensor:
        return source.read(name, rows).float()

    with torch.device("meta"):
        model = Transformer(source.config)
    names: dict[str, list[tuple[str, Shape]]] = {}
    copies = names_of_copies(source.config)
    for name, entry in stored(source.config).items():
        if name not in copies:
            names.setdefault(entry.place.tensor, []).append((name, entry.shape))
    _replace(model, "", names, read)
    hidden = model(prompts)
    return model.logits(hidden)


def _replace(module: nn.Module, path: str, names: dict[str, list[tuple[str, Shape]]], read: Read) -> None:
    """Put a reading part in the place of each that has weights."""
    for name, child in list(module.named_children()):
        here = f"{path}{name}"
        if isinstance(child, nn.Embedding):
            setattr(module, name, _Embedding(names[f"{here}.weight"][0][0], read))
        elif isinstance(child, nn.Linear):
            parts = names.get(f"{here}.weight", names[EMBEDDING])  # a head may be the embedding
            bias = names[f"{here}.bias"][0][0] if child.bias is not None else None
            setattr(module, name, _Linear(parts, bias, read))
        elif isinstance(child, Experts):
            setattr(module, name, _Experts(names[f"{here}.gate_up_proj"], names[f"{here}.down_proj"], read))
        elif isinstance(child, RMSNorm | Router):
            setattr(module, name, _Small(child, here, names, read))
        else:
            _replace(child, f"{here}.", names, read)


class _Embedding(nn.Module):
    """Reads the rows of the tokens that come."""

    def __init__(self, name: str, read: Read) -> None:
        super().__init__()
        self.name, self.read = name, read

    def forward(self, tokens: Tensor) -> Tensor:
        found, index = tokens.unique(return_inverse=True)
        return torch.cat([self.read(self.name, (row, row + 1)) for row in found.tolist()])[index]


class _Linear(nn.Module):
    """Multiplies piece by piece; gate and up are two tensors of the file."""

    def __init__(self, parts: list[tuple[str, Shape]], bias: str | None, read: Read) -> None:
        super().__init__()
        self.parts, self.bias, self.read = parts, bias, read

    def forward(self, x: Tensor) -> Tensor:
        out = [functional.linear(x, self.read(name, rows)) for name, shape in self.parts for rows in pieces(shape)]
        y = out[0] if len(out) == 1 else torch.cat(out, -1)
        return y if self.bias is None else y + self.read(self.bias, None)


class _Experts(nn.Module):
    """Reads an expert at a time, and those alone that tokens came to."""

    def __init__(self, gate_up: list[tuple[str, Shape]], down: list[tuple[str, Shape]], read: Read) -> None:
        super().__init__()
        self.gate_up, self.down, self.read = gate_up, down, read

    def forward(self, x_RD: Tensor, counts_E: Tensor) -> Tensor:
        out = []
        for expert, rows in enumerate(x_RD.split(counts_E.tolist())):
            if len(rows):
                gate_up = _Linear(self.gate_up[2 * expert : 2 * expert + 2], None, self.read)(rows)
                out.append(_Linear(self.down[expert : expert + 1], None, self.read)(swiglu(gate_up)))
        return torch.cat(out)


class _Small(nn.Module):
    """A part with few weights: they are there while it works."""

    def __init__(self, part: nn.Module, path: str, names: dict[str, list[tuple[str, Shape]]], read: Read) -> None:
        super().__init__()
        self.part, self.read = part.to_empty(device="cpu"), read
        self.stored = {name: names[f"{path}.{name}"][0][0] for name in part.state_dict()}

    @property
    def load(self) -> Tensor:
        """Tokens that each expert received, of a router."""
        return self.part.load  # type: ignore[return-value]

    def forward(self, *args: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        weights = {name: self.read(there, None) for name, there in self.stored.items()}
        return torch.func.functional_call(self.part, weights, args)
