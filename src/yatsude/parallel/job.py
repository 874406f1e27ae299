"""A model cut over ranks as the settings say, and one step's gradient of it."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from yatsude.errors import RecipeError
from yatsude.model.block import Mixture
from yatsude.model.loss import IGNORED
from yatsude.model.router import Penalties
from yatsude.model.transformer import Transformer
from yatsude.parallel import deepep
from yatsude.parallel.collectives import summed
from yatsude.parallel.context import Context
from yatsude.parallel.expert import deal
from yatsude.parallel.float8 import in_float8
from yatsude.parallel.mesh import Mesh
from yatsude.parallel.pipeline import pipeline, stages_of
from yatsude.parallel.place import Box, Cut, cut_of, part_of
from yatsude.parallel.recompute import recompute
from yatsude.parallel.shard import blocks_of, shard
from yatsude.parallel.stage import Stage
from yatsude.parallel.tensor import cut
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import layers_of

__all__ = ["Job", "Piece", "Read", "local"]

Piece = tuple[str, tuple[int, ...], Box, Tensor]
"""Name and shape of a whole weight, a box of it, and the numbers there."""
Read = Callable[[str, Box], Tensor]
"""Numbers of a box of a weight, by its name in the whole model."""


class Job:
    """One rank's part of a model in training: no more of it than that is ever in memory.

    `sequences` and `length` are those of a whole step. Products are in `dtype`, weights and gradients in `master`.
    `ahead_weight` is of multi-token prediction, `penalties` are the routers' auxiliary losses; with `float8` the
    products of the layers are in FP8. Weights begin as shapes; `allocate` gives them memory, and `fill` numbers.
    """

    def __init__(
        self,
        config: ModelConfig,
        mesh: Mesh,
        *,
        sequences: int,
        length: int,
        dtype: torch.dtype,
        master: torch.dtype = torch.float32,
        ahead_weight: float = 0.0,
        penalties: Penalties | None = None,
        float8: bool = False,
    ) -> None:
        settings = mesh.settings
        _refuse(config, settings, penalties)
        if settings.dispatch == "deepep":
            deepep.needed(dtype)
        self.config, self.mesh, self.context, self.float8 = config, mesh, Context(mesh, length), float8
        micro_batches = settings.micro_batches or (2 * settings.stages if settings.pp > 1 else 1)
        parts = settings.batch_ranks * micro_batches
        if sequences % parts:
            raise RecipeError(
                f"train.sequences_per_step = {sequences}: expected a multiple of {parts}, parallel.replicas x dp ="
                f" {settings.batch_ranks} times {micro_batches} micro-batches"
            )
        self.twice = config.tie_word_embeddings or config.num_nextn_predict_layers > 0
        self.share = sequences // settings.batch_ranks
        self.stages = {
            number: self._stage(number, ahead_weight, dtype, master) for number in stages_of(settings, mesh.stage)
        }
        if penalties:
            self._penalise(dataclasses.replace(penalties, sequences=sequences))
        self._cuts: dict[nn.Parameter, Cut] = {}
        hidden = torch.empty(
            self.share // micro_batches,
            len(self.context.tokens_T),
            config.hidden_size,
            dtype=dtype,
            device="meta",
            requires_grad=True,
        )
        self._run = pipeline(self.stages, mesh, micro_batches, hidden)

    @property
    def rows(self) -> slice:
        """Which of a step's sequences this rank reads."""
        return slice(self.mesh.batch * self.share, (self.mesh.batch + 1) * self.share)

    def allocate(self) -> None:
        """Give the weights memory, which holds what lay there; routers' biases and counts are 0."""
        for stage in self.stages.values():
            stage.allocate("cpu" if self.mesh.settings.offload else self.mesh.device, self.mesh.device)
            for name, weight in stage.model.named_parameters():
                self._cuts[weight] = cut_of(stage.model, name)

    def gradient(self, inputs: Tensor, targets: Tensor, documents: Tensor, ahead: list[tuple[Tensor, Tensor]]) -> float:
        """Add up the gradient of a step; the mean main loss of all of it, in nats, comes back.

        Every rank is given its `rows` of the step's sequences, (rows, length), on the CPU. `ahead` are the tokens and
        targets of the layers of multi-token prediction.
        """
        settings = self.mesh.settings
        counted = summed((targets != IGNORED).sum().to(self.mesh.device), self.mesh.everyone)
        scale = settings.pp * settings.cp * settings.tp / max(int(counted), 1)  # so many ranks have the same rows
        for stage in self.stages.values():
            stage.scale, stage.loss = scale, torch.zeros((), dtype=torch.float64, device=self.mesh.device)
        here, device = self.context.tokens_T, self.mesh.device
        nothing = inputs.new_empty(len(inputs), 0, inputs.shape[1])
        following, later = (torch.stack(part, 1) for part in zip(*ahead, strict=True)) if ahead else (nothing, nothing)
        self._run(
            inputs[:, here].to(device),
            targets_BT=targets[:, here].to(device),
            documents_BS=documents.to(device),
            following_BPT=following[..., here].to(device),
            later_BPT=later[..., here].to(device),
        )
        self._join_copies()
        loss = torch.stack([stage.loss for stage in self.stages.values()]).sum()
        return float(summed(loss, self.mesh.everyone))

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Weights of this rank by their names in the whole model, each a part of it."""
        for stage in self.stages.values():
            yield from stage.model.named_parameters()

    def pieces(
        self, prefix: str = "", beside: Callable[[nn.Parameter], Tensor | None] = torch.Tensor.detach
    ) -> Iterator[Piece]:
        """What this rank has to write: its weights, or what lies `beside` them, under a prefix.

        Replicas have the same, so only the first one writes; a weight that two stages have is written by the first.
        """
        for stage in self.stages.values() if self.mesh.replica == 0 else ():
            for name, weight in stage.model.named_parameters():
                found = None if stage.is_copy(name) else beside(weight)
                if found is None:
                    continue
                part, numbers = part_of(weight, self._cuts[weight]), local(found)
                for here, there in part.boxes:
                    yield prefix + name, part.shape, there, numbers[here]

    def fill(
        self, read: Read, prefix: str = "", beside: Callable[[nn.Parameter], Tensor | None] = torch.Tensor.detach
    ) -> None:
        """Fill this rank's weights, or what lies `beside` them, with the boxes that `read` finds."""
        for stage in self.stages.values():
            for name, weight in stage.model.named_parameters():
                found = beside(weight)
                if found is None:
                    continue
                numbers = local(found)
                for here, there in part_of(weight, self._cuts[weight]).boxes:
                    numbers[here] = read(prefix + name, there).to(numbers.dtype)

    def biases(self) -> Iterator[Piece]:
        """The routers' biases, which are no weights: written by one rank of a stage."""
        for name, bias in self._biases() if self.mesh.leads else ():
            yield name, tuple(bias.shape), (slice(0, len(bias)),), bias

    def fill_biases(self, read: Read) -> None:
        """Fill the routers' biases."""
        for name, bias in self._biases():
            bias.copy_(read(name, (slice(0, len(bias)),)))

    def _biases(self) -> Iterator[tuple[str, Tensor]]:
        for stage in self.stages.values():
            for name, buffer in stage.model.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    yield name, buffer

    def whole(self, weight: nn.Parameter, numbers: Tensor) -> Tensor:
        """Join what all ranks have beside a matrix, `numbers` here; of experts nothing, each rank has whole ones."""
        if weight.ndim > 2 or not isinstance(weight, DTensor):
            return numbers
        mesh, placements = weight.device_mesh, weight.placements
        shared = DTensor.from_local(numbers, mesh, placements, shape=weight.shape, stride=weight.stride())
        cut, joined = self._cuts[weight], shared.full_tensor()
        if cut.ranks == 1:
            return joined
        shares = [torch.empty_like(joined) for _ in range(cut.ranks)]
        torch.distributed.all_gather(shares, joined.contiguous(), group=self.mesh.tp.get_group())
        return cut.join(shares)

    def mine(self, weight: nn.Parameter, whole: Tensor) -> Tensor:
        """What of `whole` lies beside this rank's part of a matrix."""
        if weight.ndim > 2:
            return whole
        numbers = torch.empty_like(local(weight), dtype=whole.dtype)
        for here, there in part_of(weight, self._cuts[weight]).boxes:
            numbers[here] = whole[there]
        return numbers

    def norm(self) -> float:
        """Length of the whole gradient: every number of it lies on one rank of a replica."""
        squares = torch.zeros((), dtype=torch.float64, device=self.mesh.device)
        for stage in self.stages.values():
            for name, parameter in stage.model.named_parameters():
                if parameter.grad is not None and not stage.is_copy(name):
                    squares += local(parameter.grad).double().square().sum()
        return math.sqrt(summed(squares, self.mesh.whole))

    def scale(self, factor: float) -> None:
        """Multiply the gradient, to clip it."""
        for _, parameter in self.parameters():
            if parameter.grad is not None:
                local(parameter.grad).mul_(factor)

    def sum_loads(self, loads_LE: Tensor) -> Tensor:
        """What all ranks with the same layers counted: tokens an expert."""
        return summed(loads_LE, self.mesh.peers)

    def _penalise(self, penalties: Penalties) -> None:
        """Give the routers their losses; each rank has a part of its sequences, so that its mean is one of several."""
        settings = self.mesh.settings
        share = dataclasses.replace(penalties, sequences=penalties.sequences * settings.cp * settings.tp)
        for stage in self.stages.values():
            for router in stage.model.routers:
                router.penalties = share

    def _join_copies(self) -> None:
        """Add up the gradients of the embedding where the last stage has it a second time."""
        ends = [stage for stage in self.stages.values() if stage.is_first != stage.is_last]
        if not self.twice or not ends:
            return
        tables = [local(grad) for stage in ends if (grad := stage.model.embed_tokens.weight.grad) is not None]
        total = torch.stack(tables).sum(0)
        if self.mesh.ends is not None:
            torch.distributed.all_reduce(total, group=self.mesh.ends)
        for table in tables:
            table.copy_(total)

    def _stage(self, number: int, ahead_weight: float, dtype: torch.dtype, master: torch.dtype) -> Stage:
        settings = self.mesh.settings
        with torch.device("meta"):
            whole = Transformer(self.config).to(master)
        stage = Stage(whole, layers_of(self.config, settings)[number], number, settings.stages, ahead_weight)
        stage.context = self.context
        modules = []
        for block in blocks_of(stage):
            modules += cut(block, self.mesh.tp)
            if isinstance(block.mlp, Mixture):
                deal(block.mlp, self.mesh.ep, settings.dispatch)
            if self.float8:
                in_float8(block)
            recompute(block, settings.recompute, settings.splits_backward)
        shard(stage, modules, self.mesh, dtype)
        return stage


