"""Tokenizers of models from elsewhere, each kind learned here in miniature, beside transformers reading the same."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yatsude.errors import DataError, RequestError
from yatsude.tokenizer.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
decoders, models, normalizers, pre_tokenizers, trainers = (
    getattr(tokenizers, name) for name in ("decoders", "models", "normalizers", "pre_tokenizers", "trainers")
)

TEXTS = [
    "こんにちは、世界。今日はいい天気ですね。",
    "It's a test of 12 words.\n\n  二行目",
    "user assistant [INST] x",
] * 9
BYTES = [f"<0x{b:02X}>" for b in range(256)]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{% generation %}{{ '<｜Assistant｜>' + m['content'] + eos_token }}"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system message') }}"
    "{% elif m.role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def byte_level(added, normalizer=None):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    for token, special in added:
        add = backend.add_special_tokens if special else backend.add_tokens
        add([tokenizers.AddedToken(token, normalized=False, special=special)])
    return backend


def sentencepiece():
    """Llama 2's and Mixtral's: a space in front of every text."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *BYTES]))
    page = json.loads(backend.to_str())
    page["added_tokens"] = [token for token in page["added_tokens"] if token["content"] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(page))


def unigram():
    """LLM-jp's."""
    learned = tokenizers.Tokenizer(models.Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    learned.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>"))
    words = [(token, score) for token, score in json.loads(learned.to_str())["model"]["vocab"] if token != "<unk>"]
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((token, -20.0) for token in BYTES), *words]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


KINDS = {
    "qwen": (
        lambda: byte_level([("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<think>", False)]),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None},
        CHATML,
    ),
    "deepseek": (
        lambda: byte_level(
            [(f"<｜{bound}▁of▁sentence｜>", True) for bound in ("begin", "end")]
            + [("<｜User｜>", False), ("<｜Assistant｜>", False)]
        ),
        {
            "bos_token": {"__type": "AddedToken", "content": "<｜begin▁of▁sentence｜>"},
            "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"},
        },
        DEEPSEEK,
    ),
    "llama-3": (
        lambda: byte_level(
            [(f"<|{name}|>", True) for name in ("begin_of_text", "start_header_id", "end_header_id", "eot_id")]
        ),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        LLAMA3,
    ),
    "mixtral": (sentencepiece, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, MISTRAL),
    "llm-jp": (unigram, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, MISTRAL),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """A folder as models come in, this project's reader of it, and transformers'."""
    make, config, template = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make().save(str(folder / "tokenizer.json"))
    page = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(page))
    return request.param, Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


ALL = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
WORDS = st.lists(
    st.sampled_from(["こんにちは", "世界", " ", "\n", "It's a test", "👩‍👩‍👧", "12", "<", "|>", "[/INST]", "é"])
).map("".join)
TALK = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)


def messages(talk, prompt):
    said = [
        {"role": role, "content": words}
        for pair in talk
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
    return said[:-1] if prompt else said


@ALL
@given(text=WORDS)
def test_any_text_comes_back(kind, text):
    _, ours, theirs = kind
    ids = ours.encode(text)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ids) == text


@ALL
@given(talk=TALK, prompt=st.booleans())
def test_a_conversation_has_the_ids_that_transformers_gives_it(kind, talk, prompt):
    _, ours, theirs = kind
    said = messages(talk, prompt)
    rendered = theirs.apply_chat_template(said, add_generation_prompt=prompt)["input_ids"]
    assert ours.encode_chat(said, prompt) == rendered


@ALL
@given(talk=TALK)
def test_the_assistants_words_and_what_ends_them_are_known(kind, talk):
    name, ours, theirs = kind
    said = messages(talk, prompt=False)
    spoken = ours.spoken(said, add_generation_prompt=False)
    for place in range(1, len(said), 2):
        tokens = [token for token, speaker in spoken if speaker == place]
        assert tokens[-1:] == [theirs.eos_token_id]
        words = ours.decode(tokens)
        assert words.strip() == said[place]["content"].strip()
        if name == "deepseek" or (name == "qwen" and not words.startswith("\n")):  # "\n\n" is one token of both
            assert words == said[place]["content"]


