"""From token shards to a trained model: the stage `train`.

FOLDER/log.jsonl      every step and every score       FOLDER/recipe.toml    the resolved settings
FOLDER/checkpoints/   states to resume from            FOLDER/model/         the result, a Hugging Face folder
"""

import contextlib
import dataclasses
import functools
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from yatsude import manifest, recipe
from yatsude.checkpoint import hf, state
from yatsude.checkpoint.bases import carry
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.write import Precision, Weights, write
from yatsude.errors import MachineError, RecipeError
from yatsude.files import copy_present, held, new_folder
from yatsude.machine import cores, keep_freed_memory, memory
from yatsude.model.init import Initial, initialise
from yatsude.model.scoring import score
from yatsude.model.transformer import Transformer
from yatsude.parallel.mesh import device_type
from yatsude.progress import say
from yatsude.shards import Shards
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.spec.hf import TOKENIZER_FILES
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.tokenizer.pack import ENGLISH
from yatsude.train import base as start
from yatsude.train import bigram, precision
from yatsude.train.candidates import Candidates
from yatsude.train.feed import Feed
from yatsude.train.forecast import expect
from yatsude.train.identity import Identity
from yatsude.train.local import Local
from yatsude.train.loop import Loop, Trainer
from yatsude.train.pulse import Pulse
from yatsude.train.saving import everyones, shared
from yatsude.train.settings import TrainSettings, WatchSettings
from yatsude.train.sinks import need
from yatsude.train.watch import Watch
from yatsude.train.watched import Watched
from yatsude.train.workers import Workers

__all__ = [
    "STAGE",
    "Summary",
    "build",
    "candidates_of",
    "finish",
    "forget",
    "has_bigram_start",
    "text_of",
    "train_workers",
]

STAGE = "train"
SHARD_BYTES = 5_000_000_000
BYTES_PER_PARAMETER = 20
"""Float32 master, gradient and two moments, and in 16 bits a copy and one worker's gradient: what cannot be spared."""
ENGLISH_WEIGHT = 0.2
"""Of a pair of English tokens beside one of Japanese, in the bigram start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to."""

    model: Path
    bits_per_character: float
    """The last score, on validation text; NaN without scores."""
    tokens: int
    seconds: float
    step: str = ""
    """What a step took, beside what the plan said."""

    def score(self) -> str:
        """The last score of the run, in words."""
        if math.isnan(self.bits_per_character):
            return "not scored (evaluations = 0)"
        return f"{self.bits_per_character:.3f} bits per character in validation"


