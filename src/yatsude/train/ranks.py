"""A model on the ranks of a job: a `Trainer` of which every rank is a part."""

import contextlib
import math
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from yatsude.checkpoint import hf, state
from yatsude.checkpoint.sharded import InShards, Piece, Sharded
from yatsude.checkpoint.sums import damage
from yatsude.errors import CheckpointError
from yatsude.machine import memory
from yatsude.model.router_stats import bias_ranges
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.parallel import deepep
from yatsude.parallel.collectives import summed
from yatsude.parallel.job import Job, Read, local
from yatsude.parallel.mesh import Mesh
from yatsude.progress import say
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.stored import stored, tensors
from yatsude.train.ahead import shifted
from yatsude.train.balance import balance, penalties_of
from yatsude.train.feed import Batch
from yatsude.train.loop import Written
from yatsude.train.nonfinite import LAST, Find, lost_weights, watched
from yatsude.train.saving import Saving, everyones, shared
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
        self.job = Job(
            config,
            self.mesh,
            sequences=settings.sequences_per_step,
            length=settings.sequence_length,
            dtype=dtype,
            master=torch.promote_types(dtype, torch.float32),
            ahead_weight=settings.mtp_weight,
            penalties=penalties_of(settings),
            float8=settings.precision == "fp8",
        )
        if announced := deepep.announced(parallel, self.mesh.device):
            say(announced)
        self.job.allocate()
        self.job.fill(start)
        self.job.fill_biases(start)
        self.optimizer = ShardedOptimizer(settings.optimizer, self.job)
        self._saved: Path | None = None
        self._notes: list[dict[str, Any]] = []
        self._saving = Saving()

    def rows(self, count: int) -> slice:
        """Those of a step's sequences that this rank's part of the job reads."""
        return self.job.rows

    def gradient(self, batch: Batch, step: int) -> float:
        """Take the gradient of this rank's rows of a step; the mean loss of all of it, in nats."""
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

    def forget(self) -> None:
        """Drop the gradient, and the counts of the routers."""
        for _, weight in self.job.parameters():
            weight.grad = None
        for stage in self.job.stages.values():
            for router in stage.model.routers:
                router.load.zero_()

    def trace(self, batch: Batch, step: int) -> str:
        """Which rank has something that is no number first in a step; the step is done again, and forgotten."""
        self.forget()
        found = list(lost_weights((name, local(weight.detach())) for name, weight in self.job.parameters()))
        with contextlib.ExitStack() as stack:
            for stage in self.job.stages.values():
                stack.enter_context(watched(stage.model, found))
            self.gradient(batch, step)
        lost = any(not math.isfinite(stage.loss) for stage in self.job.stages.values())
        found += [Find(1, (LAST, LAST), "the loss")] if lost else []
        self.forget()
        firsts: list[tuple[Find, str] | None] = everyones((min(found), socket.gethostname()) if found else None)
        known = [(find, rank, host) for rank, (find, host) in enumerate(one or (None, "") for one in firsts) if find]
        if not known:
            return "and on no rank when the step is done again: look at the machines' memory"
        find, rank, host = min(known)
        return f"first on rank {rank} ({host}): {find.what}"

    def notes(self) -> list[dict[str, Any]]:
        """What happened beside the steps since this was asked last, as lines for the log."""
        found, self._notes = self._notes, []
        return found

    def agree(self, stop: bool) -> bool:
        """Whether any rank was asked to stop; and, by the same exchange, whether any still writes."""
        flags = summed(torch.tensor([int(stop), int(self._saving.busy)]), self.mesh.everyone)
        self._saving.all_written = not flags[1]
        return bool(flags[0])

    def shared(self, value: A) -> A:
        """What rank 0 has, on all ranks."""
        return shared(value)

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score | None:
        """Let rank 0 put the model together and score it; a model that fits on no machine is not scored."""
        counts = count(self.config)
        need, have = 4 * (counts.total + counts.mtp), shared(memory())
        if 0 < have < need:
            say(f"not scored: the model takes {need / 1e9:,.0f} GB, the first rank's machine has {have / 1e9:,.0f}")
            return None
        place, found = self.folder / SCRATCH, None
        scratch = Saving()
        scratch.begin(place, {}, self._pieces(moments=False))
        written = scratch.end(wait=True)
        if written and written.error:
            say(f"not scored: {written.error}")
            return None
        if self.leads:
            found = evaluate(_whole(InShards(Sharded(place, check=False), self.config)))
            shutil.rmtree(place)
        return shared(found)

    def source(self) -> InShards:
        """The weights of the last state."""
        assert self._saved, "a run ends with a state"
        return InShards(Sharded(self._saved, check=False), self.config)

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Begin to write a state, every rank its part: it is copied here, and written while training goes on."""
        self._saving.begin(place, page, self._pieces(moments=True))

    def saved(self, wait: bool) -> Written | None:
        """What became of the state that was begun, once it is finished on all ranks."""
        written = self._saving.end(wait)
        if written and not written.error:
            self._saved = written.place
        return written

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state."""
        steps: list[Path] = shared(state.steps(checkpoints) if self.leads else [])
        for place in steps:
            wrong = [error for error in everyones(_wrong(place)) if error]
            if not wrong:
                self._saved = place
                found = Sharded(place, check=False)
                return found, found.page
            say(f"{wrong[0]}; trying the one before it")
        if steps:
            raise CheckpointError(
                f"none of the {len(steps)} checkpoints in {checkpoints} can be used; move the folder away to start anew"
            )
        return None

    def restore(self, found: Sharded, steps: int) -> None:
        """Go on from a state, whatever the layout that wrote it."""
        found.refuse_another(tensors(self.config))
        self.job.fill(found.read)
        self.job.fill_biases(found.read)
        for name, beside in self.optimizer.moments.items():
            self.job.fill(found.read, f"{name}.", beside)
        self.optimizer.steps = steps

    def _pieces(self, moments: bool) -> Iterator[Piece]:
        """What this rank has to write."""
        yield from self.job.pieces()
        yield from self.job.biases()
        for name, beside in self.optimizer.moments.items() if moments else ():
            yield from self.job.pieces(f"{name}.", beside)

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


def _wrong(place: Path) -> str:
    """What is wrong with this rank's share of a state; nothing if it is as it was written."""
    wrong = damage(place, torch.distributed.get_rank(), torch.distributed.get_world_size())
    if wrong:
        return f"checkpoint {place} cannot be used: {wrong}"
    try:
        Sharded(place, check=False)
    except CheckpointError as error:
        return str(error)
    return ""
