"""A training's loop on the ranks of a job, with things that go wrong in it."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np
import steps
import torch

from yatsude.checkpoint import sharded
from yatsude.errors import YatsudeError
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.feed import Batch
from yatsude.train.identity import Identity
from yatsude.train.loop import Loop
from yatsude.train.monitor import read_log
from yatsude.train.ranks import Ranks
from yatsude.train.settings import LoopSettings, OptimizerSettings

SETTINGS = {"steps": 8, "sequences_per_step": 8, "sequence_length": 16, "evaluations": 0, "checkpoint_steps": 2}


class Asked:
    """Random tokens by sample; remembers which samples were asked for, and does something at one of them."""

    def __init__(self, at=None, act=None):
        self.seen, self.at, self.act = [], at, act

    def batch(self, first, count):
        step = first - first % SETTINGS["sequences_per_step"]  # a rank asks for its rows of it
        if self.act and step == self.at:
            self.act()
        self.seen.append(step)
        rows = [np.random.default_rng(n).integers(0, 96, 17) for n in range(first, first + count)]
        tokens = np.stack(rows)
        return Batch(tokens[:, :-1], tokens[:, 1:], (tokens[:, :-1] == 0).cumsum(1))


class CutOffError(Exception):
    """Something from outside, on all ranks alike."""


def cut_off():
    raise CutOffError


def loop_of(folder, layout, *, source=None, dtype=torch.float64, changes=(), allow=(), model=(), **settings):
    """AdamW, as Muon rounds to 16 bits."""
    settings = LoopSettings(**{**SETTINGS, **settings}, optimizer=OptimizerSettings(muon=False))
    parallel = ParallelSettings(**layout)
    whole = steps.model_of(**dict(model)).to(dtype)
    numbers = whole.state_dict()
    return Loop(
        settings,
        Ranks(settings, parallel, whole.config, lambda name, box: numbers[name][box], folder, dtype=dtype),
        source or Asked(),
        folder,
        evaluate=lambda _: None,
        identity=Identity.of({"train": settings, "parallel": parallel}, {"text": "a text", **dict(changes)}),
        allow=allow,
    )


def trained(folder, layout, cut=None, **settings):
    """Steps to the end, or until something from outside: samples, losses and norms."""
    source = Asked(cut, cut_off)
    loop = loop_of(Path(folder), layout, source=source, **settings)
    told = []
    advance = loop.advance
    loop.advance = lambda: told.append(advance()) or told[-1]
    with contextlib.suppress(CutOffError):
        loop.run()
    return source.seen, [(figures["loss"], figures["gradient_norm"]) for figures, _ in told]


def said(folder, layout, **settings):
    """The error that ends a run, or what its log says beside steps."""
    try:
        loop_of(Path(folder), layout, **settings).run()
    except YatsudeError as error:
        return str(error)
    return [line for line in read_log(Path(folder) / "log.jsonl") if "load" not in line]


def planted(folder, layout, rank, name, kind):
    """What is said when one rank's numbers stop being numbers at step 3."""
    loop = loop_of(Path(folder), layout)
    loop.source = Asked(2 * 8, lambda: plant(loop.trainer.job, name, kind) if me() == rank else None)
    try:
        loop.run()
    except YatsudeError as error:
        return str(error)
    return "nothing"


def me():
    return torch.distributed.get_rank()


def plant(job, name, kind):
    path, _, last = name.rpartition(".")
    for stage in job.stages.values():
        with contextlib.suppress(AttributeError):
            module = stage.model.get_submodule(path)
            if kind == "weight":
                with torch.no_grad():
                    getattr(module, last).to_local().view(-1)[:1] = torch.nan
            elif kind == "output":
                module.register_forward_hook(lambda _module, _args, out: out * torch.nan)
            else:
                asked = stage.model.norm if path == "lm_head" else module  # which nobody calls
                asked.register_forward_pre_hook(functools.partial(spoil, module, last))


def spoil(module, name, _module, _args):
    getattr(module, name).register_hook(lambda gradient: gradient * torch.nan)


def refusing(folder, layout, rank, failures):
    """A job in which some writes of one rank find no room: which states are there, and what the loop said."""
    real, left = sharded.stream, [failures]

    def full(path, tensors):
        if me() == rank and left[0] and "state" not in path.name:
            left[0] -= 1
            raise OSError(28, os.strerror(28), str(path))
        return real(path, tensors)

    sharded.stream = full
    lines = []
    try:
        loop = loop_of(Path(folder), layout)
        settle = loop.trainer.saved
        loop.trainer.saved = lambda wait: note(settle(wait), lines)
        loop.run()
        end = ""
    except YatsudeError as error:
        end = str(error)
    finally:
        sharded.stream = real
    return sorted(path.name for path in (Path(folder) / "checkpoints").iterdir()), lines, end


def filled(folder, layout, disk):
    """A job whose disk is full from its third step to its sixth: its states, what became of each, and its log."""
    lines, filler = [], disk / "filler"

    def act():
        number = len(source.seen)
        if me() == 0 and number == 2:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(1 << 12))
        if me() == 0 and number == 5:
            filler.unlink()
        torch.distributed.barrier()

    source = Asked()
    plain, source.batch = source.batch, lambda first, count: act() or plain(first, count)
    loop = loop_of(Path(folder), layout, source=source)
    saved = loop.trainer.saved
    loop.trainer.saved = lambda wait: note(saved(wait), lines)
    loop.run()
    states = sorted(path.name for path in (Path(folder) / "checkpoints").iterdir())
    return states, lines, [line["step"] for line in read_log(Path(folder) / "log.jsonl")]


def spiking(folder, layout, at, **settings):
    """Batches that a run takes when the loss of one is told 5 nats too high."""
    source = Asked()
    loop = loop_of(Path(folder), layout, source=source, spikes=1, **settings)
    gradient = loop.trainer.gradient
    loop.trainer.gradient = lambda batch, step: gradient(batch, step) + 5.0 * (source.seen[-1] == at * 8)
    loop.run()
    return [n // 8 for n in source.seen], loop.guard.state()


def note(written, lines):
    if written:
        lines.append(written.error)
    return written


def skipping(folder, layout, at, cut=None, limit=1, **settings):
    """Samples and losses of a run in which the batches of each number in `at` give gradients that are no numbers."""
    source = Asked(cut, cut_off)
    loop = loop_of(Path(folder), layout, source=source, spikes=limit, **settings)
    gradient = loop.trainer.gradient

    def bad(batch, step):
        loss = gradient(batch, step)
        if source.seen[-1] // 8 in at:
            for _, weight in loop.trainer.job.parameters():
                weight.grad.fill_(torch.nan)
        return loss

    loop.trainer.gradient = bad
    with contextlib.suppress(CutOffError):
        loop.run()
    return source.seen, [line["loss"] for line in read_log(Path(folder) / "log.jsonl") if "load" in line]
