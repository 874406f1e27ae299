"""Some steps of training a small model, by one process and by the ranks of a job: losses, norms, weights, loads."""

import contextlib

import bugs
import torch

from yatsude.checkpoint.sharded import Sharded, complete, write
from yatsude.model.documents import Documents
from yatsude.model.init import initialise
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.router import Penalties
from yatsude.model.transformer import Transformer
from yatsude.parallel.job import Job
from yatsude.parallel.mesh import Mesh
from yatsude.spec.layout import in_layout
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train.ahead import shifted
from yatsude.train.balance import balance, penalise

STEPS, SEQUENCES, LENGTH = 5, 32, 16
CLIP, AHEAD, RATE = 0.5, 0.3, 3e-4
DTYPE = torch.float64


def model_of(**changes):
    """Four layers, the first dense, eight experts of which one is never chosen."""
    wanted = {"num_hidden_layers": 4, "vocab_size": 96, "num_attention_heads": 4, "first_k_dense_replace": 1}
    family = changes.pop("model_type", "deepseek_v3")
    model = Transformer(in_layout(preset("pico", **wanted), family, **changes))
    initialise(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that attention and experts matter
        for router in model.routers:
            router.e_score_correction_bias[3] = -100.0
    return model.to(DTYPE)


def batch(step):
    """Packed rows of random tokens; some ranks' rows have fewer counted targets than others'."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randint(96, (SEQUENCES, LENGTH + 1), generator=generator)
    documents = (torch.rand(SEQUENCES, LENGTH, generator=generator) < 0.1).cumsum(1)
    targets = inputs[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < torch.linspace(0, 0.7, SEQUENCES)[:, None]] = IGNORED
    return inputs[:, :-1], targets, documents


def ahead_of(model, inputs, targets, documents):
    return [shifted(inputs, targets, documents, n + 1) for n in range(len(model.mtp))]


def optimizer_of(parameters):
    return torch.optim.AdamW(parameters, lr=RATE, eps=1e-8, weight_decay=0.1, foreach=False)


def alone(penalties=None, **changes):
    """By one process, plainly."""
    model = model_of(**changes)
    if penalties:
        penalise([model], **penalties, sequences=SEQUENCES)
    optimizer = optimizer_of(model.parameters())
    told = []
    for step in range(STEPS):
        inputs, targets, documents = batch(step)
        scale = 1 / int((targets != IGNORED).sum())
        hidden = model(inputs, mask=Documents(documents))
        loss = total = cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, targets.flatten(), scale)
        for number, (following, later) in enumerate(ahead_of(model, inputs, targets, documents)):
            hidden = model.ahead(number, hidden, following, mask=Documents(documents))
            more = cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, later.flatten(), scale)
            total = total + AHEAD / len(model.mtp) * more
        total.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        optimizer.step()
        optimizer.zero_grad()
        loads = balance([model], 1e-2)
        told.append((float(loss.detach()), norm, loads.tolist()))
    return told


def job_of(model, mesh, **more):
    """A job that begins with the weights of a whole model."""
    master = next(model.parameters()).dtype
    job = Job(model.config, mesh, sequences=SEQUENCES, length=LENGTH, master=master, **more)
    numbers = model.state_dict()
    job.allocate()
    job.fill(lambda name, box: numbers[name][box])
    job.fill_biases(lambda name, box: numbers[name][box])
    return job


def together(settings, changes, bug=""):
    """By this rank of a job, with a mistake planted in it if one is named."""
    with bugs.BUGS[bug][1]() if bug else contextlib.nullcontext():
        return _together(settings, changes)


def _together(settings, changes, between=None, save=None, resume=None):
    changes = dict(changes)
    penalties = changes.pop("penalties", None)
    model = model_of(**changes)
    mesh = Mesh(ParallelSettings(**settings))
    weight = AHEAD if len(model.mtp) else 0.0
    losses = Penalties(**penalties) if penalties else None
    job = job_of(model, mesh, dtype=DTYPE, ahead_weight=weight, penalties=losses)
    optimizer = optimizer_of([parameter for _, parameter in job.parameters()])
    if resume:
        restore(job, optimizer, Sharded(resume))
    told = []
    for step in range(*(between or (0, STEPS))):
        inputs, targets, documents = batch(step)
        inputs, targets, documents = (part[job.rows] for part in (inputs, targets, documents))
        loss = job.gradient(inputs, targets, documents, ahead_of(model, inputs, targets, documents))
        norm = job.norm()
        if norm > CLIP:
            job.scale(CLIP / (norm + 1e-6))  # as clip_grad_norm_ does
        optimizer.step()
        optimizer.zero_grad()
        told.append((loss, norm, {n: balance([s.model], 1e-2, job.sum_loads).tolist() for n, s in job.stages.items()}))
    if save:
        write(save, torch.distributed.get_rank(), [*job.pieces(), *job.biases(), *moments(job, optimizer)])
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            complete(save, {"step": between[1]})
    return told


MOMENTS = ("exp_avg", "exp_avg_sq")


def moments(job, optimizer):
    for word in MOMENTS if optimizer.state else ():
        yield from job.pieces(f"{word}.", lambda weight, word=word: optimizer.state[weight][word])


def restore(job, optimizer, found):
    """The weights, and the optimizer's moments after a step that is thrown away again."""
    for _, parameter in job.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    job.fill(found.read)
    job.fill_biases(found.read)
    for word in MOMENTS:
        job.fill(found.read, f"{word}.", lambda weight, word=word: optimizer.state[weight][word])
    for state in optimizer.state.values():
        state["step"].fill_(found.page["step"])
