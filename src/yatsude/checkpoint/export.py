"""A model as a folder that transformers, vLLM and SGLang open, checked before it counts as written.

Whatever makes a model out of others (convert, upcycle, merge, new rows for new tokens) ends here: weights pass through
piece by piece, are read again and compared, and the papers of all that they were made from go along.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from yatsude import manifest
from yatsude.checkpoint import bases, write
from yatsude.checkpoint.card import card
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.pieces import both, in_pieces
from yatsude.checkpoint.provenance import Stage, chain, licences, notice
from yatsude.checkpoint.settings import ExportSettings
from yatsude.checkpoint.verify import Figures, checksum, verify
from yatsude.checkpoint.vocabulary import ids_for
from yatsude.checkpoint.write import Precision, Weights
from yatsude.errors import CheckpointError
from yatsude.files import copy_present, new_folder
from yatsude.manifest import Licence
from yatsude.model import float8
from yatsude.progress import say
from yatsude.spec.chat import CHAT_TEMPLATE, END, SPECIAL_TOKENS, TEXT
from yatsude.spec.config import ModelConfig
from yatsude.spec.hf import TOKENIZER, TOKENIZER_FILES

__all__ = ["Origin", "export"]

GENERATION = "generation_config.json"
APACHE = Path(__file__).with_name("apache-2.0.txt")
DEFAULT = "apache-2.0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model comes from, and what was done to it."""

    models: tuple[Path, ...]
    """Folders of the models that it was made from; the first one's tokenizer goes along."""
    tokenizer: Path | None = None
    """Folder of another tokenizer, where that has changed."""
    stage: str = "export"
    """The verb that makes it."""
    inputs: tuple[Path, ...] = ()
    """Output folders of stages, whose manifests and licences go along."""
    figures: Mapping[str, int | float | str] = dataclasses.field(default_factory=dict)
    """Measured results, for the card."""
    done: str = ""
    """What was done, for the card, in a sentence or two."""
    licence: Path | None = None
    """Text of the licence of models that have none with them."""
    recipe_sha256: str = ""


def export(source: Weights, folder: Path, settings: ExportSettings, origin: Origin) -> Figures:
    """Write `folder` anew with weights, tokenizer, card, notice and manifest, and compare it with `source`.

    A folder that stood there is replaced, by the stage "export" alone, when all of this succeeded.
    """
    tokenizer = origin.tokenizer or origin.models[0]
    tokens = _special_tokens(tokenizer, source.config) if _has_tokenizer(tokenizer, origin) else {}
    stages = chain(origin.inputs)
    with new_folder(folder, replace=origin.stage == "export") as draft, in_pieces():
        carried = bases.carry(origin.models, draft, origin.licence)
        settings = dataclasses.replace(settings, licence=_licence(draft, carried, settings))
        entries = licences(stages, [base.entry for base in carried])
        write.write(source, draft, _precision(settings, origin), settings.shard_bytes)
        copy_present(TOKENIZER_FILES, tokenizer, draft)
        _chat_template(draft, tokens)
        _generation(draft, source.config, settings, tokens, origin)
        figures, sums = both(lambda: verify(draft, source), lambda: _checksums(origin.models))
        _papers(draft, source.config, settings, origin, stages, entries, figures)
        manifest.write(
            draft,
            origin.stage,
            inputs=origin.inputs,
            licences=entries,
            counts={**origin.figures, **_counts(figures), **sums},
            recipe_sha256=origin.recipe_sha256,
        )
    return figures


def _has_tokenizer(folder: Path, origin: Origin) -> bool:
    """A model from elsewhere may come without a tokenizer of this kind."""
    found = (folder / TOKENIZER).is_file()
    if not found and origin.stage != "export":
        say(f"{folder} has no {TOKENIZER}: the model goes without one")
    return found or origin.stage == "export"


def _licence(draft: Path, carried: list[bases.Base], settings: ExportSettings) -> str:
    """Put the text of the model's own licence into the folder; how it is spelled comes back."""
    spelled = {base.spdx for base in carried}
    if settings.licence:
        text = next((base.text for base in carried if base.spdx == settings.licence), None)
        text = text or (APACHE if settings.licence == DEFAULT else None)
        if text is None and carried:
            raise CheckpointError(
                f"export.licence = {settings.licence!r}: there is no text of it here; give the models it was made from"
                f" with it, or leave it out to keep theirs ({', '.join(sorted(spelled)) or DEFAULT})"
            )
    elif len(spelled) > 1:
        raise CheckpointError(
            f"the models have different licences, {' and '.join(sorted(spelled))}; say under which of them the result"
            " is, if one allows it, with export.licence"
        )
    else:
        text = carried[0].text if carried else APACHE
    if text:
        shutil.copyfile(text, draft / "LICENSE")
    return settings.licence or (spelled.pop() if spelled else DEFAULT)