def build(
    model: ModelSettings,
    settings: TrainSettings,
    tokens: Path,
    folder: Path,
    restart: bool = False,
    parallel: ParallelSettings | None = None,
    pulse: Pulse | None = None,
    allow: Sequence[str] = (),
    watch: WatchSettings | None = None,
) -> Summary:
    """Train on the output of `yatsude tokenizer`; the same call goes on where an earlier one was stopped.

    With `parallel`, this process is one of the ranks of a job, which all make the same call; `pulse` tells where it is.
    `allow` are keys and sections of the recipe in which a state to go on from may differ. `watch` changes no result.
    """
    sinks = watch.sinks if watch else ()
    need(sinks)
    page = manifest.read(tokens, "tokenizer")
    shards, validation = Shards(tokens / "train"), Shards(tokens / "validation")
    manifest.check(tokens, page)
    feed = Feed(shards, settings.sequence_length, settings.seed)
    base = Path(settings.base) if settings.base else None
    config = _shape(model, settings, tokens, shards.vocab_size)
    if parallel is None:
        _fits(config)
    if parallel:
        restart = all(everyones(restart))  # a machine that comes back still has the command of the beginning
    sections = {"model": model, STAGE: settings}
    with _alone(folder, parallel), train_workers(settings.workers, settings.sequences_per_step) as workers:
        if restart and _leads(parallel):
            forget(folder)
        dtype = _precision(folder, settings.precision, parallel)
        trainer: Trainer
        if parallel:
            assert pulse, "ranks are watched"
            say("several ranks: no bigram start, and the softmax goes over the whole vocabulary")
            torch.set_num_threads(1)  # the other cores have ranks of their own
            numbers = hf.Boxes(Folder(base)).read if base else Initial(config, settings.seed).read
            trainer = Watched(settings, parallel, config, numbers, folder, dtype=dtype, pulse=pulse)
        else:
            fresh = start.load(base, config) if base else _initialised(config, settings.seed)
            if has_bigram_start(config, settings) and not state.exists(folder / "checkpoints"):
                bigram.start(fresh, _corpora(tokens), settings.seed, dtype, workers)
            candidates = candidates_of(settings, shards)
            trainer = Local(settings, fresh, dtype=dtype, workers=workers, candidates=candidates)
            del fresh  # its weights are in the trainer's buffers now
        loop = Loop(
            settings,
            trainer,
            feed,
            folder,
            evaluate=functools.partial(
                score,
                shards=validation,
                window=settings.sequence_length,
                documents=settings.evaluation_documents,
                spread=workers.map,
            ),
            identity=Identity.of(
                {**sections, "parallel": parallel or ParallelSettings()},
                {"text": text_of(tokens), **({"base": start.identity_of(base)} if base else {})},
            ),
            allow=allow,
        )
        if trainer.leads:  # only now: a run with other settings would have been refused
            recipe.write(folder / "recipe.toml", sections)
        if loop.step < settings.steps:
            scored = settings.candidates if isinstance(trainer, Local) and trainer.candidates else 0
            expected = expect(config, settings, dtype, folder, workers=workers, scored=scored, parallel=parallel)
            loop.watch = Watch(expected, sinks)
        trained = loop.run()
    bits = loop.score.bits_per_character if loop.score else float("nan")
    summary = Summary(
        model=folder / "model",
        bits_per_character=bits,
        tokens=settings.steps * settings.sequences_per_step * settings.sequence_length,
        seconds=loop.seconds,
        step=loop.watch.phrase(),
    )
    loop.say_pauses()
    figures = {"bits_per_character": round(bits, 4), "tokens_seen": summary.tokens, "seconds": round(loop.seconds, 1)}
    figures |= loop.watch.summary()
    if trainer.leads:
        finish(trained, folder / "model", STAGE, [tokens], figures, recipe.digest(sections), base=base)
    return summary


def _shape(model: ModelSettings, settings: TrainSettings, tokens: Path, vocab_size: int) -> ModelConfig:
    """Shape of the model to be trained, its own or its base's; one that cannot be trained here is refused."""
    if settings.base and model != ModelSettings():
        raise RecipeError("train.base brings its own shape; leave [model] out, or train.base")
    base = settings.base
    config = start.config_of(Path(base), tokens, vocab_size) if base else resolve(model, vocab_size)
    if config.num_nextn_predict_layers and not settings.mtp_weight:
        say("train.mtp_weight = 0: the model goes on without its layers of multi-token prediction")
        config = dataclasses.replace(config, num_nextn_predict_layers=0)
    _reaches(config, settings.sequence_length)
    counts = count(config)
    say(f"model: {counts.total / 1e6:.1f} M parameters, {counts.active / 1e6:.1f} M of them active for a token")
    return config


def _precision(folder: Path, wish: str, parallel: ParallelSettings | None) -> torch.dtype:
    """Precision of the run, in FP8 that of what is around such products; rank 0 finds it for all."""
    if parallel and wish == "fp8":
        precision.refuse_without_float8()
        say("precision: fp8, as the recipe says; around its products bf16")
        return torch.bfloat16
    if parallel and wish == "auto" and device_type() == "cuda":
        say("precision: bf16, as the ranks have GPUs")
        return torch.bfloat16
    found = precision.settled(folder, wish) if _leads(parallel) else (torch.float32, "")
    dtype, reason = shared(found) if parallel else found
    say(f"precision: {reason}")
    return dtype


