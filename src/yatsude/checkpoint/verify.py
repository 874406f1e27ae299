"""Is what lies on disk the model that was meant? Read it again, compare every tensor and the logits.

Both sides are walked through piece by piece, so that it takes little memory whatever their size.
"""

import dataclasses
import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from yatsude import manifest
from yatsude.checkpoint import streamed
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.pieces import both, pieces
from yatsude.checkpoint.shard import as_bytes
from yatsude.checkpoint.write import Precisions, Weights, on_disk
from yatsude.errors import CheckpointError
from yatsude.model import float8
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import Shape

__all__ = ["Figures", "Health", "check", "checksum", "distance", "verify"]

PROMPTS, LENGTH = 2, 12
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """How a folder differs from its source. Differences are largest absolute values."""

    tensors: int
    """Tensors compared one by one."""
    parameters: int
    tensors_sha256: str
    """Checksum of names, precisions, shapes and numbers of all tensors, however they lie in files."""
    tensor_difference: float
    """Stored numbers against the source's rounded to the same precision; 0 in a good export."""
    worst_tensor: str
    """Where that is, if it is anywhere."""
    logit_difference: float
    """The folder's logits against those of the source with its weights rounded; 0 in a good export."""
    rounding_difference: float
    """The folder's logits against those of the source as it is: what the precision on disk costs."""
    same_choice: float
    """Share of positions at which both think the same token most likely, the source as it is and the folder."""
    largest_logit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """What a folder is found to be on its own."""

    tensors: int
    parameters: int
    tensors_sha256: str
    """As in `Figures`."""
    largest_logit: float
    checksums: bool
    """Whether there was a manifest to hold the files against."""


def verify(folder: Path, source: Weights) -> Figures:
    """Compare a folder with what it must equal, but for the precision on disk; any other difference is an error."""
    written = Folder(folder)
    written.refuse_other_copies()
    if written.config != source.config:
        raise CheckpointError(f"{folder} is another model: {_first_difference(written.config, source.config)}")
    figures = _compare(written, source)
    allowed = TOLERANCE * max(1.0, figures.largest_logit)
    # written so that a difference that is not a number counts as one
    if not (figures.tensor_difference == 0 and figures.logit_difference <= allowed):
        raise CheckpointError(
            f"{folder} is not the model it was written from: weights differ by {figures.tensor_difference:.3g}"
            f"{f' (most in {figures.worst_tensor})' if figures.worst_tensor else ''}, logits by"
            f" {figures.logit_difference:.3g} (allowed {allowed:.3g}); export it again"
        )
    return figures


def distance(one: Weights, other: Weights) -> tuple[float, float]:
    """Largest difference of the logits of two models on the fixed prompts, and the largest logit of the second."""
    prompts = _prompts(other.config)
    mine, theirs = both(lambda: streamed.logits(one, prompts), lambda: streamed.logits(other, prompts))
    return _largest(mine - theirs), _largest(theirs)


def check(folder: Path) -> Health:
    """Check a folder on its own: files by its manifest's checksums, every tensor in place, all numbers finite."""
    described = (folder / manifest.NAME).is_file()
    if described:
        manifest.check(folder, manifest.read(folder))
    written = Folder(folder)
    written.refuse_other_copies()
    found = checksum(written)
    logits = streamed.logits(written, _prompts(written.config))
    if not logits.isfinite().all():
        raise CheckpointError(f"{folder} gives logits that are not numbers; export an earlier checkpoint")
    return Health(
        tensors=len(written.tensors),
        parameters=_parameters(written),
        tensors_sha256=found,
        largest_logit=_largest(logits),
        checksums=described,
    )


def _compare(written: Folder, source: Weights) -> Figures:
    precision, prompts = _AsStored(written), _prompts(written.config)
    (worst, tensor, whole), (exact, found) = both(
        lambda: _tensor_differences(written, source, precision),
        lambda: (streamed.logits(source, prompts), streamed.logits(written, prompts)),
    )
    rounded = exact if torch.equal(found, exact) else streamed.logits(_Rounded(source, precision), prompts)
    return Figures(
        tensors=len(written.tensors),
        parameters=_parameters(written),
        tensors_sha256=whole,
        tensor_difference=worst,
        worst_tensor=tensor,
        logit_difference=_largest(found - rounded),
        rounding_difference=_largest(found - exact),
        same_choice=(found.argmax(-1) == exact.argmax(-1)).float().mean().item(),
        largest_logit=_largest(exact),
    )


