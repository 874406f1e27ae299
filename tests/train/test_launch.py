"""Ranks that die, hang, are slow or are asked to stop: what their agents make of it."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import ranks
import torch

from yatsude.errors import RecipeError
from yatsude.spec.launch import LOST, STOPPED, LaunchSettings, fitting
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.clocks import late, skewed
from yatsude.train.pulse import Beat, behind
from yatsude.train.slow import STEPS, Look, Slowness, slower

SETS = [
    "model.preset=pico", "train.steps=12", "train.sequences_per_step=8", "train.sequence_length=16",
    "train.evaluations=0", "train.checkpoint_steps=2", "train.precision=fp32", "train.bigram_start=false",
    "train.candidates=0", "train.workers=1",
]  # fmt: skip
SLOW = """
import os
if "RANK" in os.environ:
    import time
    from yatsude.train.watched import Watched
    fast = Watched.update
    def slow(self, *given):
        time.sleep(0.15)
        fast(self, *given)
    Watched.update = slow
"""
"""So that there is time to disturb a job of twelve steps."""
PLANTED = """
import os
import random
if os.environ.get("RANK") == "{rank}":
    import time
    from yatsude.train.watched import Watched
    before = Watched.norm
    def norm(self):
        step = self._pulse.step
        {fault}
        return before(self)
    Watched.norm = norm
"""


class Started:
    """A command under way."""

    def __init__(self, run, process):
        self.folder, self.process = run / "train", process

    @property
    def children(self):
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    @property
    def newest(self):
        """Step of the newest state."""
        return max((int(p.parent.name[5:]) for p in self.folder.glob("checkpoints/step-*/complete.json")), default=0)

    def reaches(self, step):
        """Wait until a state of that step or a later one is there."""
        deadline = time.monotonic() + 180
        while self.newest < step:
            assert time.monotonic() < deadline, f"step {step} was not reached"
            assert self.process.poll() is None, self.ends(None)
            time.sleep(0.02)

    def ends(self, code=0):
        """Everything that was said until the end."""
        _, told = self.process.communicate(timeout=300)
        assert code is None or self.process.returncode == code, told
        return told

    @property
    def weights(self):
        return hashlib.sha256((self.folder / "model" / "model.safetensors").read_bytes()).hexdigest()

    @property
    def losses(self):
        lines = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "load" in line]


def started(tokens, run, *sets, planted=""):
    """`yatsude train`; `planted` is run by every process at its start."""
    run.mkdir(exist_ok=True)
    if not (run / "tokenizer").exists():
        (run / "tokenizer").symlink_to(tokens)
    (run / "sitecustomize.py").write_text(SLOW + textwrap.dedent(planted))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(run), *sys.path])}
    words = [word for one in (*SETS, *sets) for word in ("--set", one)]
    command = [sys.executable, "-m", "yatsude.cli", "train", "--run", str(run), *words]
    return Started(run, subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))


@pytest.fixture
def start(tokens, tmp_path):
    """Start a training in a folder of its own; what is left of it at the end of a test is ended."""
    begun = []

    def make(name, *sets, planted=""):
        begun.append(started(tokens, tmp_path / name, "parallel.dp=2", *sets, planted=planted))
        return begun[-1]

    yield make
    for one in begun:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(60)


@pytest.fixture(scope="module")
def undisturbed(tokens, tmp_path_factory):
    one = started(tokens, tmp_path_factory.mktemp("runs") / "undisturbed", "parallel.dp=2")
    one.ends()
    return one


def test_a_stopped_rank_is_found_and_named_and_the_job_goes_on(start, undisturbed):
    job = start("hung", "launch.hang_s=3")
    job.reaches(4)
    rank = job.children[-1]
    os.kill(rank, signal.SIGSTOP)
    stopped = time.monotonic()
    while not list(job.folder.glob("hangs/rank-*.txt")):
        assert time.monotonic() < stopped + 30, "the hang was not found"
        time.sleep(0.05)
    told = job.ends().replace("\n", " ")
    assert "no step was finished for 3 s: rank 1" in told
    assert f"process {rank}) answers no more after step" in told
    assert "because the job hung" in told
    assert "starting again from the last good checkpoint (1 of 3)" in told
    assert "gradient" in (job.folder / "hangs" / "rank-00000.txt").read_text()
    assert job.weights == undisturbed.weights


def test_who_asks_a_job_to_stop_gets_a_state_and_the_same_command_goes_on(start, undisturbed):
    job = start("asked")
    job.reaches(2)
    os.kill(job.children[-1], signal.SIGTERM)  # one rank alone: all stop
    assert "the same command goes on" in job.ends(STOPPED)
    assert not (job.folder / "model").exists()
    job = start("asked")
    job.reaches(6)
    job.process.send_signal(signal.SIGUSR1)  # the agent, as a batch system does
    job.process.send_signal(signal.SIGTERM)
    told = job.ends(STOPPED)
    assert "stopped by SIGUSR1; the same command goes on" in told
    again = start("asked")
    assert "resuming" in again.ends()
    assert again.weights == undisturbed.weights


def test_what_fails_at_the_same_step_again_and_again_ends(start):
    """The first failure and one more are allowed; a step further than before would give new ones."""
    planted = PLANTED.format(rank=1, fault="if step == 2: os.kill(os.getpid(), 11)")
    told = start("doomed", "launch.restarts=1", planted=planted).ends(1)
    assert "rank 1 on" in told
    assert "was killed by signal 11 (SIGSEGV) after step 2; starting again" in told
    assert "and the job with it (2 times in a row without getting further)" in told


def test_an_error_of_the_user_is_told_once_and_not_tried_again(start):
    told = start("uneven", "train.sequences_per_step=7").ends(1)
    assert told.startswith("error: train.sequences_per_step = 7: no multiple of replicas x dp = 1 x 2 = 2")
    told = start("wrong", "parallel.dp=1", "parallel.tp=2", "train.sequence_balance=0.1").ends(1)
    assert told.count("error: train.sequence_balance = 0.1: it looks at whole sequences") == 1  # not by each rank
    assert "starting again" not in told
    assert "Traceback" not in told


@pytest.mark.soak
def test_an_error_of_the_program_is_tried_again_and_named(start, undisturbed):
    fault = "if step == 3 and not os.path.exists('{}'): open('{}', 'w'); raise ValueError('a bad day')"
    mark = "/tmp/yatsude-test-" + str(os.getpid())
    job = start("once", planted=PLANTED.format(rank=1, fault=fault.format(mark, mark)))
    try:
        told = job.ends()
    finally:
        os.unlink(mark)
    assert "has failed with ValueError: a bad day after step 3; starting again" in told
    assert job.weights == undisturbed.weights


@pytest.fixture
def nodes():
    """Settings of two machines, both of them this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return "launch.nodes=2", "launch.min_nodes=1", f"launch.rendezvous=localhost:{port}"


