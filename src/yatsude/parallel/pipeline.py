"""Stages on their ranks, and the order in which micro-batches pass through them, by PyTorch's schedules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage

from yatsude.parallel.mesh import Mesh
from yatsude.parallel.stage import Stage
from yatsude.spec.parallel import ParallelSettings, Schedule

__all__ = ["pipeline", "stages_of"]

SCHEDULES: dict[Schedule, Any] = {
    "1f1b": pipelining.Schedule1F1B,
    "interleaved": pipelining.ScheduleInterleaved1F1B,
    "zero-bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zbv": pipelining.ScheduleZBVZeroBubble,
    "dualpipev": pipelining.ScheduleDualPipeV,
}


def stages_of(settings: ParallelSettings, rank: int) -> list[int]:
    """Numbers of the stages on a pipeline rank: dealt out in turns, or there and back again as a V."""
    if settings.is_v_shaped:
        return [rank, settings.stages - 1 - rank]
    return list(range(rank, settings.stages, settings.pp))


def pipeline(stages: dict[int, Stage], mesh: Mesh, micro_batches: int, hidden: Tensor) -> Callable[..., None]:
    """A function of the tokens and the keywords of a stage that runs all micro-batches forward and backward.

    `hidden` has, on meta, the shape and dtype of what goes from stage to stage.
    """
    settings = mesh.settings
    if settings.pp == 1:
        return _alone(stages[0], micro_batches)
    parts = [_part(stage, number, mesh, hidden) for number, stage in stages.items()]
    schedule = SCHEDULES[settings.schedule](
        parts if settings.schedule != "1f1b" else parts[0],
        n_microbatches=micro_batches,
        loss_fn=lambda loss, target: loss,  # the last stage gives the loss itself
        scale_grads=False,
    )
    has_first, has_last = 0 in stages, settings.stages - 1 in stages

    def run(tokens_BT: Tensor, **rest: Tensor) -> None:
        args = (tokens_BT,) if has_first else ()
        target = {"target": tokens_BT, "losses": []} if has_last else {}
        schedule.step(*args, tokens_BT=tokens_BT, **rest, **target, return_outputs=False)

    return run


def _part(stage: Stage, number: int, mesh: Mesh, hidden: Tensor) -> PipelineStage:
    tokens = torch.empty(hidden.shape[:2], dtype=torch.int64, device="meta")
    loss = torch.empty((), dtype=torch.promote_types(hidden.dtype, torch.float32), device="meta", requires_grad=True)
    return PipelineStage(
        stage,
        number,
        mesh.settings.stages,
        torch.device(mesh.device, torch.cuda.current_device()) if mesh.device == "cuda" else torch.device("cpu"),
        input_args=(tokens if stage.is_first else hidden,),
        output_args=(loss if stage.is_last else hidden,),
        group=mesh.pp.get_group(),
    )


def _alone(stage: Stage, micro_batches: int) -> Callable[..., None]:
    """One stage: the micro-batches one after the other, gradients summed up over the ranks once."""

    def run(tokens_BT: Tensor, **rest: Tensor) -> None:
        pieces = [part.tensor_split(micro_batches) for part in (tokens_BT, *rest.values())]
        for number, (tokens, *others) in enumerate(zip(*pieces, strict=True), 1):
            stage.set_requires_gradient_sync(number == micro_batches)  # type: ignore[operator]
            stage(tokens, tokens_BT=tokens, **dict(zip(rest, others, strict=True))).backward()

    return run
