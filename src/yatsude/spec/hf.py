"""config.json of a Hugging Face folder: in and out of a ModelConfig, by family. No torch.

Whatever a config.json says that this model cannot do, or that nobody here knows, is an error that names the key: a key
passed over in silence is a model that computes something else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from yatsude.errors import CheckpointError, RecipeError
from yatsude.spec import rope_scaling
from yatsude.spec.config import ModelConfig
from yatsude.spec.family import COMMON, Family, family
from yatsude.spec.layout import refuse_other_layouts

__all__ = [
    "CONFIG",
    "TOKENIZER",
    "TOKENIZER_FILES",
    "VOCABULARIES",
    "from_hf",
    "page_of",
    "quantised_blocks",
    "read",
    "to_hf",
]

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
"""Of a model folder."""
TOKENIZER_FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
"""All that a tokenizer may come in; one trained here has the first, the second and the template."""
VOCABULARIES = (TOKENIZER, "tokenizer.model", "vocab.json", "merges.txt")
"""Those that say which id is which token."""
DEFAULTS: dict[str, Any] = {
    "tie_word_embeddings": False, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
"""What a silent config.json means."""
HARMLESS = (
    "model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map",
    "use_cache", "output_router_logits", "router_aux_loss_coef", "pretraining_tp", "rope_scaling", "rope_parameters",
    "quantization_config", "return_dict", "output_hidden_states", "output_attentions", "is_encoder_decoder",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "torchscript", "is_decoder",
    "add_cross_attention", "tie_encoder_decoder", "cross_attention_hidden_size", "finetuning_task", "prefix",
    "task_specific_params", "tokenizer_class", "decoder_start_token_id", "sep_token_id", "pruned_heads",
    "use_bfloat16", "tf_legacy_loss", "attn_implementation", "_attn_implementation", "experts_implementation",
)  # fmt: skip
"""Keys that change no number of a forward pass, or that are read elsewhere."""

QUANTISED = {
    "quant_method": "fp8", "weight_block_size": None, "fmt": "e4m3", "activation_scheme": "dynamic",
    "scale_fmt": None, "modules_to_not_convert": None, "ignored_layers": None, "dequantize": None,
}  # fmt: skip
"""What may be said of FP8, and as what (none: anything, since the tensors show it themselves)."""

NULLABLE = ("q_lora_rank", "sliding_window")
"""Fields that a config.json may set to null, but must say."""

_ADAPTER = TypeAdapter(ModelConfig)


def to_hf(config: ModelConfig, dtype: str = "bfloat16") -> dict[str, Any]:
    """Build the content of config.json, for transformers, vLLM, SGLang and llama.cpp alike."""
    refuse_other_layouts(config)
    kind = family(config.model_type)
    page = {
        "architectures": [kind.architecture],
        "model_type": config.model_type,
        **kind.says,
        **{name: getattr(config, name) for name in COMMON},
        **{kind.keys.get(name, name): getattr(config, name) for name in kind.fields},
        "rope_scaling": rope_scaling.to_hf(config.rope_scaling),
        "torch_dtype": dtype,
    }
    page["eos_token_id"] = list(config.eos_token_id) if isinstance(config.eos_token_id, tuple) else config.eos_token_id
    return kind.finish(page)


def from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Read the content of a config.json; whatever this model cannot do is an error that names the key."""
    kind = family(values.get("model_type"))
    _refuse(values, kind)
    said = {key: value for key, value in values.items() if value is not None or key.endswith("_token_id")}
    page = {**DEFAULTS, **kind.defaults, **said}
    page = kind.prepare(page)
    _refuse_silence(page, values, kind)
    stretch = _rope(page)
    if "rope_theta" in stretch:
        page["rope_theta"] = stretch["rope_theta"]
    fields = {name: page[key] for name, key in _keys(kind).items() if key in page}
    if kind.dense:
        fields["first_k_dense_replace"] = page.get("num_hidden_layers")
    try:
        return _ADAPTER.validate_python(
            {**fields, **kind.fixed, "rope_scaling": rope_scaling.from_hf(stretch), "model_type": values["model_type"]}
        )
    except ValidationError as error:
        first = error.errors()[0]
        field, *rest = first["loc"] or ("",)
        place = ".".join(map(str, (_keys(kind).get(str(field), field), *rest)))
        raise CheckpointError(f"config.json: {place}: {first['msg']}" if place else first["msg"]) from None
    except RecipeError as error:
        raise CheckpointError(str(error)) from None