def test_a_machine_that_is_lost_leaves_the_job_to_the_other(start, nodes, undisturbed):
    """Two agents as on two machines; one is killed, and its rank dies with it."""
    first = start("nodes", *nodes)
    time.sleep(1)  # so that it is the one where all meet
    second = start("nodes", *nodes)
    first.reaches(4)
    orphan = second.children[0]
    second.process.kill()
    told = first.ends()
    assert "1 of 2 ranks are left: going on with replicas = 1, dp = 1" in told
    assert "resuming" in told
    assert first.losses == pytest.approx(undisturbed.losses, rel=1e-3)
    assert not Path(f"/proc/{orphan}").exists()


def test_fewer_ranks_give_up_replicas_first():
    wide = ParallelSettings(replicas=2, dp=4, tp=2, ep=4, pp=2, micro_batches=4)
    assert fitting(wide, 32, 64) == wide
    smaller = fitting(wide, 31, 64)
    assert (smaller.replicas, smaller.dp, smaller.tp, smaller.pp, smaller.ep) == (1, 4, 2, 2, 4)
    assert smaller.micro_batches == 8  # each as large as before
    assert fitting(wide, 15, 64).dp == 2
    with pytest.raises(RecipeError, match=r"7 ranks are left of 32.*pp x cp x tp = 2 x 1 x 2 = 4 stay.*ep = 4"):
        fitting(wide, 7, 64)
    for ranks_left in range(8, 33):
        for sequences in (64, 96, 192):
            found = fitting(wide, ranks_left, sequences)
            assert found.ranks <= ranks_left
            share = sequences // found.batch_ranks
            assert share * found.batch_ranks == sequences
            assert share % found.micro_batches == 0
            assert share // found.micro_batches <= sequences // wide.batch_ranks // wide.micro_batches


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nodes": 0}, "launch.nodes = 0: expected at least 1"),
        ({"nodes": 2}, "find each other at launch.rendezvous"),
        ({"nodes": 2, "rendezvous": "node0"}, "expected HOST:PORT"),
        ({"nodes": 2, "rendezvous": "node0:1", "min_nodes": 3}, "expected at most launch.nodes = 2"),
        ({"hang_s": -1.0}, "launch.hang_s = -1"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        LaunchSettings(**settings)


def test_ranks_are_dealt_out_evenly():
    settings = LaunchSettings(nodes=2, rendezvous="node0:29500")
    assert settings.ranks_per_node(ParallelSettings(dp=4)) == 2
    with pytest.raises(RecipeError, match="a divisor of the 3 ranks"):
        settings.ranks_per_node(ParallelSettings(dp=3))


def beat(step=4, phase="gradient", count=1, waits=True):
    return Beat("host", "0", 1, step, phase, count, waits)


@pytest.mark.parametrize(
    ("after", "late"),
    [
        ([beat(count=2), beat(count=1)], {1: "answers no more"}),
        ([beat(step=3, count=2), beat(count=2)], {0: "is behind"}),
        ([beat(phase="norm", count=2), beat(count=2)], {1: "is behind"}),
        ([beat(phase="gradient", count=2), beat(phase="between steps", count=2)], {1: "is behind"}),
        ([beat(count=2), beat(count=2, waits=False)], {1: "waits for no other rank"}),
        ([beat(count=2), beat(count=2)], {}),
    ],
)
def test_who_is_behind(after, late):
    found = behind({0: beat(), 1: beat()}, dict(enumerate(after)))
    assert {rank: seen for rank, _, seen in found} == late


def slowed(rank_that_is_slow):
    """Some looks in a row of one rank of several, one of which works twice as long as the others."""
    mine = 0.02 * (1 + (torch.distributed.get_rank() == rank_that_is_slow))
    slowness = Slowness(stage=0, device="cpu")
    return [found for _ in range(3 * STEPS) if (found := slowness.step(mine))]


def test_a_slow_rank_is_named_once_on_all_ranks():
    for found in ranks.run(3, slowed, 2):
        (named,) = [one for one in found if 2 in one]
        assert named[2]["host"] == socket.gethostname()
        assert named[2]["busy"] == 2.0


def test_the_product_tells_a_slow_processor_and_stages_are_compared_with_their_like():
    looks = [Look("a", 0, 1.0, 1.0), Look("b", 1, 1.0, 5.0), Look("c", 1, 2.0, 5.0)]
    assert slower(looks) == {2: {"product": 2.0, "busy": 1.0}}


def clocked(offset):
    before = time.time
    time.time = lambda: before() + offset * torch.distributed.get_rank()
    return late()


def test_a_wrong_clock_is_told():
    assert ranks.run(2, clocked, 0.0) == [[], []]
    assert skewed([("a", [10.0, 20.0]), ("b", [10.1, 21.5])]) == []
    assert skewed([("a", [10.0]), ("b", [14.0])])[0].startswith("the clock of b is 4.0 s ahead of that of a")
    assert "5.0 s behind" in ranks.run(2, clocked, -5.0)[1][0]


KILLS = 20


@pytest.mark.soak
def test_ranks_killed_twenty_times_at_random_leave_no_trace(tokens, tmp_path):
    """Half of the times while they start, half in a step or a state. The job gets over it by itself, each time."""
    sets = ["parallel.dp=2", "parallel.ep=2", "train.steps=160", "train.checkpoint_steps=1", "launch.restarts=20"]
    begin = time.monotonic()
    whole = started(tokens, tmp_path / "whole", *sets)
    whole.reaches(1)
    starts = time.monotonic() - begin
    whole.ends()
    trains = time.monotonic() - begin - starts
    job, pick = started(tokens, tmp_path / "killed", *sets), random.Random(0)
    for kill in range(KILLS):
        if kill % 2:
            job.reaches(job.newest + 1)
            time.sleep(pick.uniform(0, 0.6 * trains / KILLS))
        else:
            time.sleep(pick.uniform(0, starts))
        while not (children := job.children):
            assert job.process.poll() is None, f"it ended after {kill} kills: {job.ends(None)}"
        os.kill(pick.choice(children), signal.SIGKILL)
    told = job.ends()
    assert told.count("was killed by signal 9 (SIGKILL) after step") == KILLS
    assert job.weights == whole.weights
    assert job.losses == whole.losses


@pytest.mark.soak
def test_a_machine_that_comes_back_takes_its_part_again(start, nodes):
    first = start("nodes", *nodes, "train.steps=60")
    time.sleep(1)
    second = start("nodes", *nodes, "train.steps=60")
    first.reaches(2)
    second.process.kill()
    second.process.wait()
    first.reaches(first.newest + 4)  # more than can have been under way: it goes on alone
    third = start("nodes", *nodes, "train.steps=60")
    told, last = first.ends(), third.ends()
    alone = told.index("1 of 2 ranks are left")
    assert "resuming" in told[alone:].partition("resuming")[2] + last  # a second time, together
    assert len(first.losses) == 60


@pytest.mark.soak
def test_without_the_machine_where_all_meet_the_others_end_and_say_so(start, nodes):
    first = start("nodes", *nodes)
    time.sleep(1)
    second = start("nodes", *nodes)
    first.reaches(2)
    first.process.kill()
    assert "the same command goes on from the last good checkpoint" in second.ends(LOST)
    first.process.wait()
    again = [start("nodes", *nodes) for _ in range(2)]
    assert "resuming" in "".join(one.ends() for one in again)


@pytest.mark.soak
def test_a_slow_rank_of_a_job_is_told_and_logged(start):
    planted = """
        import os
        if "RANK" in os.environ:
            import time
            import yatsude.train.slow as slow
            from yatsude.train.watched import Watched
            slow.STEPS = 3
            before = Watched.norm
            def norm(self):
                end = time.thread_time() + 2 * int(os.environ["RANK"])
                while time.thread_time() < end:
                    pass
                return before(self)
            Watched.norm = norm
    """
    job = start("slow", "train.steps=9", planted=planted)
    told = job.ends()
    assert told.count("rank 1 on") == 1
    assert "is slow: " in told
    lines = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    (slow,) = [line for line in lines if "slow" in line]
    assert slow["step"] == 6
    assert slow["slow"][0]["rank"] == 1
    assert slow["slow"][0]["busy"] > 1.3
