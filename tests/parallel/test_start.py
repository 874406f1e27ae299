"""What a job begins with: each rank draws or reads its own part, and together they are the whole model."""

import pytest
import steps
import torch
from ranks import run

from yatsude.checkpoint import hf
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.write import Precision, write
from yatsude.model.init import Initial, initialise
from yatsude.model.transformer import Transformer
from yatsude.parallel.job import Job
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings

LAYOUTS = {
    "dp2 tp2 ep4": {"dp": 2, "tp": 2, "ep": 4},
    "pp2 cp2 ep2": {"pp": 2, "cp": 2, "ep": 2},
    "three ranks": {"dp": 3},
}
AHEAD = {"num_nextn_predict_layers": 1}


def pieces(settings, config, folder):
    read = hf.Boxes(Folder(folder)).read if folder else Initial(config, 5).read
    job = Job(config, Mesh(ParallelSettings(**settings)), sequences=12, length=16, dtype=torch.float32)
    job.allocate()
    job.fill(read)
    job.fill_biases(read)
    return [(name, shape, box, numbers.numpy()) for name, shape, box, numbers in (*job.pieces(), *job.biases())]


@pytest.fixture
def model():
    model = Transformer(steps.model_of(**AHEAD).config)
    initialise(model, 5)
    return model


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("read", [False, True], ids=["drawn", "read"])
def test_ranks_begin_with_parts_of_the_whole(name, read, model, tmp_path):
    if read:
        for number, router in enumerate(model.routers):
            router.e_score_correction_bias.copy_(torch.arange(8.0) + number)
        write(hf.InMemory(model), tmp_path, Precision(torch.float32), 50_000)
    ranks = run(ParallelSettings(**LAYOUTS[name]).ranks, pieces, LAYOUTS[name], model.config, read and tmp_path)
    whole = model.state_dict()
    found = {key: torch.full_like(tensor, torch.nan) for key, tensor in whole.items()}
    for key, shape, box, numbers in (piece for mine in ranks for piece in mine):
        assert shape == tuple(whole[key].shape)
        found[key][box] = torch.from_numpy(numbers)
    assert all(torch.equal(found[key], tensor) for key, tensor in whole.items())


def test_a_part_reads_little_more_than_itself(model, tmp_path, monkeypatch):
    """Rows that lie elsewhere are not read: the counted bytes are those of the quarter that is held."""
    write(hf.InMemory(model), tmp_path, Precision(torch.float32), 10**9)
    source, read = Folder(tmp_path), []
    raw = source.raw
    monkeypatch.setattr(source, "raw", lambda name, rows=None: read.append(raw(name, rows)) or read[-1])
    boxes, total = hf.Boxes(source), 0
    for name, tensor in model.named_parameters():
        total += tensor.nbytes
        box = (slice(0, -(-len(tensor) // 4)), *(slice(0, size) for size in tensor.shape[1:]))
        assert torch.equal(boxes.read(name, box), tensor[box])
    assert sum(tensor.nbytes for tensor in read) < 0.3 * total
