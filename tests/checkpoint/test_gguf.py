"""What llama.cpp makes of our files, by the package xllamacpp: the same ids, the same tokens, the same logits."""

import http.client
import json
import random
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from yatsude.checkpoint import hf, write
from yatsude.checkpoint.gguf.families import FAMILIES
from yatsude.cli.gguf import command
from yatsude.errors import CheckpointError, MachineError
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.chat import CHAT_TEMPLATE, SPECIAL_TOKENS
from yatsude.spec.presets import preset
from yatsude.spec.rope_scaling import RopeScaling
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import PATTERNS, train

library = pytest.importorskip("gguf")
xllamacpp = pytest.importorskip("xllamacpp")
from yatsude.checkpoint.gguf import file as gguf  # noqa: E402

TEXTS = (
    "これは日本語の文章です。今日は天気が良い。東京都千代田区、2026年10月１２日。",
    "Hello world, it's 12345 o'clock; they'll see.\n\n  def f(x):\n\treturn x + 1  \r\n",
    "ｶﾞｷﾞ①㍻ 👨‍👩‍👧 🇯🇵😀 　全角　空白 \u00a0é́ がが \n \n\n",
    "''S'll 'Re <|end|> <|endoftext|>[UNUSED9] \t\t ",
)
VARIANTS = {
    "plain": {},
    "low-rank queries, tied": {"q_lora_rank": 24, "tie_word_embeddings": True},
    "two dense, two shared": {"num_hidden_layers": 4, "first_k_dense_replace": 2, "n_shared_experts": 2,
                              "routed_scaling_factor": 2.5, "norm_topk_prob": False},
    "26 layers": {"num_hidden_layers": 26},
}  # fmt: skip
NEW = 32
SEED = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small products are slower on several threads, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Llama:
    """llama.cpp with one file, in float32 throughout, asked over loopback."""

    def __init__(self, path):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.verbosity = 512, 1, 0
        params.warmup = params.fit_params = params.ui = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(params)
        self.connection = http.client.HTTPConnection(self.server.listening_address.removeprefix("http://"), timeout=60)

    def ask(self, path, **body):
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        page = json.loads(answer.read())
        self.connection.close()  # the server gives up a silent one after some seconds
        assert answer.status == 200, page
        return page

    def encode(self, text):
        return self.ask("/tokenize", content=text, add_special=True, parse_special=False)["tokens"]

    def greedy(self, prompt, count=NEW):
        page = self.ask("/completion", prompt=prompt, n_predict=count, temperature=0, return_tokens=True)
        return page["tokens"]

    def next_logprobs(self, prompt):
        """Log probability of every token after a prompt, by id; the bias makes it print, and is not in them."""
        letter = self.encode("a")[-1]
        page = self.ask("/completion", prompt=prompt, n_predict=1, n_probs=1000, logit_bias=[[letter, 1000.0]])
        return {entry["id"]: entry["logprob"] for entry in page["completion_probabilities"][0]["top_logprobs"]}


@torch.no_grad()
def greedy(logits, prompt, ends=(0, 2)):
    """Likeliest tokens until an end (left out), and how clear the least clear choice was."""
    ids, margin = list(prompt), float("inf")
    while len(ids) < len(prompt) + NEW:
        best = logits(torch.tensor([ids]))[0, -1].float().topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        if best.indices[0] in ends:
            break
        ids.append(best.indices[0].item())
    return ids[len(prompt) :], margin


def logits_of(model):
    return lambda ids: model.logits(model(ids))


def prompts(size, seed=0):
    pick = random.Random(seed)
    return [[pick.randrange(6, size) for _ in range(length)] for length in (1, 7, 30, 100)]


@pytest.fixture(scope="module")
def backend():
    return train(TEXTS * 20, TokenizerSettings(vocab_size=290)).to_str()