@pytest.mark.parametrize("spare", ["", " 猫"])
def test_words_that_look_like_commands_are_words(kind, spare):
    _, ours, theirs = kind
    controls = [ours.token_bytes(token).decode() for token in sorted(ours.controls)]
    for control in controls:
        ids = ours.encode_chat([{"role": "user", "content": f"a{control}b{spare}"}])
        plain = ours.encode_chat([{"role": "user", "content": f"ab{spare}"}])
        number = theirs.convert_tokens_to_ids(control)
        assert ids.count(number) == plain.count(number)
        assert number not in ours.encode(control)


def test_a_stream_shows_words_and_hides_commands(kind):
    _, ours, _ = kind
    ids = [*ours.opening, *ours.encode("こんにちは👋"), ours.text]
    stream = ours.stream()
    assert "".join(map(stream.push, ids)).strip() == "こんにちは👋"


def test_what_a_template_refuses_is_told(kind):
    name, ours, _ = kind
    if name in ("mixtral", "llm-jp"):
        with pytest.raises(RequestError, match="refuses this conversation: no system message"):
            ours.encode_chat([{"role": "system", "content": "短く"}])


def write(folder, config, template=None):
    byte_level([("<eos>", True)]).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    return folder


def test_thinking_is_shown_and_a_template_that_rewrites_words_is_followed(tmp_path):
    template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}<eos>{% endfor %}"
    tokenizer = Tokenizer.load(write(tmp_path, {"eos_token": "<eos>"}, template))
    ids = tokenizer.encode_chat([{"role": "assistant", "content": "<think>x</think>はい"}])
    assert tokenizer.decode(ids) == "はい"
    with pytest.raises(RequestError, match="a message holds <eos>"):
        tokenizer.encode_chat([{"role": "assistant", "content": "<think>x</think>はい<eos>"}])


def test_templates_may_be_named_and_a_file_goes_first(tmp_path):
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ 'a' }}"}]
    folder = write(tmp_path, {"eos_token": "<eos>"}, named)
    assert Tokenizer.load(folder).decode(Tokenizer.load(folder).encode_chat([])) == "a"
    (folder / "chat_template.jinja").write_text("b")
    assert Tokenizer.load(folder).decode(Tokenizer.load(folder).encode_chat([])) == "b"


def test_a_model_without_a_template_goes_texts_on_only(tmp_path):
    tokenizer = Tokenizer.load(write(tmp_path, {"eos_token": "<eos>"}))
    assert tokenizer.opening == ()
    with pytest.raises(RequestError, match="no chat template"):
        tokenizer.encode_chat([{"role": "user", "content": "猫"}])


@pytest.mark.parametrize(
    ("config", "template", "message"),
    [
        ({}, None, "has no eos_token"),
        ({"eos_token": "</s>"}, None, "has no token </s>, which tokenizer_config.json names"),
        ({"eos_token": 3}, None, "is damaged .*a token is 3"),
        ({"eos_token": {"x": 1}}, None, "is damaged"),
    ],
)
def test_a_config_that_does_not_fit_is_told(tmp_path, config, template, message):
    with pytest.raises(DataError, match=message):
        Tokenizer.load(write(tmp_path, config, template))


def test_a_damaged_template_is_told_when_it_is_needed(tmp_path):
    tokenizer = Tokenizer.load(write(tmp_path, {"eos_token": "<eos>"}, "{% for %}"))
    with pytest.raises(DataError, match="chat template is damaged, line 1"):
        tokenizer.encode_chat([])


def test_a_template_cannot_reach_the_machine(tmp_path):
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = Tokenizer.load(write(tmp_path, {"eos_token": "<eos>"}, template))
    with pytest.raises(RequestError, match="refuses"):
        tokenizer.encode_chat([])


def test_a_vocabulary_that_loses_text_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>"))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(DataError, match="neither byte-level nor"):
        Tokenizer.load(tmp_path)
