"""What the plan says of the run at hand: how long a step should take, at rates measured when it starts."""

import dataclasses
import json
import math
import socket
import time
from pathlib import Path
from typing import Any

import torch

from yatsude.errors import YatsudeError
from yatsude.files import new_file
from yatsude.machine import cores, processor
from yatsude.parallel.mesh import device_type
from yatsude.plan.job import Job
from yatsude.plan.rates import Rates, rates
from yatsude.plan.step import step
from yatsude.progress import say
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import training_flops
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.calibrate import calibrate, wall
from yatsude.train.links import links
from yatsude.train.ranks import shared
from yatsude.train.settings import LoopSettings
from yatsude.train.watch import Expected
from yatsude.train.workers import Workers

__all__ = ["expect", "forecast"]

NAME = "rates.json"
"""What was measured, in the run's folder: a run that goes on takes it again, as `yatsude plan --calibration` can."""
ROUNDS = 3
"""Of each measurement: all together take some tenths of a second."""
CPU = accelerator("cpu")


def expect(
    config: ModelConfig,
    settings: LoopSettings,
    dtype: torch.dtype,
    folder: Path,
    *,
    workers: Workers,
    scored: int = 0,
    parallel: ParallelSettings | None = None,
) -> Expected:
    """What a run should come to on this machine; every rank of a job makes the call. What cannot be said is left out.

    Rates are measured on all threads at once, in CPU time: what the machine gives a run that has it for itself.
    """
    start = time.perf_counter()
    threads, many = (0, parallel.ranks) if parallel else (workers.count, workers.count)
    found = _measured(config, dtype, folder, workers, parallel)
    crowd = 1.0 if _device(parallel) == "cuda" else max(_beside(parallel, workers) / cores(), 1.0)
    try:
        reached = dataclasses.replace(rates(CPU), **found, **({"network": found["link"]} if "link" in found else {}))
        seconds = forecast(config, settings, reached, workers=threads or 1, scored=scored, parallel=parallel)
    except (YatsudeError, ArithmeticError, LookupError) as error:
        say(f"plan: nothing said of this run: {error}")
        found = {}
    if not found:
        return Expected(workers=threads)
    unseen = config.vocab_size - scored if scored else 0
    expected = Expected(
        seconds=crowd * seconds,
        flops=training_flops(config, settings.sequence_length) - 6 * config.hidden_size * unseen,
        peak=many * reached.matrix / crowd,
        workers=threads,
    )
    took, kind = time.perf_counter() - start, "ranks" if parallel else "threads"
    say(
        f"plan: a step should take {expected.seconds:.3g} s; products run at {expected.peak / 1e9:,.0f} GFLOP/s on"
        f" {many} {kind} (measured in {took:.1f} s), of which MFU is a share"
    )
    return expected


def forecast(
    config: ModelConfig,
    settings: LoopSettings,
    reached: Rates,
    *,
    workers: int = 1,
    scored: int = 0,
    parallel: ParallelSettings | None = None,
) -> float:
    """Seconds of a step, by the plan's closed form and the rates of one thread.

    Workers are threads that each take a share of the sequences through the whole model, and a share of the update;
    `parallel` is a job of ranks of one thread each. `scored` are the candidates of a sampled softmax.
    """
    job = Job(
        config=config,
        accelerator=CPU,
        gpus=parallel.ranks if parallel else 1,
        sequence=settings.sequence_length,
        batch=math.ceil(settings.sequences_per_step / workers),
        optimizer="muon" if settings.optimizer.muon else "adamw",
        imbalance=1.0,
        scored=scored,
        measured=reached,
    )
    found = step(job, parallel or ParallelSettings(micro_batches=1))
    terms = found.terms | {"optimizer": found.terms["optimizer"] / workers}
    return sum(terms.values())


def _measured(
    config: ModelConfig, dtype: torch.dtype, folder: Path, workers: Workers, parallel: ParallelSettings | None
) -> dict[str, float]:
    """Rates of one thread, and of the links between ranks; empty where nothing could be measured."""
    ranks, threads = (parallel.ranks, 1) if parallel else (1, workers.count)
    page = {
        "machine": torch.cuda.get_device_name() if _device(parallel) == "cuda" else processor(),
        "precision": str(dtype).removeprefix("torch."),
        "processes": ranks,
        "threads": threads,
    }
    leads = parallel is None or torch.distributed.get_rank() == 0
    known = _read(folder / NAME, page) if leads else {}
    known = shared(known) if parallel else known
    if known:
        return known

    def measure(_: int) -> dict[str, float]:
        device = _device(parallel)
        return calibrate(
            config, dtype, clock=wall if device == "cuda" else time.thread_time, rounds=ROUNDS, device=device
        )

    try:
        spread = map if parallel else workers.map
        each = list(spread(measure, range(threads)))
        found = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    except Exception as error:  # a forecast is no reason to end a run
        say(f"plan: nothing measured, so nothing said of this run: {error!r:.200}")
        found = {}
    between = links(_device(parallel)) if parallel else {}  # by all ranks, whatever one of them could measure
    found = found and found | between
    if leads and found:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / NAME) as draft:
            draft.write_text(json.dumps(page | found, indent=1) + "\n", encoding="utf-8")
    return found


def _read(path: Path, page: dict[str, Any]) -> dict[str, float]:
    """Rates of an earlier start on this kind of machine, with as many threads and ranks."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = isinstance(found, dict) and all(found.get(name) == value for name, value in page.items())
    known = {field.name for field in dataclasses.fields(Rates)}
    return {name: value for name, value in found.items() if name in known} if same else {}


def _device(parallel: ParallelSettings | None) -> str:
    """What computes: one process has the CPU."""
    return device_type() if parallel else "cpu"


def _beside(parallel: ParallelSettings | None, workers: Workers) -> int:
    """Threads that compute on this machine: a rank has one."""
    if parallel is None:
        return workers.count
    hosts = [""] * parallel.ranks
    torch.distributed.all_gather_object(hosts, socket.gethostname())
    return hosts.count(socket.gethostname())