@pytest.fixture
def exported(build, backend, tmp_path):
    """Write a folder with a model and a trained tokenizer; the embedding has rows that no token has."""
    tokenizers = pytest.importorskip("tokenizers")

    def write(dtype=torch.float32, shard_bytes=10**9, **changes):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        model = build(**changes)
        hf.write(model, folder, dtype, shard_bytes)
        Tokenizer(tokenizers.Tokenizer.from_str(backend)).save(folder)
        return model, folder

    return write


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_float32_gives_the_same_tokens(exported, tmp_path, changes):
    model, folder = exported(**changes)
    figures = gguf.write(folder, tmp_path / "model.gguf", "f32")
    assert figures.largest_error == 0
    assert figures.parameters == sum(w.numel() for w in model.parameters()) + 8 * len(list(model.routers))
    llama = Llama(tmp_path / "model.gguf")
    full = 0
    for prompt in prompts(290, SEED):
        expected, margin = greedy(logits_of(model), prompt)
        assert margin > 1e-4, "choose a seed with clearer choices"
        assert llama.greedy(prompt)[: len(expected)] == expected
        full += len(expected) == NEW
    assert full >= 2


@pytest.mark.parametrize(("precision", "moved"), [("bf16", 0.05), ("q8_0", 0.2)])
def test_a_rounded_file_mostly_chooses_as_the_folder_does(exported, tmp_path, precision, moved):
    """The folder's own weights in float32 arithmetic are the measure; llama.cpp rounds activations, too."""
    _, folder = exported(torch.bfloat16, hidden_size=64, moe_intermediate_size=64)
    figures = gguf.write(folder, tmp_path / "model.gguf", precision)
    assert (figures.largest_error == 0) == (precision == "bf16")
    assert (figures.wide > 0) == (precision == "q8_0")
    model, llama = hf.load(folder, torch.float32), Llama(tmp_path / "model.gguf")
    pick = random.Random(1)
    same, gaps = 0, []
    for _ in range(40):
        prompt = [pick.randrange(6, 290) for _ in range(pick.randrange(1, 60))]
        with torch.no_grad():
            ours = logits_of(model)(torch.tensor([prompt]))[0, -1].log_softmax(-1)
        theirs = llama.next_logprobs(prompt)
        same += max(theirs, key=theirs.get) == ours.argmax().item()
        gaps += [abs(ours[token] - value) for token, value in theirs.items()]
    print(f"{precision}: same choice {same} of 40, median difference {torch.tensor(gaps).median():.4f}")
    assert torch.tensor(gaps).median() < moved
    assert same >= 34


LATENT = {"moe_intermediate_size": 32, "kv_lora_rank": 32, "q_lora_rank": 48, "qk_nope_head_dim": 16,
          "qk_rope_head_dim": 16, "v_head_dim": 24, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 1,
          "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
HEADS = {"num_key_value_heads": 2, "head_dim": 24, "sliding_window": None}
FOREIGN = {
    "groups": ("deepseek_v3", {**LATENT, "n_group": 4, "topk_group": 2}),
    "yarn": ("deepseek_v3", {**LATENT, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}}),
    "llama": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "mistral": ("mistral", HEADS),
    "mixtral": ("mixtral", {**HEADS, "num_local_experts": 4}),
    "qwen3": ("qwen3", {**HEADS, "rope_parameters": YARN}),
    "qwen3_moe": ("qwen3_moe", {**HEADS, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                                "norm_topk_prob": True}),
}  # fmt: skip


def foreign(kind, changes, folder):
    """A model of transformers with clear opinions, in a folder."""
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
             "num_attention_heads": 4, "max_position_embeddings": 256}  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **shape, **changes, bos_token_id=0, eos_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            wide = weight.shape[0] == shape["vocab_size"]
            weight.normal_(float(weight.ndim == 1), 0.3 if wide else 0.12, generator=generator)
        for name, bias in model.named_buffers():
            if name.endswith("correction_bias"):
                bias.normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("kind", "changes"), FOREIGN.values(), ids=FOREIGN)
