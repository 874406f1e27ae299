"""Does a dry run tell what a run takes, and how long does it take for 671 B parameters on 2,048 ranks?

    python bench/dryrun.py [--layouts] [--large]

--layouts: local processes train a small mixture and count; the same ranks are played, and the second steps are
compared. Beside it the peak of PyTorch's own allocator, as its profiler records it. --large: a rank of each of the 16
stages of DeepSeek-V3's shape, two steps of 16 micro-batches; exit code 1 above 4 minutes or 1 GiB a rank, or where a
layout differs. By default both.
"""

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore
from torch.profiler import ProfilerActivity, profile

from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train.dryrun import Dry, Task, dry_run, stage_ranks, steps
from yatsude.train.settings import LoopSettings, OptimizerSettings
from yatsude.train.tracker import Tracker

ADAMW = OptimizerSettings(muon=False)
LAYOUTS: dict[str, dict[str, Any]] = {
    "dp2 ep2": {"dp": 2, "ep": 2},
    "tp2, full recomputation": {"tp": 2, "recompute": "full"},
    "cp2 ep2": {"cp": 2, "ep": 2},
    "pp2 replicas2 1f1b": {"pp": 2, "replicas": 2},
    "pp2 zbv": {"pp": 2, "schedule": "zbv", "stages_per_rank": 2},
    "pp2 dp2 tp2 ep4 1f1b": {"pp": 2, "dp": 2, "tp": 2, "ep": 4},
}
SECONDS, BYTES, PEAK = 240, 2**30, 0.03


def main() -> int:
    """Compare, measure, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--large", action="store_true")
    asked = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    good = True
    if asked.layouts or not asked.large:
        for name, layout in LAYOUTS.items():
            good &= _compared(name, layout)
    if asked.large or not asked.layouts:
        good &= _large()
    return 0 if good else 1


def _compared(name: str, layout: dict[str, Any]) -> bool:
    config = preset("nano", num_hidden_layers=4, num_nextn_predict_layers=1, vocab_size=2048)
    train = LoopSettings(sequences_per_step=16, sequence_length=256, optimizer=ADAMW)
    task = Task(config=config, train=train, layout=ParallelSettings(**layout), kernels=False)
    truth = _run(task)
    good = True
    for dry in dry_run(task, stage_ranks(task.layout)):
        true, allocated = truth[dry.rank]
        same = (dry.parameters, dry.optimizer, dry.step.flops, dry.step.exchanged) == (
            true.parameters, true.optimizer, true.step.flops, true.step.exchanged,
        )  # fmt: skip
        off = dry.step.peak / true.step.peak - 1
        calls = sum(calls for calls, _ in dry.step.exchanged.values())
        print(
            f"{name:>24} rank {dry.rank}: parameters, states, FLOPs, {calls} collectives"
            f" {'identical' if same else 'DIFFER'}; peak {dry.step.peak / 1e6:.2f} MB, run {100 * off:+.2f} %,"
            f" its allocator {100 * (allocated / dry.step.peak - 1):+.1f} %"
        )
        good &= same and abs(off) <= PEAK
    return good


def _large() -> bool:
    layout = ParallelSettings(pp=16, dp=128, ep=64, recompute="full", micro_batches=16)
    train = LoopSettings(sequences_per_step=128 * 16, sequence_length=4096, optimizer=ADAMW)
    task = Task(config=preset("700b"), train=train, layout=layout)
    start, parameters, most = time.perf_counter(), 0, 0
    for dry in dry_run(task, stage_ranks(layout)):
        parameters, most = parameters + 128 * dry.parameters, max(most, dry.resident)
        print(
            f"rank {dry.rank}: peak {dry.step.peak / 2**30:.2f} GiB, steady {dry.step.steady / 2**30:.2f},"
            f" {dry.step.flops / 1e12:,.0f} TFLOP, {dry.step.exchanged['all-to-all'][1] / 2**30:.0f} GiB all-to-all;"
            f" {dry.seconds:.0f} s, {dry.resident / 2**30:.2f} GiB"
        )
    seconds = time.perf_counter() - start
    print(f"{parameters / 1e9:.2f} B parameters on 2,048 ranks: {seconds:.0f} s, at most {most / 2**30:.2f} GiB")
    return seconds <= SECONDS and most <= BYTES


def _run(task: Task) -> dict[int, tuple[Dry, int]]:
    """What every rank counts, and its allocator's peak."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.SimpleQueue()
    with tempfile.TemporaryDirectory() as place:
        ranks = [
            spawn.Process(target=_rank, args=(task, rank, Path(place) / "store", results), daemon=True)
            for rank in range(task.layout.ranks)
        ]
        for process in ranks:
            process.start()
        found = dict(results.get() for _ in ranks)
        for process in ranks:
            process.join()
    return found


def _rank(task: Task, rank: int, store: Path, results: "SimpleQueue[Any]") -> None:
    torch.set_num_threads(1)
    ranks = task.layout.ranks
    torch.distributed.init_process_group("gloo", store=FileStore(str(store), ranks), rank=rank, world_size=ranks)
    counted = steps(task, Tracker(), contextlib.nullcontext())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        steps(task, Tracker(), contextlib.nullcontext())
    results.put((rank, (counted, _peak(recorded))))
    torch.distributed.destroy_process_group()


def _peak(recorded: Any) -> int:
    """Most bytes that the allocator had given out at the same time."""
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


if __name__ == "__main__":
    raise SystemExit(main())
