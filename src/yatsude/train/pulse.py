"""Whether all ranks of a job get on: each tells where it is, in the job's store; a job that hangs is ended, with names.

A thread of its own writes a rank's place every second or two, so that its number of beats grows as long as the process
runs at all. If a rank gets nowhere for longer than a job may, or the next rank gives no sign of life for a minute, the
first to see it looks at the places of all, names those that are behind, and all write the stacks of their threads into
the run's folder and end. Without the store all end too: their exchanges might wait for ever for who had it.
"""

import contextlib
import dataclasses
import datetime
import faulthandler
import json
import math
import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import DistStoreError

from yatsude.progress import cry
from yatsude.spec.launch import HUNG, LOST

__all__ = ["END", "ROUND", "Beat", "Pulse", "behind", "client", "read_beats"]

BEAT_S = 2.0
"""Between two beats, at most."""
LEAST_S = 300.0
"""A step that takes no longer is no hang, if nobody has said otherwise."""
USUAL_STEPS = 10
"""So many times the usual step, neither."""
PATIENCE = 6
"""How much longer everything else may take: the first step, a score, a state."""
STEP = ("gradient", "norm", "update", "balance")
"""Phases of a step, in their order."""
END = "end"
"""The finished model is written by rank 0 alone; the others are done."""
FOLDER = "hangs"
SILENT_S = 60.0
"""Without a beat: a process that is stopped, a machine that is gone. Exchanges between GPUs would wait longer."""
GRACE_S = 10.0
"""For a rank whose store is gone to end by itself, with an error of its own."""
STORE_S = 60
ROUND = "YATSUDE_ROUND"
"""Tells the ranks the name of this start, one and the same on all machines: what they keep in the store is under it."""


def client(host: str, port: int, name: str) -> PrefixStore:
    """Connect anew to the store that a job's processes share, to what stands there under a name."""
    timeout = datetime.timedelta(seconds=STORE_S)
    return PrefixStore(name, TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout))


@dataclasses.dataclass(frozen=True)
class Beat:
    """Where a rank is."""

    host: str
    agent: str
    """Number of the agent that has started it: processes of one agent can see each other."""
    process: int
    step: int
    """Steps that it has finished."""
    phase: str
    count: int
    """Beats so far."""
    waits: bool
    """Whether it waits for other ranks, by the look of its stack."""