def test_models_of_transformers_give_the_same_tokens_and_probabilities(backend, tmp_path, kind, changes):
    tokenizers = pytest.importorskip("tokenizers")
    model = foreign(kind, changes, tmp_path / "model")
    Tokenizer(tokenizers.Tokenizer.from_str(backend)).save(tmp_path / "model")
    gguf.write(tmp_path / "model", tmp_path / "model.gguf", "f32")
    llama = Llama(tmp_path / "model.gguf")
    for prompt in prompts(290):
        expected, margin = greedy(lambda ids: model(ids).logits, prompt)
        assert margin > 1e-4, "choose a seed with clearer choices"
        assert llama.greedy(prompt)[: len(expected)] == expected
        with torch.no_grad():
            ours = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        theirs = llama.next_logprobs(prompt)
        assert len(theirs) == len(ours)
        assert max(abs(ours[token] - value) for token, value in theirs.items()) < 1e-4


def test_every_family_is_tried_above():
    assert {kind for kind, _ in FOREIGN.values()} == set(FAMILIES)


BLOCKS = st.sampled_from(
    [(0x20, 0x7E), (0x20, 0x2F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x600, 0x6FF), (0x2000, 0x206F),
     (0x20A0, 0x20BF), (0x2190, 0x27BF), (0x3000, 0x30FF), (0x3041, 0x3096), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
     (0xE000, 0xE0FF), (0xFF01, 0xFFEE), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x20000, 0x2A6DF)]
).flatmap(lambda ends: st.integers(*ends).map(chr))  # fmt: skip
STRANGE = st.lists(BLOCKS | st.sampled_from([*" \n\r\t\u3000'", "\r\n", "'s", "'LL", "  ", "<|end|>"]), max_size=40)