class _AsStored:
    """The precisions of a folder, tensor by tensor."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.blocks = folder, folder.blocks or float8.BLOCKS

    def of(self, name: str, shape: Shape) -> torch.dtype:
        return self.folder.entry(name).dtype


class _Rounded:
    """A source as it would be on disk."""

    def __init__(self, source: Weights, precision: Precisions) -> None:
        self.config, self.source, self.precision = source.config, source, precision

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        part = self.source.read(name, rows)
        dtype = self.precision.of(name, part.shape)
        if dtype != torch.float8_e4m3fn:
            return part.to(dtype)
        return float8.dequantised(*float8.quantised(part, self.precision.blocks), self.precision.blocks)

    def lies(self, name: str) -> None:
        """In no folder: it is rounded."""


def _tensor_differences(written: Folder, source: Weights, precision: Precisions) -> tuple[float, str, str]:
    """Largest difference of all, in which tensor, and the checksum of what is stored."""
    whole, worst, tensor = hashlib.sha256(), 0.0, ""
    for name in sorted(written.tensors):
        gap = _tensor_difference(written, source, name, precision, whole)
        if gap > worst or math.isnan(gap):
            worst, tensor = gap, name
        if math.isnan(worst):
            break
    return worst, tensor, whole.hexdigest()


def _tensor_difference(
    written: Folder, source: Weights, name: str, precision: Precisions, whole: "hashlib._Hash"
) -> float:
    """Largest difference of what is stored under a name from what should be; `whole` takes in what is stored."""
    worst = 0.0
    shape = written.tensors[name].shape
    _begin(whole, written, name)
    for first, part in on_disk(source, name, shape, precision):
        stored = written.scale(name) if first < 0 else written.raw(name, (first, first + part.shape[0]))
        whole.update(as_bytes(stored))
        if stored.dtype != part.dtype or not _same_bits(stored, part.contiguous()):
            gap = _largest(stored.to(torch.float64) - part.to(torch.float64)) or math.ulp(0.0)  # -0.0 is not 0.0
            worst = gap if math.isnan(gap) else max(worst, gap)
        if math.isnan(worst):
            break
    return worst


def _same_bits(one: Tensor, other: Tensor) -> bool:
    wide = torch.int64 if one.nbytes % 8 == 0 else torch.uint8
    return torch.equal(one.view(-1).view(wide), other.view(-1).view(wide))


def _begin(whole: "hashlib._Hash", folder: Folder, name: str) -> None:
    entry = folder.entry(name)
    whole.update(f"{name} {entry.dtype} {entry.shape}\n".encode())


def _prompts(config: ModelConfig) -> Tensor:
    """Token ids that are the same everywhere, shape (PROMPTS, LENGTH)."""
    length = min(LENGTH, config.context)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (PROMPTS, length), generator=generator)


def checksum(folder: Folder) -> str:
    """One SHA-256 over all tensors in the order of their names; what is no number is an error."""
    whole = hashlib.sha256()
    for name in sorted(folder.tensors):
        _begin(whole, folder, name)
        for rows in pieces(folder.entry(name).shape):
            whole.update(as_bytes(folder.finite(name, rows)))
        if folder.is_quantised(name):
            whole.update(as_bytes(folder.scale(name)))
    return whole.hexdigest()


def _parameters(folder: Folder) -> int:
    return sum(math.prod(entry.shape) for name, entry in folder.tensors.items() if not name.endswith("correction_bias"))


def _first_difference(written: ModelConfig, source: ModelConfig) -> str:
    names = [f.name for f in dataclasses.fields(source) if getattr(written, f.name) != getattr(source, f.name)]
    return f"{names[0]} = {getattr(written, names[0])!r}, expected {getattr(source, names[0])!r}"


def _largest(tensor: Tensor) -> float:
    """Largest absolute value; not a number if any is."""
    return tensor.abs().max().item()
