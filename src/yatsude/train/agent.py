"""What stands over the ranks of one machine: it starts them, and again when one is lost, as long as that leads on.

This is torchrun's agent with another judgement: an error that a new start cannot mend ends the job, and so do several
failures in a row without a step further than before. Everything else is started again, on all machines that are left.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousHandler,
    RendezvousParameters,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from yatsude.errors import MachineError
from yatsude.progress import say
from yatsude.spec.launch import HUNG, LOST, STOPPED, LaunchSettings
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.pulse import ROUND, client, read_beats
from yatsude.train.stopping import SIGNALS

__all__ = ["Agent", "start"]

KILL_S = 10
GRACE_S = 600
"""Ranks that were asked to stop have so long to write a state; whoever asks for it usually waits less."""
END_S = 30
"""An agent that has ended waits so long for the others to end."""
JOIN_S = 1800
"""Machines wait so long for the others: a batch system starts them minutes apart."""
LAST_CALL_S = 15
"""When there are `min_nodes`, this long for more."""
ALIVE_S = 3
"""Between two signs of life of an agent; one that misses three is gone."""


class Agent(LocalElasticAgent):
    """Runs this very command as several ranks."""

    def __init__(self, settings: LaunchSettings, ranks: int, rendezvous: RendezvousHandler) -> None:
        spec = WorkerSpec(
            role="rank",
            local_world_size=ranks,
            entrypoint=sys.executable,
            args=("-m", "yatsude.cli", *sys.argv[1:]),
            rdzv_handler=rendezvous,
            max_restarts=1,
            monitor_interval=0.1,
        )
        super().__init__(spec, DefaultLogsSpecs(), exit_barrier_timeout=END_S, shutdown_timeout=GRACE_S)
        self._settings = settings
        self._furthest, self._in_vain = -1, 0
        self._asked = self._shuts = False
        self.stopped = False
        """Whether the ranks have ended because they were asked to."""

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        """Meet the other agents: torch would keep the address of the first meeting, of which newcomers never hear."""
        if isinstance(self._rdzv_handler, DynamicRendezvousHandler):
            self._rdzv_handler._bootstrap_store_info = None
        super()._rendezvous(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        store = self._common
        if worker_group.group_rank == 0:
            store.set("round", uuid.uuid4().hex[:8])
        os.environ[ROUND] = store.get("round").decode()
        found = super()._start_workers(worker_group)
        self.listen()
        spec = worker_group.spec  # what was to be forgotten is: a later start goes on
        worker_group.spec = dataclasses.replace(spec, args=tuple(a for a in spec.args if a != "--restart"))
        return found

    def listen(self) -> None:
        """Take the signals that ask to stop."""
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """Let the ranks stop; batch systems repeat their signals, which changes nothing."""
        if not self._asked or number == signal.SIGINT:
            self._asked = True
            raise SignalException("asked to stop", signal.Signals(number))

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        """Let them write a state first: this is a machine that joins, or the end of what has failed already."""
        self._shutdown(timeout=GRACE_S)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        if isinstance(sys.exc_info()[1], SignalException):  # a signal to this agent
            if self._shuts:  # a second Ctrl-C acts at once
                death_sig, timeout = signal.SIGKILL, KILL_S
            self._shuts = True
            with contextlib.suppress(RuntimeError, AssertionError):  # who had the store may have ended before
                self._common.set("stopped", "1")
        super()._shutdown(death_sig, timeout)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.is_failed():
            self._remaining_restarts = int(self._goes_on(result.failures))
        return result

    @property
    def _common(self) -> Store:
        """What all agents of this start share."""
        store = self.get_worker_group().store
        assert store is not None, "the machines have met"
        return store

    def _goes_on(self, failures: dict[int, ProcessFailure]) -> bool:
        """Whether the ranks shall be started again after some of them have failed; says why, or why not."""
        rank, failure = min(failures.items(), key=_blame)
        if failure.exitcode == STOPPED:
            group = self.get_worker_group()
            self.stopped = self._common.check(["stopped"]) or group.spec.rdzv_handler.num_nodes_waiting() == 0
            return not self.stopped  # or a machine wants to join, for which all start anew
        if _is_final(failure):  # the rank has said it
            return False
        step = self._reached()
        self._in_vain = 1 if step > self._furthest else self._in_vain + 1
        self._furthest = max(step, self._furthest)
        cause = f"rank {rank} on {socket.gethostname()} {_cause(failure)} after step {step}"
        if self._in_vain > self._settings.restarts:
            times = (
                f"{self._in_vain} times in a row without getting further"
                if self._in_vain > 1
                else "launch.restarts = 0"
            )
            say(f"{cause}, and the job with it ({times}); the same command goes on from the last good checkpoint")
            return False
        say(f"{cause}; starting again from the last good checkpoint ({self._in_vain} of {self._settings.restarts})")
        return True

    def _reached(self) -> int:
        """The furthest step that any rank of this machine has told."""
        group = self.get_worker_group()
        assert group.master_addr, "the ranks were started"
        assert group.master_port, "the ranks were started"
        try:
            store = client(group.master_addr, group.master_port, f"pulse/{os.environ[ROUND]}")
            beats = read_beats(store, group.workers[0].world_size)
        except (torch.distributed.DistError, RuntimeError):
            return self._furthest  # the machine that had the store is gone
        return max((beat.step for beat in beats.values()), default=0)


def start(parallel: ParallelSettings, settings: LaunchSettings) -> int:
    """Run this very command as the ranks of this machine until the job has ended; the exit code."""
    ranks = settings.ranks_per_node(parallel)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint=settings.rendezvous or "localhost:0",
        run_id=settings.rendezvous or str(os.getpid()),
        min_nodes=settings.min_nodes or settings.nodes,
        max_nodes=settings.nodes,
        join_timeout=JOIN_S,
        last_call_timeout=LAST_CALL_S,
        keep_alive_interval=ALIVE_S,
    )
    meeting = _meeting(parameters)
    if meeting is None:
        say(f"error: nothing answers at launch.rendezvous = {settings.rendezvous}; is the command running there too?")
        return LOST
    agent = Agent(settings, ranks, meeting)
    agent.listen()
    try:
        result = agent.run()
    except SignalException as asked:
        say(f"stopped by {asked.sigval.name}; the same command goes on")
        return STOPPED
    except RendezvousClosedError:
        raise MachineError("the job has ended on another machine; see there why") from None
    except (RendezvousError, torch.distributed.DistError):
        say("error: the machine where all meet is out of reach; the same command goes on from the last good checkpoint")
        return LOST
    finally:
        meeting.shutdown()
    if agent.stopped:
        return STOPPED
    return 1 if result is None or result.is_failed() else 0


def _meeting(parameters: RendezvousParameters) -> RendezvousHandler | None:
    """Where the machines meet; the one that has it may start later than this one, and have no name yet."""
    deadline = time.monotonic() + JOIN_S
    while True:
        try:
            return get_rendezvous_handler(parameters)
        except RendezvousError:
            if time.monotonic() > deadline:
                return None
            time.sleep(ALIVE_S)


def _is_final(failure: ProcessFailure) -> bool:
    """Whether a rank has ended with an error that will come again."""
    return bool(failure.error_file_data.get("final"))


def _blame(entry: tuple[int, ProcessFailure]) -> tuple[int, int]:
    """Order of failures: what says most about the cause first."""
    rank, failure = entry
    killed = failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM
    order: Sequence[bool] = (
        failure.exitcode == STOPPED,
        _is_final(failure),
        failure.exitcode == HUNG,  # a rank that answers no more is killed then
        killed,
        failure.exitcode > 0 and failure.exitcode != LOST,
        failure.exitcode < 0,
        True,
    )
    return order.index(True), rank


def _cause(failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"was killed by signal {-failure.exitcode} ({signal.Signals(-failure.exitcode).name})"
    if failure.exitcode == HUNG:
        return "has ended because the job hung"
    if failure.exitcode == LOST:
        return "has lost the others"
    said = failure.error_file_data.get("said")
    return f"has failed with {said}" if said else f"has ended with exit code {failure.exitcode}"
