"""Is what lies on disk the model that was meant? Read it again, compare tensors and logits."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.deepseek_v3 import places
from yatsude.errors import CheckpointError
from yatsude.model.transformer import Transformer

__all__ = ["Figures", "check", "compare", "verify"]

PROMPTS, LENGTH = 2, 64
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """How a folder differs from a model. Differences are largest absolute values."""

    tensors: int
    """Tensors compared one by one."""
    parameters: int
    tensor_difference: float
    """Stored weights against the model's weights rounded to the same precision; 0 in a good export."""
    logit_difference: float
    """The folder's logits against those of the model with its weights rounded; 0 in a good export."""
    rounding_difference: float
    """The folder's logits against those of the model as it is: what the precision on disk costs."""
    same_choice: float
    """Share of positions at which both think the same token most likely, the model as it is and the folder."""
    largest_logit: float


def compare(folder: Path, model: Transformer) -> Figures:
    """Compare a folder with the model it was written from, on fixed prompts, in float32."""
    prompts = _prompts(model)
    with _loads_kept(model):
        exact = _logits(model, prompts, None)
        written = hf.load(folder)
        dtype = written.embed_tokens.weight.dtype
        worst, count = _tensor_difference(model, written, dtype)
        rounded = _logits(model, prompts, dtype)
    stored = _logits(written, prompts, None)
    return Figures(
        tensors=count,
        parameters=sum(weight.numel() for weight in model.parameters()),
        tensor_difference=worst,
        logit_difference=_largest(stored - rounded),
        rounding_difference=_largest(stored - exact),
        same_choice=(stored.argmax(-1) == exact.argmax(-1)).float().mean().item(),
        largest_logit=_largest(exact),
    )


def verify(folder: Path, against: Transformer | Path) -> Figures:
    """Compare a folder with the model, or the other folder, it must equal; any difference is an error."""
    figures = compare(folder, hf.load(against) if isinstance(against, Path) else against)
    allowed = TOLERANCE * max(1.0, figures.largest_logit)
    # written so that a difference that is not a number counts as one
    if not (figures.tensor_difference == 0 and figures.logit_difference <= allowed):
        raise CheckpointError(
            f"{folder} is not the model it was written from: weights differ by {figures.tensor_difference:.3g},"
            f" logits by {figures.logit_difference:.3g} (allowed {allowed:.3g}); export it again"
        )
    return figures


def check(folder: Path) -> None:
    """Check an exported folder on its own: files by the manifest's checksums, and logits that are numbers."""
    manifest.check(folder, manifest.read(folder, "export"))
    model = hf.load(folder)
    if not _logits(model, _prompts(model), None).isfinite().all():
        raise CheckpointError(f"{folder} gives logits that are not numbers; export an earlier checkpoint")


def _prompts(model: Transformer) -> Tensor:
    """Token ids that are the same everywhere, shape (PROMPTS, LENGTH)."""
    length = min(LENGTH, model.config.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (PROMPTS, length), generator=generator)


@torch.no_grad()
def _logits(model: Transformer, prompts: Tensor, through: torch.dtype | None) -> Tensor:
    """Logits in float32, of the weights as they are or rounded `through` another precision first."""
    device = model.embed_tokens.weight.device
    weights = {
        name: (weight if through is None else weight.to(through)).float() for name, weight in model.named_parameters()
    }
    hidden = functional_call(model, weights, (prompts.to(device),))
    return torch.nn.functional.linear(hidden, weights.get("lm_head.weight", weights["embed_tokens.weight"])).cpu()


def _tensor_difference(model: Transformer, written: Transformer, dtype: torch.dtype) -> tuple[float, int]:
    ours, theirs = model.state_dict(), written.state_dict()
    stored = places(model)
    gaps = [
        _largest(hf.on_disk(place.of(ours), name, dtype).float() - place.of(theirs).float())
        for name, place in stored.items()
    ]
    return max(gaps), len(gaps)


def _largest(tensor: Tensor) -> float:
    """Largest absolute value; not a number if any is."""
    return tensor.abs().max().item()


@contextlib.contextmanager
def _loads_kept(model: Transformer) -> Iterator[None]:
    """Looking at a model must not count as use of its experts."""
    kept = [router.load.clone() for router in model.routers]
    try:
        yield
    finally:
        for router, load in zip(model.routers, kept, strict=True):
            router.load.copy_(load)
