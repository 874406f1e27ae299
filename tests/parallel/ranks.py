"""Functions run by several local processes, as the ranks of a job."""

import multiprocessing
import tempfile
import traceback
from pathlib import Path

PRELOAD = ["torch", "torch.distributed.fsdp", "torch.distributed.pipelining", "yatsude.parallel.job"]
LIMIT_S = 240


def run(world, function, *args):
    """Result of `function(*args)` on every rank; an error of one ends all of them and is raised."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as place:
        given = (world, Path(place) / "store", results, function, args)
        ranks = [context.Process(target=_rank, args=(rank, *given), daemon=True) for rank in range(world)]
        for process in ranks:
            process.start()
        found = {}
        try:
            while len(found) < world:
                if not results._reader.poll(LIMIT_S):
                    raise TimeoutError(f"ranks {sorted(set(range(world)) - found.keys())} say nothing")
                rank, value, error = results.get()
                if error:
                    raise AssertionError(f"rank {rank}: {error}")
                found[rank] = value
        finally:
            for process in ranks:
                if len(found) < world:
                    process.kill()
                process.join()
    return [found[rank] for rank in range(world)]


def _rank(rank, world, store, results, function, args):
    import torch

    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.FileStore(str(store), world), rank=rank, world_size=world
        )
        value = function(*args)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        results.put((rank, value, None))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
