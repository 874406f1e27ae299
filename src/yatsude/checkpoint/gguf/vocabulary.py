"""A tokenizer.json as GGUF metadata, if llama.cpp can give the same ids for every text.

llama.cpp does not read the patterns that cut a text before pairs are merged; it knows a few sets of them by name
(`tokenizer.ggml.pre`). So the patterns here are compared with those sets, and others are an error.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yatsude.errors import CheckpointError
from yatsude.progress import say

__all__ = ["read_page", "vocabulary"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_4 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST,)
_QWEN_2 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,)
_GPT_2 = ("ByteLevel",)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_PRE: dict[tuple[str, ...], str] = {_GPT_4: "smaug-bpe", _QWEN_2: "qwen2", _GPT_2: "gpt-2", _DEEPSEEK_V3: "deepseek-v3"}
"""Patterns -> what llama.cpp calls them, where pairs are merged by rank."""
_PRE_WHOLE: dict[tuple[str, ...], str] = {_GPT_4: "llama-bpe"}
"""The same where a piece that is a token stays whole (`ignore_merges`)."""
_PLAIN = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
          "fuse_unk": False, "byte_fallback": False}  # fmt: skip
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ENDS = ("eos", "eot", "eom")


def vocabulary(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Build the `tokenizer.*` entries from tokenizer.json, its config, and the ids that begin and end an answer.

    Raises CheckpointError where llama.cpp would give other ids than the folder's tokenizer.
    """
    path = folder / "tokenizer.json"
    page, settings = read_page(path), read_page(folder / "tokenizer_config.json", optional=True)
    try:
        tokens, types = _tokens(page, config["vocab_size"], path)
        entries: dict[str, Any] = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": _pre(page, path),
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": [
                pair if isinstance(pair, str) else " ".join(pair) for pair in page["model"]["merges"]
            ],
            "tokenizer.ggml.add_bos_token": _adds_bos(page, settings, path),
            "tokenizer.ggml.add_space_prefix": False,
        }
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); copy or export the model again") from None
    entries |= _marks(folder, config, settings, tokens)
    template = _template(folder, settings)
    return entries | ({"tokenizer.chat_template": template} if template else {})


def read_page(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Read one of the JSON pages of a model's folder; an optional one that is not there is empty."""
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return {}
        raise CheckpointError(f"{path} is missing; expected an exported model with config and tokenizer") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy or export the model again") from None
    if not isinstance(page, dict):
        raise CheckpointError(f"{path} holds {page!r:.40}, expected a page of settings; copy or export the model again")
    return page


def _tokens(page: Mapping[str, Any], size: int, path: Path) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows that no token has are marked unused."""
    ids = {number: token for token, number in page["model"]["vocab"].items()}
    types = dict.fromkeys(ids, _NORMAL)
    for entry in page["added_tokens"]:
        if any(entry.get(key) for key in ("single_word", "lstrip", "rstrip")):
            raise CheckpointError(f"{path}: token {entry['content']!r} takes spaces beside it; llama.cpp would not")
        ids[entry["id"]] = entry["content"]
        types[entry["id"]] = _CONTROL if entry["special"] else _USER_DEFINED
    if max(ids) >= size:
        raise CheckpointError(f"{path} has {max(ids) + 1} tokens, config.json {size}; give the model's own tokenizer")
    return (
        [ids.get(number, f"[UNUSED{number}]") for number in range(size)],
        [types.get(number, _UNUSED) for number in range(size)],
    )


def _pre(page: Mapping[str, Any], path: Path) -> str:
    """llama.cpp's name for how this tokenizer cuts and merges."""
    model, normalizer = page["model"], page["normalizer"]
    odd = {key: model[key] for key, value in _PLAIN.items() if (model.get(key) or value) != value}
    if model.get("type", "BPE") != "BPE" or odd:
        raise CheckpointError(f"{path} is {model.get('type')} with {odd}; only plain byte-level BPE can go into GGUF")
    if normalizer == {"type": "NFC"}:
        say(f"{path} composes characters first (NFC), llama.cpp does not: text that is not NFC gets other ids there")
    elif normalizer:
        raise CheckpointError(
            f"{path} has the normalizer {normalizer['type']}; llama.cpp would encode the text as it is"
        )
    patterns = _patterns(page["pre_tokenizer"])
    whole = model.get("ignore_merges", False) or (patterns in _PRE_WHOLE and _every_token_is_reached(page))
    name = _PRE_WHOLE.get(patterns) if whole else None if model.get("ignore_merges") else _PRE.get(patterns)
    if name is None:
        raise CheckpointError(
            f"{path} cuts text by patterns that llama.cpp does not know, ids would differ; expected those of"
            " tokenizer.pattern 'gpt-4' or 'deepseek-v3', of GPT-2, Llama 3 or Qwen 2"
        )
    return name


def _patterns(cutter: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The patterns of a byte-level pre-tokenizer in their order; nothing if there is anything else in it."""
    steps = [cutter] if cutter and cutter["type"] != "Sequence" else (cutter or {}).get("pretokenizers", [])
    *cuts, last = steps or [{"type": "none"}]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return ()
    if last.get("use_regex", True):
        return () if cuts else _GPT_2
    if any(cut["type"] != "Split" or cut["behavior"] != "Isolated" or cut["invert"] for cut in cuts):
        return ()
    return tuple(cut["pattern"].get("Regex", "") for cut in cuts)


def _every_token_is_reached(page: Mapping[str, Any]) -> bool:
    """Whether merging the bytes of any token gives that token: then it does not matter if it is looked up first."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    plain = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"))
    added = {entry["content"] for entry in page["added_tokens"]}
    try:
        model = Tokenizer.from_str(json.dumps({**page, **plain})).model
        return all(len(model.tokenize(token)) == 1 for token in page["model"]["vocab"] if token not in added)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"the tokenizer is damaged ({error}); copy or export the model again") from None


def _adds_bos(page: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> bool:
    """Whether a text alone gets a token in front."""
    post = page.get("post_processor") or {"type": "ByteLevel"}
    for step in post["processors"] if post["type"] == "Sequence" else [post]:
        if step["type"] == "TemplateProcessing":
            kinds = [next(iter(piece)) for piece in step["single"]]
            if kinds in (["SpecialToken", "Sequence"], ["Sequence"]):
                return len(kinds) == 2
        if step["type"] != "ByteLevel":
            raise CheckpointError(f"{path} adds tokens by {step['type']} in a way that llama.cpp cannot")
    return bool(settings.get("add_bos_token", False))


def _marks(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any], tokens: list[str]) -> dict[str, int]:
    """Ids of the tokens that begin a text, end an answer and fill a batch, by llama.cpp's keys."""
    page = {**config, **read_page(folder / "generation_config.json", optional=True)}
    ends = page.get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if len(ends) > len(_ENDS):
        say(f"llama.cpp ends an answer at {ends[: len(_ENDS)]} only, not at {ends[len(_ENDS) :]}")
    marks = dict(zip(_ENDS, ends, strict=False))
    marks |= {"bos": page.get("bos_token_id"), "padding": page.get("pad_token_id", _id(settings, "pad_token", tokens))}
    return {f"tokenizer.ggml.{name}_token_id": number for name, number in marks.items() if number is not None}


def _id(settings: Mapping[str, Any], key: str, tokens: list[str]) -> int | None:
    token = settings.get(key)
    text = token.get("content") if isinstance(token, dict) else token
    return tokens.index(text) if text in tokens else None


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
    return template if isinstance(template, str) else ""
