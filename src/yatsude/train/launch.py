"""What a process is that something has started as one of several."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from yatsude import __version__
from yatsude.errors import MachineError, RecipeError, YatsudeError
from yatsude.files import new_file
from yatsude.progress import hush, say
from yatsude.spec.launch import LOST, LaunchSettings, fitting
from yatsude.spec.parallel import ParallelSettings
from yatsude.train import clocks
from yatsude.train.identity import flat
from yatsude.train.pulse import PATIENCE, ROUND, Pulse, client
from yatsude.train.stopping import SIGNALS

__all__ = ["Place", "as_rank", "is_rank"]

PLACE = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What torchrun and Kubernetes' operators tell each process."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Where an agent looks for what a rank has to say of its end."""
TIMEOUT_S = 3600.0
"""A rank that waits so long for another gives up, and with it the job; a hang is found before."""
END_S = 60.0
"""Ranks that stop wait so long for each other, so that none is ended by an agent while another still writes."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What a process is in a job."""

    parallel: ParallelSettings
    """How the job is cut: as the recipe says, or for the ranks that are left."""
    pulse: Pulse


def is_rank() -> bool:
    """Whether something has started this process as one of several."""
    return os.environ.keys() >= PLACE


@contextlib.contextmanager
def as_rank(
    sections: Mapping[str, Any],
    settings: LaunchSettings,
    folder: Path,
    marks: Callable[[], Mapping[str, str]],
) -> Iterator[Place]:
    """Take part in the job that has started this process; all ranks but the first are silent.

    `sections` are the settings of what is to be done and `marks` finds what else must be the same on every rank. A
    rank that is not needed waits until the job has ended, and its process with it. `folder` is the run's.
    """
    store, rank, world = next(rendezvous("env://"))
    name = os.environ.get(ROUND) or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    parallel = _cut(sections["parallel"], settings, world, sections["train"].sequences_per_step)
    own = client(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), f"pulse/{name}")
    if rank >= parallel.ranks:
        _wait_for_the_end(own)
        raise SystemExit(0)
    limit = datetime.timedelta(seconds=max(TIMEOUT_S, 2 * PATIENCE * settings.hang_s))
    ranks = min(parallel.ranks, world)
    torch.distributed.init_process_group(
        _backend(), store=PrefixStore(f"job/{name}", store), rank=rank, world_size=ranks, timeout=limit
    )
    pulse = Pulse(own, rank, ranks, folder, settings.hang_s)
    try:
        if rank:
            hush()
        torch.set_num_threads(1)
        _same({**_by_key(sections), **marks(), "version": __version__, "torch": torch.__version__})
        if parallel != sections["parallel"]:
            whole = sections["parallel"].ranks
            say(f"{world} of {whole} ranks are left: going on with replicas = {parallel.replicas}, dp = {parallel.dp}")
        for line in clocks.late():
            say(line)
        pulse.start()
        yield Place(parallel, pulse)
        if rank == 0:
            own.set("ended", "1")
        else:
            _wait_for_the_end(own)  # whose store this machine may have
    except BaseException as error:
        _tell(error)
        if isinstance(error, KeyboardInterrupt):
            _together(own, ranks)
        if _is_loss(error):
            say(f"rank {rank} has lost another one: {str(error).split('] ', 1)[-1].split('. ')[0]}")
            pulse.close()
            os._exit(LOST)  # nothing is left to be tidied with those that are gone
        if isinstance(error, YatsudeError) and _is_said(own, str(error)):
            raise SystemExit(1) from None
        raise
    finally:
        pulse.close()
        torch.distributed.destroy_process_group()


def _backend() -> str:
    """How ranks talk: by gloo, and where there are GPUs by NCCL too, each rank of a machine on a GPU of its own."""
    if not torch.cuda.is_available():
        return "gloo"
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise MachineError(f"{local + 1} ranks or more on a machine of {gpus} GPUs; start as many as there are GPUs")
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _cut(parallel: ParallelSettings, settings: LaunchSettings, world: int, sequences: int) -> ParallelSettings:
    """How the job is cut now: with fewer ranks if some are missing, and that was allowed."""
    if (
        world < parallel.ranks
        and settings.min_nodes
        and world >= settings.min_nodes * settings.ranks_per_node(parallel)
    ):
        return fitting(parallel, world, sequences)
    return parallel


def _wait_for_the_end(store: PrefixStore) -> None:
    """Wait until the first rank has ended the job; should it fail, the agent ends this process and starts it again."""
    parent = os.getppid()
    while not store.check(["ended"]):
        if os.getppid() != parent:
            os._exit(LOST)
        time.sleep(0.2)


def _together(store: PrefixStore, ranks: int) -> None:
    """Wait until every rank has come here, for a while; an agent that sees one end asks the others in vain."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + END_S
    with contextlib.suppress(RuntimeError):
        store.add("stopping", 1)
        while store.add("stopping", 0) < ranks and time.monotonic() < deadline:
            time.sleep(0.05)


def _tell(error: BaseException) -> None:
    """Leave a word for the agent: what happened, and whether it would happen again."""
    path = os.environ.get(ERROR_FILE)
    if path and not isinstance(error, KeyboardInterrupt | SystemExit):
        said = f"{type(error).__name__}: {str(error).strip()[:500]}"
        page = {"message": said, "said": said, "timestamp": int(time.time()), "final": isinstance(error, YatsudeError)}
        with contextlib.suppress(OSError), new_file(Path(path)) as draft:
            draft.write_text(json.dumps(page), encoding="utf-8")


def _is_said(store: PrefixStore, message: str) -> bool:
    """Whether another rank here has said the same already: an error that all have is told once on every machine."""
    try:
        return store.add(f"said/{socket.gethostname()}/{hashlib.sha256(message.encode()).hexdigest()}", 1) > 1
    except RuntimeError:  # who had the store may have ended
        return False


def _is_loss(error: BaseException) -> bool:
    """Whether an exchange with other ranks has failed, as it does when one of them has ended."""
    if isinstance(error, torch.distributed.DistError):
        return True
    if error.__cause__ and _is_loss(error.__cause__):
        return True
    words = ("gloo", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _same(mine: dict[str, Any]) -> None:
    """Every rank must have been started for the same job, with the same program."""
    found = [mine] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    for rank, theirs in enumerate(found):
        for name, value in theirs.items():
            if value != found[0].get(name):
                raise RecipeError(
                    f"rank {rank} has {name} = {value}, rank 0 {found[0].get(name)}; start all ranks with one recipe"
                    " and one version"
                )


def _by_key(sections: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, by the key that a recipe has for them."""
    tables = {name: TypeAdapter(type(settings)).dump_python(settings) for name, settings in sections.items()}
    return {key: str(value) for key, value in flat(tables)}
