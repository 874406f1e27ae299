"""States that all ranks write, read again by others."""

import functools
import itertools
import math
import os

import pytest
import steps
import torch
from ranks import run

from yatsude import files
from yatsude.checkpoint import write as folders
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.sharded import InShards, Sharded, Writer, complete, write
from yatsude.errors import CheckpointError
from yatsude.spec.parallel import ParallelSettings

TWO = {"stages_per_rank": 2}
AHEAD = {"num_nextn_predict_layers": 1}
LAYOUTS = {
    "dp2 tp2 ep4": {"dp": 2, "tp": 2, "ep": 4},
    "pp2 replicas2": {"pp": 2, "replicas": 2},
    "cp2 ep2": {"cp": 2, "ep": 2},
    "zbv": {"pp": 2, "schedule": "zbv", **TWO},
    "one": {},
}
WAYS = [("dp2 tp2 ep4", "pp2 replicas2"), ("pp2 replicas2", "one"), ("cp2 ep2", "dp2 tp2 ep4"), ("one", "zbv")]


@pytest.mark.parametrize(("one", "other"), WAYS)
def test_a_job_goes_on_in_another_layout(tmp_path, one, other):
    truth = steps.alone(**AHEAD)
    first, second = LAYOUTS[one], LAYOUTS[other]
    early = run(ParallelSettings(**first).ranks, steps._together, first, AHEAD, (0, 2), tmp_path)
    late = run(ParallelSettings(**second).ranks, steps._together, second, AHEAD, (2, steps.STEPS), None, tmp_path)
    for told in (*(rank + late[0] for rank in early), *(early[0] + rank for rank in late)):
        for (loss, norm, _), (loss_1, norm_1, _) in zip(told, truth, strict=True):
            assert math.isclose(loss, loss_1, rel_tol=1e-10)
            assert math.isclose(norm, norm_1, rel_tol=1e-9)
    model = steps.model_of(**AHEAD)
    found = Sharded(tmp_path)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {name: shape for name, shape in found.shapes.items() if name in shapes} == shapes


@pytest.mark.parametrize("changes", [AHEAD, {"tie_word_embeddings": True}], ids=["ahead", "tied"])
def test_a_folder_is_exported_straight_from_shards(tmp_path, changes):
    """What comes out is the model that one process would write, bit for bit."""
    settings = {"pp": 2, "dp": 2, "tp": 2, "ep": 4}
    (tmp_path / "state").mkdir()
    run(8, steps._together, settings, changes, (0, 0), tmp_path / "state")
    model = steps.model_of(**changes)
    for folder, source in (
        ("ours", InShards(Sharded(tmp_path / "state"), model.config)),
        ("whole", InMemory(model)),
    ):
        (tmp_path / folder).mkdir()
        folders.write(source, tmp_path / folder, folders.Precision(torch.float64), 1 << 40)
    ours, whole = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("ours", "whole"))
    assert ours == whole


def written(folder):
    folder.mkdir()
    table = torch.arange(24.0).view(6, 4)
    for rank in range(2):
        rows, columns = slice(3 * rank, 3 * rank + 3), slice(0, 4)
        write(folder, rank, [("table", (6, 4), (rows, columns), table[rows])])
    complete(folder, {"step": 3})
    return table


@pytest.mark.parametrize("box", [None, (slice(2, 5), slice(1, 3)), (slice(0, 1), slice(0, 4))])
def test_any_box_is_read(tmp_path, box):
    table = written(tmp_path / "a")
    assert torch.equal(Sharded(tmp_path / "a").read("table", box), table if box is None else table[box])


def test_dying_at_every_point_of_a_write_leaves_the_old_state_or_the_new(tmp_path):
    folder = tmp_path / "a"
    for deaths in itertools.count():
        died = dies_at(deaths, functools.partial(replaced, folder, deaths))
        if folder.exists() or list(tmp_path.glob(".a.*.old")):
            files.tidy(folder)
            found = Sharded(folder)
            assert torch.equal(found.read("table"), torch.full((6, 4), float(found.page["step"])))
        if not died:
            break
    assert deaths >= 6
    assert Sharded(folder).page["step"] == deaths
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def replaced(folder, number):
    with files.new_folder(folder, flushed=True) as draft:
        half = torch.full((3, 4), float(number))
        sums = {}
        for rank in range(2):
            writer = Writer()
            writer.start(draft, rank, [("table", (6, 4), (slice(3 * rank, 3 * rank + 3), slice(0, 4)), half)])
            sums |= writer.result()
        complete(draft, {"step": number}, sums)


def dies_at(call, action):
    """Run `action` in a child that dies, without any clean-up, at its `call`-th flush or rename; false if it lived."""
    child = os.fork()
    if child == 0:
        calls = iter(range(call))

        def counted(function):
            def count(*args, **kwargs):
                if next(calls, None) is None:
                    os._exit(9)
                return function(*args, **kwargs)

            return count

        os.fsync, os.replace, os.rename = counted(os.fsync), counted(os.replace), counted(os.rename)
        action()
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_what_is_written_is_what_was_when_it_began(tmp_path):
    """And the copies of the last time are used again."""
    writer, table = Writer(), torch.arange(24.0).view(6, 4)
    box = slice(0, 6), slice(0, 4)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        writer.start(folder, 0, [("table", (6, 4), box, table.T.contiguous().T)])
        before = table.clone()
        table += 1
        complete(folder, {}, writer.result())
        assert torch.equal(Sharded(folder).read("table"), before)
        assert not writer.busy
    assert len(writer._copies) == 1


def test_a_write_that_fails_is_told_when_it_is_asked_for(tmp_path):
    writer = Writer()
    writer.start(tmp_path / "absent", 0, [("table", (1,), (slice(0, 1),), torch.ones(1))])
    with pytest.raises(FileNotFoundError, match=r"rank-00000\.safetensors"):
        writer.result()


def test_a_state_that_is_not_whole_is_refused(tmp_path):
    folder = tmp_path / "a"
    written(folder)
    with pytest.raises(CheckpointError, match="has no chair"):
        Sharded(folder).read("chair")
    (folder / "rank-00001.json").unlink()
    with pytest.raises(CheckpointError, match=r"a cannot be used: rank-00001\.json is missing"):
        Sharded(folder)
    complete(folder, {})
    with pytest.raises(CheckpointError, match="pieces of table are 12 numbers of 24"):
        Sharded(folder)
    (folder / "complete.json").unlink()
    with pytest.raises(CheckpointError, match=r"complete\.json is missing"):
        Sharded(folder)