def page_of(folder: Path) -> dict[str, Any]:
    """All that the config.json of a folder says."""
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {folder}; expected a checkpoint or an exported model") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); write the model again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {values!r:.40}, expected the settings of a model; write the model again")
    return values


def read(folder: Path) -> ModelConfig:
    """Read `config.json` of a checkpoint folder."""
    values = page_of(folder)
    try:
        return from_hf(values)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: {str(error).removeprefix('config.json: ')}") from None


def quantised_blocks(values: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a scale, of weights stored in FP8; none where they are not quantised."""
    page = values.get("quantization_config")
    if page is None:
        return None
    if not isinstance(page, dict) or page.get("quant_method") != "fp8":
        method = page.get("quant_method") if isinstance(page, dict) else page
        raise CheckpointError(f"quantization_config.quant_method = {method!r}: expected 'fp8', in blocks")
    for key, value in page.items():
        if key not in QUANTISED or (QUANTISED[key] is not None and value not in (QUANTISED[key], None)):
            expected = f"; expected {QUANTISED[key]!r}" if key in QUANTISED else ", which nobody here knows"
            raise CheckpointError(f"quantization_config.{key} = {value!r:.60}{expected}")
    blocks = page.get("weight_block_size")
    if not (isinstance(blocks, list) and len(blocks) == 2 and all(isinstance(n, int) and n > 0 for n in blocks)):
        raise CheckpointError(f"quantization_config.weight_block_size = {blocks!r}: expected two sizes, as [128, 128]")
    if 128 % blocks[0]:  # pieces of a tensor begin at multiples of 128 rows
        raise CheckpointError(f"quantization_config.weight_block_size = {blocks!r}: expected rows that divide 128")
    return blocks[0], blocks[1]


def _keys(kind: Family) -> dict[str, str]:
    return {name: kind.keys.get(name, name) for name in (*COMMON, *kind.fields)}


def _refuse_silence(page: Mapping[str, Any], values: Mapping[str, Any], kind: Family) -> None:
    """A key that is not there means something else to every program: only what the family declares may be missing."""
    for name, key in _keys(kind).items():
        if key not in page and not (key in values and name in NULLABLE):
            raise CheckpointError(f"config.json has no {key} (or null), which {values['model_type']} needs; add it")


def _refuse(values: Mapping[str, Any], kind: Family) -> None:
    known = {*_keys(kind).values(), *kind.says, *kind.ignored, *HARMLESS, *kind.defaults, "partial_rotary_factor"}
    for key, value in values.items():
        if key in kind.says and value is not None and value != kind.says[key]:
            raise CheckpointError(f"{key} = {value!r} in config.json is not supported, expected {kind.says[key]!r}")
        if key not in known and not (value is None or value in ([], {})):
            raise CheckpointError(
                f"{key} = {value!r:.60} in config.json is unknown for {values['model_type']}; if it changes nothing in"
                " what the model computes, remove it"
            )
    share = _rope(values).get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if share not in (None, 1, 1.0) and "partial_rotary_factor" not in kind.fields:
        raise CheckpointError(f"partial_rotary_factor = {share!r} in config.json is not supported, expected 1")


def _rope(page: Mapping[str, Any]) -> Mapping[str, Any]:
    """Join what is said of rotary positions under the new name and under the old one."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = page.get(key) or {}
        if not isinstance(part, dict):
            raise CheckpointError(f"{key} = {part!r}: expected a table")
        kinds = {part[word] for word in ("type", "rope_type") if part.get(word)}
        if len(kinds | ({found["rope_type"]} if found.get("rope_type") else set())) > 1:
            raise CheckpointError(f"{key} = {part!r:.80} says two things of rope_type; keep one of them")
        found |= {**part, **({"rope_type": kinds.pop()} if kinds else {})}
    found.pop("type", None)
    return found