def _precision(settings: ExportSettings, origin: Origin) -> Precision:
    """FP8 keeps the blocks of a model that is stored so: what nothing touched passes unchanged."""
    if settings.dtype != "float8":
        return Precision(getattr(torch, settings.dtype))
    return Precision(torch.float8_e4m3fn, Folder(origin.models[0]).blocks or float8.BLOCKS)


def _papers(
    draft: Path,
    config: ModelConfig,
    settings: ExportSettings,
    origin: Origin,
    stages: list[Stage],
    entries: list[Licence],
    figures: Figures,
) -> None:
    """Card, notice, and a copy of every manifest behind the model."""
    page = card(
        config, settings, stages=stages, licences=entries, figures=origin.figures, check=figures, done=origin.done
    )
    (draft / "README.md").write_text(page, encoding="utf-8")
    (draft / "NOTICE").write_text(notice(settings.name, entries), encoding="utf-8")
    for stage in stages:
        if stage.path:
            (draft / "provenance").mkdir(exist_ok=True)
            name = f"{stage.stage}-{stage.manifest_sha256[:12]}.json"
            shutil.copyfile(stage.path / manifest.NAME, draft / "provenance" / name)
    for model in origin.models:  # those of earlier times, whose folders may be gone
        for kept in sorted((model / "provenance").glob("*.json")):
            (draft / "provenance").mkdir(exist_ok=True)
            shutil.copyfile(kept, draft / "provenance" / kept.name)


def _special_tokens(tokenizer: Path, config: ModelConfig) -> dict[str, int]:
    """Ids of the special tokens by text; every id of the tokenizer must have its row in the embedding."""
    path = tokenizer / TOKENIZER
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        added = {entry["content"]: int(entry["id"]) for entry in page["added_tokens"]}
        words = page["model"]["vocab"]  # of Unigram a list, in the order of ids
        size = 1 + max([*(words.values() if isinstance(words, dict) else range(len(words))), *added.values()])
    except FileNotFoundError:
        raise CheckpointError(f"no {TOKENIZER} in {tokenizer}; expected the output of 'yatsude tokenizer'") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); run 'yatsude tokenizer' again") from None
    if size > config.vocab_size:
        raise CheckpointError(
            f"{path} has {size} tokens, the model {config.vocab_size}; give the tokenizer it was trained with"
        )
    return added


def _chat_template(draft: Path, tokens: Mapping[str, int]) -> None:
    path = draft / "chat_template.jinja"
    if not path.is_file() and set(SPECIAL_TOKENS) <= tokens.keys():
        path.write_text(CHAT_TEMPLATE, encoding="utf-8")


def _generation(
    draft: Path, config: ModelConfig, settings: ExportSettings, tokens: Mapping[str, int], origin: Origin
) -> None:
    """Write generation_config.json: that of the model it was made from, or where an answer ends, and how to sample."""
    theirs = origin.models[0] / GENERATION
    if origin.stage == "export":
        page = _ends(config, tokens) | _sampling(settings)
    elif theirs.is_file():
        say(f"{GENERATION} is that of {theirs.parent}; export.temperature and export.top_p change nothing in it")
        page = _json(theirs)
        page |= ids_for(origin.models[0], origin.tokenizer, page) if origin.tokenizer else {}
    else:
        page = _ends(config, tokens)
    write.write_json(draft / GENERATION, page)


def _ends(config: ModelConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    said = config.eos_token_id
    ends = list(said) if isinstance(said, tuple) else [said] if said is not None else None
    if set(SPECIAL_TOKENS) <= tokens.keys():  # a tokenizer trained here
        ends = [tokens[TEXT], tokens[END]]
    page = {"bos_token_id": config.bos_token_id, "eos_token_id": ends, "pad_token_id": config.pad_token_id}
    return {name: value for name, value in page.items() if value is not None}


def _sampling(settings: ExportSettings) -> dict[str, Any]:
    drawn = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}
    return drawn if settings.temperature else {"do_sample": False}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the model again") from None


def _checksums(models: Iterable[Path]) -> dict[str, str]:
    """What the models were, by the checksum that `yatsude verify` prints."""
    found: dict[str, str] = {}
    for number, model in enumerate(models, 1):
        name = f"from {model.resolve().name}"
        found[f"{name} ({number})" if name in found else name] = checksum(Folder(model))
    return found


def _counts(figures: Figures) -> dict[str, int | float | str]:
    return {
        "parameters": figures.parameters,
        "tensors": figures.tensors,
        "tensors_sha256": figures.tensors_sha256,
        "tensor_difference": figures.tensor_difference,
        "logit_difference": figures.logit_difference,
        "rounding_difference": figures.rounding_difference,
        "same_choice": figures.same_choice,
    }
