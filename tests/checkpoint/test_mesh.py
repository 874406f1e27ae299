"""A model that is cut over processes is filled from a folder: each reads what it holds, together it is all."""

import subprocess
import sys

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.write import Precision, write

SCRIPT = """
import sys, torch
import torch.distributed as dist
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from yatsude.checkpoint import hf
from yatsude.checkpoint.folder import Folder
from yatsude.model.transformer import Transformer

rank, size, kind, place, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5])
dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
source = Folder(folder)
with torch.device("meta"):
    model = Transformer(source.config)
if kind == "fsdp":
    mesh = init_device_mesh("cpu", (size,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
else:
    mesh = init_device_mesh("cpu", (2, size // 2))
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            cut = [Shard(0), Shard(1)] if weight.ndim == 3 else [Replicate(), Shard(weight.ndim - 1)]
            sharded = distribute_tensor(weight, mesh, cut, src_data_rank=None)
            setattr(module, name, torch.nn.Parameter(sharded))
model.to_empty(device="cpu")
hf.fill(model, source)
whole = hf.load(folder)
for (name, mine), expected in zip(model.state_dict().items(), whole.state_dict().values(), strict=True):
    full = mine.full_tensor() if hasattr(mine, "full_tensor") else mine
    assert torch.equal(full, expected), name
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.parametrize(("kind", "size"), [("fsdp", 2), ("fsdp", 3), ("tensor", 4)])
def test_every_process_reads_its_own_part(build, tmp_path, kind, size):
    folder = tmp_path / "model"
    folder.mkdir()
    write(InMemory(build(num_nextn_predict_layers=1)), folder, Precision(torch.float32), 50_000)
    words = [sys.executable, "-c", SCRIPT]
    ranks = [
        subprocess.Popen(
            [*words, str(rank), str(size), kind, str(tmp_path / "store"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    for process in ranks:
        out, err = process.communicate(timeout=120)
        assert "equal" in out, err[-2000:]


def test_a_part_reads_little_more_than_itself(build, tmp_path, monkeypatch):
    """Rows that lie elsewhere are not read: the counted bytes are those of the half that is held."""
    from yatsude.checkpoint.folder import Folder

    write(InMemory(build()), tmp_path, Precision(torch.float32), 10**9)
    source, read = Folder(tmp_path), []
    raw = source.raw
    monkeypatch.setattr(source, "raw", lambda name, rows=None: read.append(raw(name, rows)) or read[-1])
    held = hf._held
    monkeypatch.setattr(hf, "_held", lambda t: ((slice(0, len(t) // 2), *held(t)[0][1:]), t[: len(t) // 2]))
    model = hf.blank(source.config, torch.float32)
    hf.fill(model, source)
    total = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert sum(tensor.nbytes for tensor in read) < 0.55 * total
    assert torch.equal(model.lm_head.weight[:150], build().lm_head.weight[:150])
