"""From a data folder to a tokenizer folder: learn, save, pack, measure, describe."""

import dataclasses
import itertools
import time
from pathlib import Path

from yatsude import manifest, recipe
from yatsude.files import copy_present, new_folder
from yatsude.manifest import Licence
from yatsude.progress import say
from yatsude.spec.hf import TOKENIZER_FILES
from yatsude.tokenizer.corpus import check, sample
from yatsude.tokenizer.pack import ENGLISH, Tally, pack, pack_english
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

__all__ = ["STAGE", "Summary", "build"]

STAGE = "tokenizer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What `build` made; tokens here count the separators, as a training run does."""

    vocab_size: int
    train_tokens: int
    validation_tokens: int
    held_out_tokens: int
    characters_per_token: float
    """On validation text: a vocabulary may be chosen by it."""
    characters_per_token_by_domain: dict[str, float]


def build(settings: TokenizerSettings, data_folder: Path, folder: Path) -> Summary:
    """Train a tokenizer on the output of `yatsude data` and pack that text; `folder` appears whole or not at all."""
    manifest.read(data_folder, "data")
    check(data_folder)
    with new_folder(folder) as draft:
        tokenizer, licences = (
            _taken(Path(settings.base), draft) if settings.base else _learn(settings, data_folder, draft)
        )
        tallies = pack(tokenizer, data_folder, draft)
        pack_english(tokenizer, data_folder, draft / ENGLISH)
        summary = _summary(tokenizer, tallies)
        digest = recipe.write(draft / "recipe.toml", {STAGE: settings})
        manifest.write(
            draft,
            STAGE,
            inputs=[data_folder],
            licences=licences,
            counts=_counts(summary, tallies),
            recipe_sha256=digest,
        )
    say(f"validation text: {summary.characters_per_token:.2f} characters a token")
    return summary


def _learn(settings: TokenizerSettings, data_folder: Path, draft: Path) -> tuple[Tokenizer, list[Licence]]:
    start = time.perf_counter()
    english = settings.training_characters * settings.english_share
    texts = itertools.chain(
        sample(data_folder, "text", settings.training_characters - english), sample(data_folder, "english", english)
    )
    tokenizer = Tokenizer(train(texts, settings))
    tokenizer.save(draft)
    say(f"tokenizer: {tokenizer.vocab_size:,} tokens, learned in {time.perf_counter() - start:.1f} s")
    return tokenizer, []


def _taken(base: Path, draft: Path) -> tuple[Tokenizer, list[Licence]]:
    tokenizer, name = Tokenizer.load(base), base.resolve().name
    copy_present(TOKENIZER_FILES, base, draft)
    say(f"tokenizer: {tokenizer.vocab_size:,} tokens, those of {base}")
    terms = Licence(source=f"tokenizer:{name}", licence=f"that of {name}", attribution=f"the authors of {name}")
    return tokenizer, [terms]


def _summary(tokenizer: Tokenizer, tallies: dict[str, Tally]) -> Summary:
    validation = tallies["validation"]
    return Summary(
        vocab_size=tokenizer.vocab_size,
        train_tokens=tallies["train"].stored,
        validation_tokens=validation.stored,
        held_out_tokens=tallies["held_out"].stored,
        characters_per_token=validation.characters_per_token(),
        characters_per_token_by_domain={name: validation.characters_per_token(name) for name in validation.characters},
    )


def _counts(summary: Summary, tallies: dict[str, Tally]) -> dict[str, int | float | str]:
    counts: dict[str, int | float | str] = {
        "vocab_size": summary.vocab_size,
        "characters_per_token": round(summary.characters_per_token, 4),
        "train_tokens": summary.train_tokens,
        "validation_tokens": summary.validation_tokens,
        "held_out_tokens": summary.held_out_tokens,
    }
    for split, tally in tallies.items():
        counts[f"{split}_documents"] = tally.documents
        counts[f"{split}_characters"] = tally.characters.total()
    for domain, value in summary.characters_per_token_by_domain.items():
        counts[f"characters_per_token.{domain}"] = round(value, 4)
    return counts