@pytest.fixture(scope="module", params=["gpt-4", "deepseek-v3", "gpt-2", "qwen2"])
def encoders(request, tmp_path_factory):
    """A tokenizer whose tokens are pairs of bytes, so that another cut gives other ids; and llama.cpp with it."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(first, second) for first in letters for second in letters]
    pairs = random.Random(0).sample(pairs, 16384)
    vocabulary = [*SPECIAL_TOKENS, *letters, *(a + b for a, b in pairs)]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=pairs)
    )
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    backend.pre_tokenizer = pre_tokenizer(request.param)
    folder = tmp_path_factory.mktemp("encoders")
    Tokenizer(backend).save(folder)
    model = Transformer(preset("pico", vocab_size=len(vocabulary)))
    initialise(model, 0)
    hf.write(model, folder, torch.bfloat16, 10**9)
    gguf.write(folder, folder / "model.gguf")
    return Tokenizer(backend), Llama(folder / "model.gguf")


def pre_tokenizer(name):
    from tokenizers import Regex, pre_tokenizers

    if name == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    patterns = PATTERNS.get(name) or (PATTERNS["gpt-4"][0].replace("{1,3}", ""),)
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def test_ids_are_the_same(encoders):
    tokenizer, llama = encoders
    for text in (*TEXTS, "".join(TEXTS)):
        assert llama.encode(text) == tokenizer.encode(text)


def test_a_conversation_gets_the_same_ids(encoders):
    tokenizer, llama = encoders
    messages = [{"role": "user", "content": "こんにちは"}, {"role": "assistant", "content": "はい。"}]
    messages.append({"role": "user", "content": " it's 3 o'clock\n"})
    prompt = llama.ask("/apply-template", messages=messages)["prompt"]
    ids = llama.ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    assert ids == tokenizer.encode_chat(messages)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=STRANGE)
def test_ids_of_strange_texts_are_the_same(encoders, pieces):
    tokenizer, llama = encoders
    text = "".join(pieces)
    assert llama.encode(text) == tokenizer.encode(text)


def test_the_file_says_what_the_folder_says(exported, tmp_path):
    _, folder = exported()
    (folder / "generation_config.json").write_text('{"bos_token_id": 0, "eos_token_id": [0, 2], "pad_token_id": 1}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    gguf.write(folder, tmp_path / "model.gguf", "bf16")
    reader = library.GGUFReader(tmp_path / "model.gguf")
    values = {key: reader.get_field(f"tokenizer.ggml.{key}").contents() for key in ("pre", "tokens", "token_type")}
    assert values["pre"] == "llama-bpe"
    assert values["tokens"][:6] == list(SPECIAL_TOKENS)
    assert values["tokens"][290:] == [f"[UNUSED{number}]" for number in range(290, 300)]
    assert values["token_type"] == [3] * 6 + [1] * 284 + [5] * 10
    ids = {
        key: reader.get_field(f"tokenizer.ggml.{key}_token_id").contents() for key in ("bos", "eos", "eot", "padding")
    }
    assert ids == {"bos": 0, "eos": 0, "eot": 2, "padding": 1}
    assert reader.get_field("tokenizer.ggml.add_bos_token").contents() is False
    assert reader.get_field("tokenizer.chat_template").contents() == CHAT_TEMPLATE
    assert reader.get_field("general.license").contents() == "apache-2.0"
    assert reader.get_field("general.file_type").contents() == 32


def test_shards_make_the_same_file(exported, tmp_path):
    model, folder = exported()
    gguf.write(folder, tmp_path / "whole" / "model.gguf", "q8_0")
    (folder / "model.safetensors").unlink()
    hf.write(model, folder, torch.float32, 30_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    gguf.write(folder, tmp_path / "parts" / "model.gguf", "q8_0")
    assert (tmp_path / "whole" / "model.gguf").read_bytes() == (tmp_path / "parts" / "model.gguf").read_bytes()


def test_layers_that_predict_ahead_are_left_out_and_said(exported, tmp_path, capsys):
    figures = gguf.write(exported()[1], tmp_path / "without.gguf", "f32")
    _, folder = exported(num_nextn_predict_layers=1)
    assert gguf.write(folder, tmp_path / "with.gguf", "f32").sources == figures.sources
    assert "40 tensors of multi-token prediction are left out" in capsys.readouterr().err


def test_a_folder_of_fp8_goes_in_as_numbers(exported, tmp_path):
    model, folder = exported()
    (folder / "model.safetensors").unlink()
    write.write(hf.InMemory(model), folder, write.Precision(torch.float8_e4m3fn, (16, 16)), 10**9)
    assert gguf.write(folder, tmp_path / "model.gguf", "f32").largest_error == 0


def changed(folder, name="config.json", **values):
    """Change fields of a page of JSON."""
    page = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**page, **values}))


BAD_CONFIGS = {
    "model_type = 'gpt2'": {"model_type": "gpt2"},
    "scoring_func = 'softmax'": {"scoring_func": "softmax"},
    "quant_method = 'gptq'": {"quantization_config": {"quant_method": "gptq"}},
    "mscale": {"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64}},
    "missing model.layers.3.": {"num_hidden_layers": 4},
}


@pytest.mark.parametrize(("said", "values"), BAD_CONFIGS.items(), ids=BAD_CONFIGS)
def test_a_model_that_llama_cpp_would_read_otherwise_is_refused(exported, tmp_path, said, values):
    _, folder = exported()
    changed(folder, **values)
    with pytest.raises(CheckpointError, match=said):
        gguf.write(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".*.part"))


YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
BAD_MODELS = {
    "26 layers with q_lora_rank = 24": {"num_hidden_layers": 26, "q_lora_rank": 24},
    "n_shared_experts = 0": {"n_shared_experts": 0},
    "rope_interleave = False": {"rope_interleave": False},
    "rms_norm_eps = 1e-05": {"rms_norm_eps": 1e-5},
    "beta_fast = 16": {"rope_scaling": RopeScaling(**YARN, beta_fast=16.0)},
    "truncate = False": {"rope_scaling": RopeScaling(**YARN, truncate=False)},
    "no attention_factor": {"rope_scaling": RopeScaling(**YARN, attention_factor=2.0)},
}


@pytest.mark.parametrize(("said", "changes"), BAD_MODELS.items(), ids=BAD_MODELS)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(exported, tmp_path, said, changes):
    _, folder = exported(**changes)
    with pytest.raises(CheckpointError, match=said):
        gguf.write(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".*.part"))


def test_weights_that_are_missing_unknown_or_quantised_are_named(exported, tmp_path):
    _, folder = exported()
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.5.up_proj.weight"
    for wrong, said in (
        ({key: value for key, value in tensors.items() if key != name}, f"missing {name}; unknown none"),
        ({**tensors, "model.extra.weight": torch.ones(2)}, "missing none; unknown model.extra.weight"),
        ({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, f"{name} is float8_e4m3fn"),
        ({**tensors, name: tensors[name] * float("nan")}, "not finite"),
        ({**tensors, name: tensors[name][:3].clone()}, "has shape"),
    ):
        save_file(wrong, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=said):
            gguf.write(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_full_disk_is_said(exported, tmp_path, monkeypatch):
    """numpy tells how many bytes it wrote, and not why no more."""
    _, folder = exported()

    def full(*args):
        raise OSError("1572864 requested and 344864 written")

    monkeypatch.setattr(library.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(MachineError, match="disk full while writing"):
        gguf.write(folder, tmp_path / "model.gguf")


def test_one_wrong_byte_is_found_and_no_file_is_left(exported, tmp_path, monkeypatch):
    _, folder = exported()
    path = tmp_path / "model.gguf"
    write_tensor_data = library.GGUFWriter.write_tensor_data
    for precision in ("f32", "bf16", "q8_0"):

        def flip(writer, data):
            data[-1] ^= 0x40
            write_tensor_data(writer, data)

        monkeypatch.setattr(library.GGUFWriter, "write_tensor_data", flip)
        with pytest.raises(CheckpointError, match="is not in the file as in"):
            gguf.write(folder, path, precision)
        assert not path.exists()


def tokenizer_changes():
    split = {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated", "invert": False}
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "patterns that llama.cpp does not know": {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, last]}
        },
        "the normalizer Lowercase": {"normalizer": {"type": "Lowercase"}},
        "adds tokens by RobertaProcessing": {"post_processor": {"type": "RobertaProcessing"}},
        "only plain byte-level BPE": {"model": {"type": "Unigram", "vocab": {"a": 0}, "merges": []}},
        "has 301 tokens, config.json 300": {"added_tokens": [{"id": 300, "content": "x", "special": False}]},
        "takes spaces beside it": {"added_tokens": [{"id": 0, "content": "x", "special": True, "lstrip": True}]},
        "is damaged": {"model": {"type": "BPE"}},
    }


@pytest.mark.parametrize(("said", "values"), tokenizer_changes().items(), ids=tokenizer_changes())
def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused(exported, tmp_path, said, values):
    _, folder = exported()
    changed(folder, "tokenizer.json", **values)
    with pytest.raises(CheckpointError, match=said):
        gguf.write(folder, tmp_path / "model.gguf")


def test_a_text_gets_a_token_in_front_where_the_tokenizer_says_so(exported, tmp_path):
    _, folder = exported()
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}  # fmt: skip
    changed(folder, "tokenizer.json", post_processor=template)
    gguf.write(folder, tmp_path / "model.gguf")
    llama, tokenizer = Llama(tmp_path / "model.gguf"), Tokenizer.load(folder)
    assert llama.encode("今日は") == [0, *tokenizer.encode("今日は")]


def test_the_verb_says_what_it_wrote(exported, tmp_path, capsys):
    _, folder = exported()
    (folder / "NOTICE").write_text("credits")
    with pytest.raises(CheckpointError, match="has no LICENSE file"):
        command(folder, tmp_path / "model.gguf", "q8_0")
    (folder / "LICENSE").write_text("Anybody may.")
    command(folder, tmp_path / "model.gguf", "q8_0")
    said = capsys.readouterr().err
    assert "verified: 46 tensors made of 85" in said
    assert "rows that do not divide by 32" in said
    assert "NOTICE holds the credits" in said.replace("\n", "")
    with pytest.raises(MachineError, match=r"model\.gguf exists"):
        command(folder, tmp_path / "model.gguf")
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"no config\.json in"):
        command(folder, tmp_path / "other.gguf")
