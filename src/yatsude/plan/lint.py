"""Settings that have cost others a run: each finding says the equation, the numbers, and what to do."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from yatsude.plan.faults import Faults
from yatsude.plan.finding import Finding
from yatsude.plan.job import Job, micro_batch
from yatsude.plan.refuse import refusals
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.spec.parallel import ParallelSettings

__all__ = ["Training", "lint", "usual_batch", "usual_rate"]

LONG_RUN, LONG_WARMUP = 20_000, 1_000
"""Steps from which on large runs warm up for this many or more (DeepSeek-V3: 2,000)."""
FEWEST_TOKENS = 20
"""Tokens a parameter that a compute-optimal run has (arXiv 2203.15556); an active one, of a mixture."""
FEWEST_ROWS = 400
"""Rows an expert and step: their count then scatters by 5 %, of which balance can tell too much from too little."""
FEWEST_PRODUCT = 64
"""Rows an expert and micro-batch below which its product waits for its weights."""
MOST_LOST = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What the rules look at; `0` and `None` are what nobody has decided."""

    steps: int
    warmup: float
    """Share of the steps."""
    rate: float
    """Highest learning rate of AdamW."""
    epsilon: float
    beta2: float = 0.95
    clip: float = 1.0
    router: Literal["fp32", "bf16"] = "fp32"
    """Precision of the router's scores."""
    checkpoint_steps: int = 0
    step_seconds: float = 0.0
    """Of a step, as planned or measured."""


def lint(job: Job, training: Training, layout: ParallelSettings, faults: Faults) -> list[Finding]:
    """Every finding, errors first."""
    found = [
        *refusals(job, layout),
        *_optimizer(job, training),
        *_size(job, training),
        *_experts(job, layout),
        *_context(job),
        *_links(job, layout),
        *_checkpoints(training, faults),
    ]
    return sorted(found, key=lambda finding: finding.severity != "error")


def usual_rate(flops: float) -> float:
    """Learning rate of a run of that many FLOPs: 0.3118 · C^-0.1250 (DeepSeek LLM, arXiv 2401.02954, section 3.1).

    DeepSeek-V3's own was 2.2e-4:

    >>> round(usual_rate(6 * 37e9 * 14.8e12), 5)
    0.00027
    """
    return 0.3118 * flops**-0.1250


def usual_batch(flops: float) -> float:
    """Tokens of a step of a run of that many FLOPs: 0.2920 · C^0.3271 (as `usual_rate`)."""
    return 0.2920 * flops**0.3271


def _optimizer(job: Job, training: Training) -> Iterator[Finding]:
    warm, needed = training.warmup * training.steps, 2 / (1 - training.beta2)
    if warm < min(needed, training.steps / 4):
        yield _warning(
            "train.warmup",
            training.warmup,
            f"{warm:.0f} steps of warm-up; AdamW's second moment needs 2 / (1 - beta2) = {needed:.0f} (arXiv"
            f" 1910.04209); set {needed / training.steps:.2g} or more",
        )
    elif training.steps >= LONG_RUN and warm < LONG_WARMUP:
        yield _warning(
            "train.warmup",
            training.warmup,
            f"{warm:.0f} steps of warm-up in a run of {training.steps:,}; large runs take {LONG_WARMUP:,} to 2,000",
        )
    typical = training.clip / math.sqrt(count(job.config).total)
    if training.epsilon > 0.1 * typical:
        severity: Literal["error", "warning"] = "error" if training.epsilon >= typical else "warning"
        yield Finding(
            severity=severity,
            key="train.optimizer.epsilon",
            value=training.epsilon,
            message=f"a clipped gradient's numbers are about clip / sqrt(parameters) = {typical:.1g}, and epsilon"
            f" damps all that is not far above it, which stalls training; set {typical / 1000:.0e} or less",
        )
    if job.config.has_experts and training.router != "fp32":
        yield _warning(
            "train.router", training.router, "close scores become ties, and experts swap from step to step; use fp32"
        )


