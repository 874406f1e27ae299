"""A model on the ranks of a job: a `Trainer` of which every rank is a part."""

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from yatsude.checkpoint import hf, sharded, state
from yatsude.checkpoint.sharded import InShards, Sharded
from yatsude.errors import CheckpointError
from yatsude.files import new_folder
from yatsude.model.router import Penalties
from yatsude.model.router_stats import bias_ranges
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.parallel.collectives import summed
from yatsude.parallel.job import Job, Read
from yatsude.parallel.mesh import Mesh
from yatsude.progress import say
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.stored import stored
from yatsude.train.ahead import shifted
from yatsude.train.balance import balance
from yatsude.train.feed import Batch
from yatsude.train.settings import LoopSettings
from yatsude.train.sharded import ShardedOptimizer

__all__ = ["Ranks", "shared"]

A = TypeVar("A")
SCRATCH = "scored"


class Ranks:
    """One rank's part of a `Trainer`; rank 0 tells what happens, and writes what is written once.

    `start` gives the numbers of any box of a weight to begin with.
    """

    def __init__(
        self,
        settings: LoopSettings,
        parallel: ParallelSettings,
        config: ModelConfig,
        start: Read,
        folder: Path,
        *,
        dtype: torch.dtype,
    ) -> None:
        self.settings, self.config, self.folder = settings, config, folder
        self.mesh = Mesh(parallel)
        self.leads = torch.distributed.get_rank() == 0
        penalties = Penalties(sequence=settings.sequence_balance, z=settings.router_z)
        self.job = Job(
            config,
            self.mesh,
            sequences=settings.sequences_per_step,
            length=settings.sequence_length,
            dtype=dtype,
            ahead_weight=settings.mtp_weight,
            penalties=penalties if settings.sequence_balance or settings.router_z else None,
            float8=settings.precision == "fp8",
        )
        self.job.allocate()
        self.job.fill(start)
        self.job.fill_biases(start)
        self.optimizer = ShardedOptimizer(settings.optimizer, self.job)
        self._saved: Path | None = None

    def gradient(self, batch: Batch, step: int) -> float:
        """Take the gradient of this rank's part of a step; the mean loss of all of it, in nats."""
        inputs, targets, documents = (torch.from_numpy(a) for a in (batch.inputs, batch.targets, batch.documents))
        if not self.settings.separate_documents:
            documents = torch.zeros_like(documents)
        layers = self.config.num_nextn_predict_layers
        return self.job.gradient(
            inputs, targets, documents, [shifted(inputs, targets, documents, n + 1) for n in range(layers)]
        )

    def norm(self) -> float:
        """Length of the gradient of all ranks."""
        return self.job.norm()

    def update(self, rate_share: float, norm: float) -> None:
        """Clip the gradient, move the weights, forget it."""
        self.optimizer.step(rate_share, norm)

    def balance(self) -> Tensor:
        """Move the routers' biases; the loads of all layers, (mixture layers, E)."""
        found = [balance([s.model], self.settings.balance_rate, self.job.sum_loads) for s in self.job.stages.values()]
        return self._of_all_layers([row for loads in found for row in loads]).long()

    def bias_ranges(self) -> Sequence[float | None]:
        """From the least to the greatest bias of each mixture layer."""
        mine = [one for stage in self.job.stages.values() for one in bias_ranges(stage.model.routers)]
        if any(one is None for one in mine):
            return [None] * len(mine)
        rows = self._of_all_layers([torch.tensor([one], dtype=torch.float64) for one in mine], width=1)
        return [float(value) for value in rows[:, 0]]

    def agree(self, stop: bool) -> bool:
        """Whether any rank was asked to stop."""
        return bool(summed(torch.tensor(int(stop)), self.mesh.everyone))

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score:
        """Let rank 0 put the model together and score it; a model that fits on no machine is not scored."""
        place = self.folder / SCRATCH
        self._write(place, {}, moments=False)
        found = evaluate(_whole(InShards(Sharded(place, check=False), self.config))) if self.leads else None
        if self.leads:
            shutil.rmtree(place)
        score: Score | None = shared(found)
        assert score, "rank 0 has scored"
        return score

    def source(self) -> InShards:
        """The weights of the last state."""
        assert self._saved, "a run ends with a state"
        return InShards(Sharded(self._saved, check=False), self.config)

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Write a state, every rank its part."""
        self._write(place, page, moments=True)
        self._saved = place

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state."""
        place = shared(_newest(checkpoints) if self.leads else None)
        if place is None:
            return None
        found = Sharded(place, check=False)  # rank 0 has done so
        self._saved = place
        return found, found.page

    def restore(self, found: Sharded, steps: int) -> None:
        """Go on from a state, whatever the layout that wrote it."""
        self.job.fill(found.read)
        self.job.fill_biases(found.read)
        for name, beside in self.optimizer.moments.items():
            self.job.fill(found.read, f"{name}.", beside)
        self.optimizer.steps = steps

    def _write(self, place: Path, page: Mapping[str, Any], moments: bool) -> None:
        """Write beside the place, every rank its part, and rename when all have."""
        with new_folder(place) if self.leads else contextlib.nullcontext() as draft:
            folder = Path(shared(str(draft)))
            pieces = [*self.job.pieces(), *self.job.biases()]
            for name, beside in self.optimizer.moments.items() if moments else ():
                pieces += self.job.pieces(f"{name}.", beside)
            sharded.write(folder, torch.distributed.get_rank(), pieces)
            torch.distributed.barrier()
            if self.leads:
                sharded.complete(folder, page)
        torch.distributed.barrier()

    def _of_all_layers(self, mine: list[Tensor], width: int | None = None) -> Tensor:
        """Rows of the mixture layers of all stages, bottom to top, from those of this rank's."""
        config = self.config
        rows = torch.zeros(
            config.moe_layers + config.num_nextn_predict_layers, width or config.n_routed_experts, dtype=torch.float64
        )
        places = [place for stage in self.job.stages.values() for place in _places(stage.layers, stage.is_last, config)]
        for place, row in zip(places, mine, strict=True):
            rows[place] = row
        return summed(rows, self.mesh.pp)


def shared(value: A) -> A:
    """What rank 0 has, on all ranks."""
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _places(layers: range, last: bool, config: Any) -> list[int]:
    """Numbers of a stage's mixture layers among all of the model."""
    mine = [layer - config.first_k_dense_replace for layer in layers if config.is_moe(layer)]
    return mine + [config.moe_layers + n for n in range(config.num_nextn_predict_layers if last else 0)]


def _whole(source: InShards) -> Transformer:
    """All of a model in this process."""
    model = hf.blank(source.config, torch.float32)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name, entry in stored(source.config).items():
        tensors[entry.place.tensor][entry.place.index].copy_(source.read(name))
    return model


def _newest(checkpoints: Path) -> Path | None:
    """The newest state that is as it was written."""
    steps = state.steps(checkpoints)
    for place in steps:
        try:
            Sharded(place)
        except CheckpointError as error:
            say(f"{error}; trying the one before it")
        else:
            return place
    if steps:
        raise CheckpointError(
            f"none of the {len(steps)} checkpoints in {checkpoints} can be used; move the folder away to start anew"
        )
    return None
