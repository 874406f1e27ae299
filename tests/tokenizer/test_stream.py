from hypothesis import given
from hypothesis import strategies as st

from yatsude.spec import chat
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

BYTES = Tokenizer(train(["あ"], TokenizerSettings()))  # no merges to speak of: most characters are several tokens

END = chat.SPECIAL_TOKENS.index(chat.END)


@given(st.text())
def test_stream_joins_to_the_whole_text(text):
    ids = BYTES.encode(text)
    stream = BYTES.stream()
    assert "".join(map(stream.push, ids)) == text


@given(st.lists(st.integers(0, BYTES.vocab_size - 1)))
def test_no_ids_whatever_give_a_broken_character(ids):
    stream = BYTES.stream()
    pieces = [stream.push(token) for token in ids]
    whole = b"".join(BYTES.token_bytes(token) for token in ids if token not in BYTES.controls)
    assert "".join(pieces) == BYTES.decode(ids) == whole.decode("utf-8", "ignore")


def test_a_character_appears_with_its_last_byte():
    ids = BYTES.encode("木👋")
    stream = BYTES.stream()
    assert [stream.push(token) for token in ids] == ["", "", "木", "", "", "", "👋"]


def test_what_is_not_a_character_is_dropped():
    first, *_ = BYTES.encode("木")
    assert BYTES.decode([first, *BYTES.encode("a")]) == "a"


def test_special_tokens_are_silent_or_shown():
    assert BYTES.stream().push(END) == ""
    assert BYTES.stream(skip_special=False).push(END) == chat.END
