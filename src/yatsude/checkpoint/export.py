"""A trained model as a folder that transformers, vLLM and SGLang open, checked before it counts as written."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.card import card
from yatsude.checkpoint.provenance import Stage, chain, licences, notice
from yatsude.checkpoint.settings import ExportSettings
from yatsude.checkpoint.verify import Figures, verify
from yatsude.errors import CheckpointError
from yatsude.files import new_folder
from yatsude.manifest import Licence
from yatsude.model.transformer import Transformer
from yatsude.spec.chat import CHAT_TEMPLATE, END, SPECIAL_TOKENS, TEXT
from yatsude.spec.config import ModelConfig

__all__ = ["export"]

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def export(
    model: Transformer,
    tokenizer: Path,
    folder: Path,
    settings: ExportSettings,
    *,
    inputs: Iterable[Path] = (),
    figures: Mapping[str, int | float | str] | None = None,
    recipe_sha256: str = "",
) -> Figures:
    """Write `folder` anew with weights, tokenizer, card, notice and manifest, and compare it with `model`.

    `tokenizer` is a folder with tokenizer.json; `inputs` are the output folders the model was made from, whose licences
    go along; `figures` go into the card. A folder that stood there is replaced only when all of this succeeded.
    """
    inputs = tuple(inputs)
    stages = chain(inputs)
    entries = licences(stages)
    tokens = _special_tokens(tokenizer, model.config)
    with new_folder(folder) as draft:
        hf.write(model, draft, getattr(torch, settings.dtype), settings.shard_bytes)
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, draft / name)
        _chat_template(draft, tokens)
        hf.write_json(draft / "generation_config.json", _generation(model.config, settings, tokens))
        check = verify(draft, model)
        _papers(draft, model.config, settings, stages, entries, figures or {}, check)
        manifest.write(
            draft,
            "export",
            inputs=inputs,
            licences=entries,
            counts={**(figures or {}), **_counts(check)},
            recipe_sha256=recipe_sha256,
        )
    return check


def _papers(
    draft: Path,
    config: ModelConfig,
    settings: ExportSettings,
    stages: list[Stage],
    entries: list[Licence],
    figures: Mapping[str, int | float | str],
    check: Figures,
) -> None:
    """Card, notice, and a copy of every manifest behind the model."""
    page = card(config, settings, stages=stages, licences=entries, figures=figures, check=check)
    (draft / "README.md").write_text(page, encoding="utf-8")
    (draft / "NOTICE").write_text(notice(settings.name, entries), encoding="utf-8")
    for stage in stages:
        if stage.path:
            (draft / "provenance").mkdir(exist_ok=True)
            name = f"{stage.stage}-{stage.manifest_sha256[:12]}.json"
            shutil.copyfile(stage.path / manifest.NAME, draft / "provenance" / name)


def _special_tokens(tokenizer: Path, config: ModelConfig) -> dict[str, int]:
    """Ids of the special tokens by text; every id of the tokenizer must have its row in the embedding."""
    path = tokenizer / TOKENIZER
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        added = {entry["content"]: int(entry["id"]) for entry in page["added_tokens"]}
        size = 1 + max([*page["model"]["vocab"].values(), *added.values()])
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


def _generation(config: ModelConfig, settings: ExportSettings, tokens: Mapping[str, int]) -> dict[str, Any]:
    """Content of generation_config.json: where an answer ends, and how to sample."""
    ends = [tokens[token] for token in (TEXT, END) if token in tokens]
    if not ends:
        ends = [config.eos_token_id] if isinstance(config.eos_token_id, int) else list(config.eos_token_id)
    page: dict[str, Any] = {"bos_token_id": config.bos_token_id, "eos_token_id": ends}
    if config.pad_token_id is not None:
        page["pad_token_id"] = config.pad_token_id
    if settings.temperature == 0:
        return {**page, "do_sample": False}
    return {**page, "do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}


def _counts(check: Figures) -> dict[str, int | float]:
    return {
        "parameters": check.parameters,
        "tensors": check.tensors,
        "tensor_difference": check.tensor_difference,
        "logit_difference": check.logit_difference,
        "rounding_difference": check.rounding_difference,
        "same_choice": check.same_choice,
    }
