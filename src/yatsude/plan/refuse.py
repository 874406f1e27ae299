"""Layouts that cannot work, and the equation that fails, with the numbers.

`ParallelSettings` refuses by itself what is no mesh; here is what needs the model, the machine or the batch.
"""

from collections.abc import Iterator

from yatsude.errors import RecipeError
from yatsude.plan.finding import Finding
from yatsude.plan.job import Job, micro_batches
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings

__all__ = ["refusals", "refuse", "refuse_mesh", "refuse_pipeline"]


def refuse(job: Job, layout: ParallelSettings) -> None:
    """Refuse a layout that cannot work: the first reason is the error."""
    for finding in refusals(job, layout):
        raise RecipeError(f"{finding.key} = {finding.value}: {finding.message}")


def refusals(job: Job, layout: ParallelSettings) -> Iterator[Finding]:
    """All that cannot work."""
    if layout.ranks != job.gpus:
        yield _error(
            "parallel.dp",
            layout.dp,
            f"pp x replicas x dp x cp x tp = {layout.pp} x {layout.replicas} x {layout.dp} x {layout.cp} x {layout.tp}"
            f" = {layout.ranks} ranks for {job.gpus} GPUs; make them equal",
        )
    yield from refuse_mesh(job, layout)
    yield from refuse_pipeline(job, layout)


def refuse_mesh(job: Job, layout: ParallelSettings) -> Iterator[Finding]:
    """What fails whatever the schedule is."""
    config = job.config
    for name, size in _cut_by_tensor(config):
        if size % layout.tp:
            yield _error(
                "parallel.tp", layout.tp, f"{name} = {size} leaves {size % layout.tp}; choose a divisor of {size}"
            )
    experts = config.n_routed_experts if config.has_experts else 1
    if experts % layout.ep:
        has = (
            f"n_routed_experts = {experts} leaves {experts % layout.ep}" if experts > 1 else "the model has no experts"
        )
        yield _error("parallel.ep", layout.ep, f"{has}; choose a divisor of {experts}")
    pieces = (2 * layout.cp if layout.cp > 1 else 1) * layout.tp
    if job.sequence % pieces:
        yield _error(
            "parallel.cp" if layout.cp > 1 else "parallel.tp",
            layout.cp if layout.cp > 1 else layout.tp,
            f"a sequence of {job.sequence} tokens is no multiple of {pieces}: cp x tp = {layout.cp} x {layout.tp}"
            f"{', and two pieces a rank' if layout.cp > 1 else ''}; change one",
        )
    if job.batch % layout.batch_ranks:
        yield _error(
            "train.sequences_per_step",
            job.batch,
            f"no multiple of replicas x dp = {layout.replicas} x {layout.dp} = {layout.batch_ranks}; choose"
            f" {max(job.batch // layout.batch_ranks, 1) * layout.batch_ranks}",
        )


def refuse_pipeline(job: Job, layout: ParallelSettings) -> Iterator[Finding]:
    """What fails of a schedule, its stages and micro-batches."""
    n, p, layers = micro_batches(layout), layout.pp, job.config.num_hidden_layers
    if layout.stages > layers:
        yield _error(
            "parallel.pp", p, f"pp x stages_per_rank = {p} x {layout.stages_per_rank} stages for {layers} layers;"
            f" choose at most {layers} stages",
        )  # fmt: skip
    each = job.batch // layout.batch_ranks
    if not job.batch % layout.batch_ranks and (each % n or each < n):
        yield _error(
            "parallel.micro_batches", n, f"a rank has {each} sequences of a step ({job.batch} /"
            f" {layout.batch_ranks}); choose a divisor of {each}",
        )  # fmt: skip
    if p == 1:
        if layout.stages_per_rank > 1:
            yield _error("parallel.stages_per_rank", layout.stages_per_rank, "there is no pipeline (pp = 1); set 1")
        return
    if layout.schedule == "interleaved" and layout.stages_per_rank < 2:
        yield _error("parallel.stages_per_rank", layout.stages_per_rank, "'interleaved' needs 2 or more; or '1f1b'")
    if layout.schedule in ("interleaved", "zero-bubble") and n % max(n // p, 1):
        yield _error(
            "parallel.micro_batches", n, f"schedule '{layout.schedule}' runs them in {n // p} rounds of pp = {p}, and"
            f" {n % max(n // p, 1)} are left; choose a multiple of {p}",
        )  # fmt: skip
    if layout.splits_backward and job.config.num_nextn_predict_layers > 1:
        yield _error(
            "parallel.schedule", layout.schedule, "it takes gradients in two steps, which PyTorch can do for one layer"
            " of multi-token prediction at most; choose '1f1b' or 'interleaved'",
        )  # fmt: skip
    least = layout.stages if layout.schedule == "dualpipev" else p
    if n < least:
        word = "stages" if layout.schedule == "dualpipev" else "ranks of the pipeline"
        yield _error("parallel.micro_batches", n, f"fewer than the {least} {word}, which would idle; choose {least}")


def _cut_by_tensor(config: ModelConfig) -> Iterator[tuple[str, int]]:
    yield "num_attention_heads", config.num_attention_heads
    if not config.kv_lora_rank:
        yield "num_key_value_heads", config.num_key_value_heads
    if config.first_k_dense_replace:
        yield "intermediate_size", config.intermediate_size


def _error(key: str, value: object, message: str) -> Finding:
    return Finding(severity="error", key=key, value=value, message=message)