def _refuse(config: ModelConfig, settings: ParallelSettings, penalties: Penalties | None) -> None:
    """Refuse models that cannot be cut so."""
    layers, experts = config.num_hidden_layers, config.n_routed_experts
    if settings.stages > layers:
        raise RecipeError(
            f"parallel.pp = {settings.pp} x stages_per_rank = {settings.stages_per_rank}: {settings.stages} stages, the"
            f" model {layers} layers; expected at least a layer a stage"
        )
    if experts % settings.ep:
        raise RecipeError(f"parallel.ep = {settings.ep}: expected a divisor of the {experts} experts")
    if penalties and penalties.sequence and settings.cp * settings.tp > 1:
        raise RecipeError(
            f"train.sequence_balance = {penalties.sequence}: it looks at whole sequences, and with parallel.cp ="
            f" {settings.cp} and tp = {settings.tp} no router sees one; use balance_rate"
        )
    if settings.splits_backward and config.num_nextn_predict_layers > 1:
        raise RecipeError(
            f"parallel.schedule = '{settings.schedule}': it takes gradients in two steps, which PyTorch can do for one"
            " layer of multi-token prediction at most; choose '1f1b' or 'interleaved'"
        )


def local(tensor: Tensor) -> Tensor:
    """Part of a tensor that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