def _size(job: Job, training: Training) -> Iterator[Finding]:
    tokens, active = float(training.steps) * job.tokens, count(job.config).active
    usual, batch = usual_rate(6.0 * active * tokens), usual_batch(6.0 * active * tokens)
    if not usual / 10 <= training.rate <= 3 * usual:
        yield _warning(
            "train.optimizer.rate",
            training.rate,
            f"runs of 6 x {active:.3g} x {tokens:.3g} FLOPs take about 0.3118 x C^-0.125 = {usual:.2g}; stay within"
            f" {usual / 10:.1g} and {3 * usual:.1g}",
        )
    if job.tokens > 4 * batch:
        yield _warning(
            "train.sequences_per_step",
            job.batch,
            f"{job.tokens:,} tokens a step; beyond about 0.292 x C^0.3271 = {batch:,.0f} more of them teach little:"
            f" {max(round(batch / job.sequence), 1)} sequences are usual",
        )
    if tokens < FEWEST_TOKENS * active:
        yield _warning(
            "train.steps",
            training.steps,
            f"{tokens:.3g} tokens for {active:.3g} active parameters are {tokens / active:.2g} each, and"
            f" {FEWEST_TOKENS} are usual from random weights; train longer, smaller, or from a base",
        )


def _experts(job: Job, layout: ParallelSettings) -> Iterator[Finding]:
    config = job.config
    if not config.has_experts:
        return
    share = config.num_experts_per_tok / config.n_routed_experts
    rows = job.tokens * share
    if rows < FEWEST_ROWS:
        yield _warning(
            "train.sequences_per_step",
            job.batch,
            f"an expert sees {job.tokens:,} x {config.num_experts_per_tok} / {config.n_routed_experts} = {rows:.0f}"
            f" rows a step, too few to tell its load from chance; {math.ceil(FEWEST_ROWS / share / job.sequence)}"
            f" sequences give {FEWEST_ROWS}",
        )
    together = micro_batch(job, layout) * job.sequence * layout.ep / (layout.cp * layout.tp) * share
    if together < FEWEST_PRODUCT:
        yield _warning(
            "parallel.ep",
            layout.ep,
            f"an expert's product has {together:.0f} rows of a micro-batch, fewer than {FEWEST_PRODUCT}: it waits for"
            " its weights; take more ranks into ep, or larger micro-batches",
        )


def _context(job: Job) -> Iterator[Finding]:
    config, length = job.config, job.sequence
    if length > config.context:
        yield Finding(
            severity="error",
            key="train.sequence_length",
            value=length,
            message=f"the model knows {config.context} positions; shorten it, or raise model.max_position_embeddings",
        )
    slowest = _longest_wave(config)
    if length > slowest:
        yield _warning(
            "model.rope_theta",
            config.rope_theta,
            f"its slowest rotation comes round after 2 pi theta^(1 - 2/d) = {slowest:,.0f} tokens, within a sequence of"
            f" {length}; raise it or add rope_scaling",
        )


def _longest_wave(config: ModelConfig) -> float:
    stretch = config.rope_scaling.factor if config.rope_scaling and config.rope_scaling.factor else 1.0
    return 2 * math.pi * config.rope_theta ** (1 - 2 / config.rotary_dim) * stretch


def _links(job: Job, layout: ParallelSettings) -> Iterator[Finding]:
    if layout.tp > job.accelerator.node:
        yield _warning(
            "parallel.tp",
            layout.tp,
            f"beyond the {job.accelerator.node} {job.accelerator.name} of a node its gathers go over the network, in"
            f" every layer; choose {job.accelerator.node} or less",
        )


def _checkpoints(training: Training, faults: Faults) -> Iterator[Finding]:
    interval = training.checkpoint_steps * training.step_seconds
    if not interval:
        return
    if training.checkpoint_steps > training.steps:
        yield _warning(
            "train.checkpoint_steps",
            training.checkpoint_steps,
            f"no state is written before the end, at step {training.steps}; choose {max(training.steps // 10, 1)}",
        )
        return
    loss, best = faults.loss(interval), faults.best_interval
    if loss > MOST_LOST and loss > 1.2 * faults.loss(best):
        yield _warning(
            "train.checkpoint_steps",
            training.checkpoint_steps,
            f"saving every {interval / 60:.0f} min with a failure every {faults.seconds / 3600:.3g} h loses save /"
            f" interval + (interval / 2 + restart) / time between failures = {100 * loss:.1f} % of the time;"
            f" {max(round(best / training.step_seconds), 1)} steps lose {100 * faults.loss(best):.1f} %",
        )


def _warning(key: str, value: object, message: str) -> Finding:
    return Finding(severity="warning", key=key, value=value, message=message)