class Pulse:
    """Place of this rank, and the watch over all; `limit_s` 0: what follows from the usual step."""

    def __init__(self, store: Store, rank: int, ranks: int, folder: Path, limit_s: float = 0.0) -> None:
        self.rank, self.ranks = rank, ranks
        self.step, self.phase_now = 0, "start"
        self._store, self._folder, self._limit_s = store, folder, limit_s
        self._since, self._count = time.monotonic(), 0
        self._durations: deque[float] = deque(maxlen=50)
        self._begun: float | None = None
        self._next, self._heard = b"", time.monotonic()
        self._main, self._parent = threading.main_thread().ident, os.getppid()
        self._closed = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)
        self.tell()

    def start(self) -> None:
        """Begin to watch; every rank must have told its place once."""
        self._thread.start()

    def close(self) -> None:
        """Tell where this rank has come to, and watch no longer."""
        self._closed.set()
        with contextlib.suppress(RuntimeError):  # the store may be gone, with the process that had it
            self.tell()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """While the block runs this rank is in the phase `name`."""
        before, self.phase_now = self.phase_now, name
        self._since = time.monotonic()
        try:
            yield
        finally:
            self.phase_now, self._since = before, time.monotonic()

    def begin_step(self, step: int) -> None:
        """Note that a step begins, of which `step` are finished."""
        self.step, self._begun, self.phase_now = step, time.monotonic(), "between steps"

    def end_step(self) -> None:
        """Note that it is finished."""
        self.step += 1
        if self._begun is not None:
            self._durations.append(time.monotonic() - self._begun)

    def tell(self) -> None:
        """Write this rank's place."""
        with self._writing:
            self._count += 1
            beat = Beat(
                host=socket.gethostname(),
                agent=os.environ.get("GROUP_RANK", ""),
                process=os.getpid(),
                step=self.step,
                phase=self.phase_now,
                count=self._count,
                waits=self._waits(),
            )
            self._store.set(f"beat/{self.rank}", json.dumps(dataclasses.asdict(beat)))

    @property
    def limit_s(self) -> float:
        """Seconds without progress in this phase that count as a hang."""
        usual = statistics.median(self._durations) if self._durations else 0.0
        limit = self._limit_s or max(LEAST_S, USUAL_STEPS * usual)
        if self.phase_now == END:
            return math.inf
        patient = not self._durations or self.phase_now not in (*STEP, "between steps")
        return PATIENCE * limit if patient else limit

    def _watch(self) -> None:
        interval = min(BEAT_S, self._limit_s / 4 or BEAT_S)
        last = time.monotonic()
        try:
            while not self._closed.wait(interval):
                now = time.monotonic()
                if now - last > 4 * interval:
                    self._since += now - last  # this process itself was stopped, or starved
                    self._heard = now
                last = now
                if "GROUP_RANK" in os.environ and os.getppid() != self._parent:
                    os._exit(LOST)  # whoever has started this rank is gone and would not start it again
                self.tell()
                if self._is_silent(now):
                    self._end(interval, f"no sign of life for {SILENT_S:.3g} s")
                elif now - self._since > self.limit_s or self._store.check(["hang"]):
                    self._end(interval, f"no step was finished for {self.limit_s:.3g} s")
        except (DistStoreError, RuntimeError):  # the store is gone, and the job with it: its own exchanges tell why
            if not self._closed.wait(GRACE_S):
                os._exit(LOST)

    def _is_silent(self, now: float) -> bool:
        """Whether the next rank has given no sign of life for long; each rank looks at one, however many there are."""
        told = self._store.get(f"beat/{(self.rank + 1) % self.ranks}")
        if told != self._next:
            self._next, self._heard = told, now
        return now - self._heard > SILENT_S

    def _end(self, interval: float, why: str) -> None:
        """Say who is behind, if nobody has, write the stacks, and end this process."""
        first = self._store.add("hang", 1) == 1
        self._dump()
        if first:
            before = read_beats(self._store, self.ranks)
            time.sleep(2 * interval)
            self.tell()
            late = behind(before, read_beats(self._store, self.ranks))
            cry(f"{why}: {_named(late, self.ranks)}; stacks are in {self._place}")
            self._store.set("judged", json.dumps([rank for rank, _, _ in late]))
        deadline = time.monotonic() + 8 * interval
        while not self._store.check(["judged"]) and time.monotonic() < deadline:
            self.tell()
            time.sleep(interval / 2)
        if self._store.check(["judged"]):
            self._kill_stopped(json.loads(self._store.get("judged")))
        os._exit(HUNG)

    @property
    def _place(self) -> Path:
        return self._folder / FOLDER

    def _dump(self) -> None:
        """Write the stacks of this process, after those of earlier hangs."""
        with contextlib.suppress(OSError):  # a full disk must not keep a hung job alive
            self._place.mkdir(parents=True, exist_ok=True)
            with (self._place / f"rank-{self.rank:05d}.txt").open("a", encoding="utf-8") as stream:
                stream.write(f"step {self.step}, {self.phase_now}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)

    def _kill_stopped(self, late: Sequence[int]) -> None:
        """Kill those of the late ranks beside this one that no polite signal would reach: the agent waits for them."""
        own = os.environ.get("GROUP_RANK")
        for rank, beat in read_beats(self._store, self.ranks).items():
            if rank in late and rank != self.rank and own is not None and beat.agent == own:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(beat.process, signal.SIGKILL)

    def _waits(self) -> bool:
        """Whether the main thread is in an exchange with other ranks: near the end of its stack is torch's."""
        frame = sys._current_frames().get(self._main or 0)
        for _ in range(4):
            if frame is None:
                return False
            if "torch/distributed/" in frame.f_code.co_filename.replace("\\", "/"):
                return True
            frame = frame.f_back
        return False


def read_beats(store: Store, ranks: int) -> dict[int, Beat]:
    """Places of all ranks that have told one."""
    keys = {rank: f"beat/{rank}" for rank in range(ranks)}
    return {rank: Beat(**json.loads(store.get(key))) for rank, key in keys.items() if store.check([key])}


def behind(before: Mapping[int, Beat], after: Mapping[int, Beat]) -> list[tuple[int, Beat, str]]:
    """Ranks that hold up the others, from two looks at all, each with what is seen of it; none if all are alike.

    Those that beat no more; else those with the fewest steps, in the earliest phase; else those that do not wait for
    others.
    """
    silent = [rank for rank, beat in after.items() if rank in before and beat.count == before[rank].count]
    if silent:
        return [(rank, after[rank], "answers no more") for rank in silent]
    places = {rank: (beat.step, _order(beat.phase)) for rank, beat in after.items()}
    least = [rank for rank, place in places.items() if place == min(places.values())]
    if len(least) < len(after):
        return [(rank, after[rank], "is behind") for rank in least]
    busy = [rank for rank, beat in after.items() if not beat.waits]
    return [(rank, after[rank], "waits for no other rank") for rank in busy if len(busy) < len(after)]


def _order(phase: str) -> int:
    return STEP.index(phase) if phase in STEP else -1  # whatever else there is comes before a step


def _named(late: Sequence[tuple[int, Beat, str]], ranks: int) -> str:
    if not late:
        return f"all {ranks} ranks are at the same place, and no one stands out"
    told = [
        f"rank {rank} ({beat.host}, process {beat.process}) {seen} after step {beat.step}, in '{beat.phase}'"
        for rank, beat, seen in late[:8]
    ]
    more = f", and {len(late) - 8} more" if len(late) > 8 else ""
    return ", ".join(told) + more