def _alone(folder: Path, parallel: ParallelSettings | None) -> contextlib.AbstractContextManager[None]:
    """Keep other trainings out of the folder; of the ranks of a job the first one does."""
    return held(folder) if _leads(parallel) else contextlib.nullcontext()


def _leads(parallel: ParallelSettings | None) -> bool:
    return parallel is None or torch.distributed.get_rank() == 0


def _reaches(config: ModelConfig, length: int) -> None:
    """Refuse sequences that are longer than what the attention of the model was made for."""
    if length > config.context:
        window = ", by a window that attention here does not have" if config.sliding_window else ""
        raise RecipeError(
            f"train.sequence_length = {length}: the model looks {config.context} tokens back{window}; give at most that"
        )


def _initialised(config: ModelConfig, seed: int) -> Transformer:
    model = Transformer(config)
    initialise(model, seed)
    return model


def has_bigram_start(model: ModelConfig, settings: TrainSettings) -> bool:
    """Whether training begins with fitted tables; it needs two, embedding and head."""
    return settings.bigram_start and not settings.base and not model.tie_word_embeddings


def _fits(config: ModelConfig) -> None:
    """Refuse a model that one process on this machine cannot hold while it is trained."""
    counts = count(config)
    parameters = counts.total + counts.mtp
    need, have = parameters * BYTES_PER_PARAMETER / 1e9, memory() / 1e9
    if 0 < have < need:
        raise MachineError(
            f"training {parameters / 1e6:,.0f} M parameters takes {need:,.0f} GB of memory, this machine has"
            f" {have:,.0f}; choose a smaller model.preset, or cut it over ranks, see [parallel]"
        )


def _corpora(tokens: Path) -> list[tuple[Shards, float]]:
    """What the bigram start counts: the training text, and the translations beside it with less weight."""
    english = tokens / ENGLISH
    beside = [(Shards(english), ENGLISH_WEIGHT)] if english.is_dir() else []
    return [(Shards(tokens / "train"), 1.0), *beside]


def candidates_of(settings: TrainSettings, shards: Shards) -> Candidates | None:
    """The sampled softmax of a run; None where the vocabulary is not larger than the sample."""
    small = not 0 < settings.candidates < shards.vocab_size
    return None if small else Candidates(shards, settings.candidates, settings.seed)


def text_of(source: Path) -> str:
    """Name the bytes of what a run reads."""
    return manifest.digest(manifest.read(source))


def train_workers(wish: int, sequences: int) -> Workers:
    """Start as many workers as wished (0: one a core), but none without a sequence; torch gets all cores between."""
    torch.set_num_threads(cores())
    keep_freed_memory()
    return Workers(max(1, min(wish or cores(), sequences)))


def forget(folder: Path) -> None:
    """Remove what an attempt left to go on from; its finished model stays until another takes its place."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(folder / "watch", ignore_errors=True)
    for name in ("log.jsonl", precision.NOTE):
        (folder / name).unlink(missing_ok=True)


def finish(
    weights: Weights,
    folder: Path,
    stage: str,
    inputs: Sequence[Path],
    figures: Mapping[str, int | float | str],
    digest: str,
    licences: Iterable[manifest.Licence] = (),
    base: Path | None = None,
) -> None:
    """Write the trained model beside its run: weights in float32, the first input's tokenizer, and a manifest.

    A figure that was not measured (NaN) is left out. The licences of a `base` go along, and of the first input's bases.
    """
    known = {name: figure for name, figure in figures.items() if not (isinstance(figure, float) and math.isnan(figure))}
    with new_folder(folder) as draft:
        write(weights, draft, Precision(torch.float32), SHARD_BYTES)
        copy_present(TOKENIZER_FILES, inputs[0], draft)
        known_base = [base] if base and (base / manifest.NAME).is_file() else []
        carried = [one.entry for one in carry([inputs[0], *([base] if base else [])], draft)]
        manifest.write(
            draft,
            stage,
            inputs=[*inputs, *known_base],
            licences=[*licences, *carried],
            counts=known,
            recipe_sha256=digest,
        )
