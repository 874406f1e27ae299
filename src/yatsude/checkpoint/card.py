"""The model card (README.md of an exported folder), written from what is recorded, not from what is hoped."""

from collections.abc import Iterable, Mapping, Sequence

from yatsude import __version__
from yatsude.checkpoint.provenance import Stage
from yatsude.checkpoint.settings import ExportSettings
from yatsude.checkpoint.verify import Figures
from yatsude.manifest import Licence
from yatsude.spec.config import ModelConfig
from yatsude.spec.info import render

__all__ = ["card"]

KERNEL_LATENT = (512, 64)


def card(
    config: ModelConfig,
    settings: ExportSettings,
    *,
    stages: Sequence[Stage],
    licences: Sequence[Licence],
    figures: Mapping[str, int | float | str],
    check: Figures,
    done: str = "",
) -> str:
    """Write the card; `figures` are measured results by name, such as bits per character, `done` says what was done."""
    kind = "A mixture-of-experts language model" if config.moe_layers else "A language model"
    sections = (
        _front(config, settings),
        f"# {settings.name}\n\n{kind} in the layout {config.model_type}, made with yatsude {__version__}.",
        done,
        "## In numbers\n\n```\n" + render(config, name=settings.name, dtype=settings.dtype).rstrip() + "\n```",
        _measured(figures),
        _use(config, settings),
        _sources(licences),
        _made(stages),
        _checked(check, settings),
        _limits(config),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(config: ModelConfig, settings: ExportSettings) -> str:
    """Front matter as Hugging Face reads it."""
    lines = ["---", f"license: {settings.licence}", "library_name: transformers", "pipeline_tag: text-generation"]
    lines += ["language:", *(f"- {language}" for language in settings.languages)]
    lines += ["tags:", *(["- mixture-of-experts"] if config.moe_layers else []), f"- {config.model_type}", "- yatsude"]
    return "\n".join([*lines, "---"])


def _measured(figures: Mapping[str, int | float | str]) -> str:
    if not figures:
        return ""
    rows = [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in figures.items()]
    return "\n".join(["## Measured", "", "| | |", "|---|---|", *rows])


def _use(config: ModelConfig, settings: ExportSettings) -> str:
    return f"""## Use

With transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH/TO/THIS/FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH/TO/THIS/FOLDER")
messages = [{{"role": "user", "content": "こんにちは。"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, max_new_tokens=100)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
```

With vLLM:

```sh
vllm serve PATH/TO/THIS/FOLDER --served-model-name {settings.name.split(maxsplit=1)[0]}
```
{_kernels(config)}
With yatsude:

```sh
yatsude serve PATH/TO/THIS/FOLDER
```"""


def _kernels(config: ModelConfig) -> str:
    """A warning where a model's latent is not the one that vLLM's kernels were written for."""
    latent = (config.kv_lora_rank, config.qk_rope_head_dim)
    if latent == KERNEL_LATENT or not config.kv_lora_rank:
        return ""
    return (
        f"\nMost of vLLM's kernels for latent attention take a latent of {KERNEL_LATENT[0]} and a rotary key of"
        f" {KERNEL_LATENT[1]}; this model has {latent[0]} and {latent[1]}. If vLLM refuses, use one of the others.\n"
    )


def _sources(licences: Iterable[Licence]) -> str:
    rows = [
        f"| {_cell(entry.source)} | {_cell(entry.licence)} | {_cell(entry.attribution or '–')} | {_cell(entry.url)} |"
        for entry in licences
    ]
    head = ["## Sources and licences", "", "| source | licence | credit | address |", "|---|---|---|---|"]
    where = "NOTICE repeats these credits, `bases` holds the licences of models; pass both on with the weights."
    return "\n".join([*head, *rows, "", where])


def _made(stages: Iterable[Stage]) -> str:
    """Each stage with the checksum of its manifest, so that a reader can hold folder and card together."""
    head = "| stage | when | yatsude | recipe | manifest |"
    rows = []
    for stage in stages:
        page = stage.manifest
        when, version, recipe = (page.created, page.version, page.recipe_sha256) if page else ("", "", "")
        cells = (stage.stage, when, version, recipe[:12], stage.manifest_sha256[:12])
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    if not rows:
        return ""
    where = "The manifests themselves are in the folder `provenance`."
    return "\n".join(["## How it was made", "", head, "|---|---|---|---|---|", *rows, "", where])


def _checked(check: Figures, settings: ExportSettings) -> str:
    return (
        "## Checked on export\n\n"
        f"The weights were written in {settings.dtype} and read again: {check.tensors:,} tensors compared, largest"
        f" difference {check.tensor_difference:.3g}; logits on fixed prompts differ by {check.logit_difference:.3g}"
        f" from those of the same weights in memory. Rounding to {settings.dtype} moved a logit by up to"
        f" {check.rounding_difference:.3g} (the largest is {check.largest_logit:.3g}), mostly where a token changed its"
        f" expert; the likeliest token stayed the same at {100 * check.same_choice:.1f} % of the positions.\n\n"
        f"Checksum of all tensors, however they lie in files: `{check.tensors_sha256}` (`yatsude verify` prints it)."
    )


def _limits(config: ModelConfig) -> str:
    return (
        "## Limits\n\n"
        "- It states things that are false with the same ease as things that are true; check what matters.\n"
        "- It repeats what its sources say, with their gaps and prejudices; nothing was done to make it refuse harm.\n"
        f"- A prompt and its answer together hold at most {config.context:,} tokens.\n"
        "- Figures hold for the text they were measured on and for no other."
    )


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
