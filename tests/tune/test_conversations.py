import json

import pytest

from yatsude.errors import DataError
from yatsude.spec.tasks import LONGEST, SHORTEST, TASKS
from yatsude.tune.conversations import conversations, state

TRAIN = [(f"東京駅の前で、{n}番の友だちを待っています。", f"I wait for friend {n} at Tokyo.") for n in range(80)]
ASIDE = [(f"大阪城の下を、{n}羽の鳥が飛んでいきました。", f"Bird {n} flew below Osaka castle.") for n in range(40)]


@pytest.fixture
def data(tmp_path, write_data):
    return write_data(tmp_path / "data", TRAIN, ASIDE)


def words(talks):
    return "\n".join(message["content"] for talk in talks for message in talk)


def turns(talks):
    """Question and answer of every turn."""
    return [
        (question["content"], answer["content"])
        for talk in talks
        for question, answer in zip(talk[::2], talk[1::2], strict=True)
    ]


def test_tasks_come_from_their_own_split_alone(data):
    train, aside = (conversations(("pairs",), data, split, 1000) for split in ("train", "validation"))
    assert len(turns(train)) == 80
    assert len(turns(aside)) == 40
    assert "大阪城" not in words(train)
    assert "Osaka" not in words(train)
    assert "東京駅" not in words(aside)
    assert "Tokyo" not in words(aside)


def test_every_task_is_made_in_the_words_of_the_page(data):
    talks = conversations(("pairs",), data, "train", 1000)
    japanese, english = dict(TRAIN), {e: j for j, e in TRAIN}
    kinds = dict.fromkeys((*TASKS, "plain"), 0)
    for question, answer in turns(talks):
        instruction, _, rest = question.rpartition("\n")
        kind = next((name for name, task in TASKS.items() if task.instruction == instruction), "plain")
        kinds[kind] += 1
        if kind == "to_japanese":
            assert english[rest] == answer
        elif kind == "to_english":
            assert japanese[rest] == answer
        else:
            assert rest + answer in japanese
    assert all(kinds[name] for name in ("to_japanese", "to_english", "continue", "plain"))


def test_sentences_of_one_translation_rephrase_each_other(tmp_path, write_data):
    rows = [("駅の前で友だちを待っています。", "I wait."), ("駅前で友人が来るのを待つ。", "I wait.")]
    data = write_data(tmp_path / "data", rows, ASIDE)
    asked = [turn for turn in turns(conversations(("pairs",), data, "train", 9)) if "言い換え" in turn[0]]
    assert asked == [(TASKS["rephrase"].prompt(rows[0][0]), rows[1][0])]


def test_too_short_and_too_long_sentences_are_left_out_and_the_limit_holds(tmp_path, write_data):
    rows = [("あ、" * (SHORTEST // 2 - 1), "Short."), ("は、" * LONGEST, "Long."), *TRAIN]
    data = write_data(tmp_path / "data", rows, ASIDE)
    talks = conversations(("pairs",), data, "train", 7)
    assert len(turns(talks)) == 7
    assert "Short." not in words(talks)
    assert "Long." not in words(talks)


def test_without_translations_texts_are_continued(tmp_path, write_data):
    data = write_data(tmp_path / "data", [(text, None) for text, _ in TRAIN], ASIDE)
    talks = conversations(("pairs",), data, "train", 1000)
    assert len(turns(talks)) == 80
    assert all(question.rpartition("\n")[2] + answer in dict(TRAIN) for question, answer in turns(talks))


def test_conversations_have_one_to_three_turns(data):
    talks = conversations(("pairs",), data, "train", 1000)
    assert {len(talk) // 2 for talk in talks} == {1, 2, 3}
    assert all([message["role"] for message in talk] == ["user", "assistant"] * (len(talk) // 2) for talk in talks)


def talk(number):
    return [{"role": "user", "content": f"質問{number}"}, {"role": "assistant", "content": f"答え{number}"}]


def write_talks(path, count):
    lines = [json.dumps({"messages": talk(n)}, ensure_ascii=False) for n in range(count)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return f"file:{path}"


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_own_conversations_are_split_and_none_is_lost_or_in_both(tmp_path, count):
    source = write_talks(tmp_path / "own.jsonl", count)
    train, aside = (conversations((source,), tmp_path, split, 1) for split in ("train", "validation"))
    assert train
    assert aside
    assert len(aside) <= max(1, count // 25)
    assert sorted(map(str, train + aside)) == sorted(str(talk(n)) for n in range(count))


def test_a_single_conversation_is_learned(tmp_path):
    source = write_talks(tmp_path / "own.jsonl", 1)
    assert conversations((source,), tmp_path, "train", 1) == [talk(0)]
    assert conversations((source,), tmp_path, "validation", 1) == [talk(0)]


def test_several_sources_are_joined(data, tmp_path):
    source = write_talks(tmp_path / "own.jsonl", 100)
    talks = conversations(("pairs", source), data, "train", 1000)
    assert "東京駅" in words(talks)
    assert "質問" in words(talks)


GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
BAD = {
    "no JSON": ("{", "is no conversation"),
    "a list": ("[1]", "is no conversation"),
    "a number": ("7", "is no conversation"),
    "null": ("null", "is no conversation"),
    "no messages": ('{"text": "a"}', "is no conversation"),
    "messages is no list": ('{"messages": 3}', "is no conversation"),
    "messages is null": ('{"messages": null}', "is no conversation"),
    "messages is text": ('{"messages": "abc"}', "is no conversation"),
    "a message is no object": ('{"messages": ["q"]}', "is no conversation"),
    "no content": ('{"messages": [{"role": "assistant"}]}', "is no conversation"),
    "no role": ('{"messages": [{"content": "a"}]}', "is no conversation"),
    "content is null": ('{"messages": [{"role": "assistant", "content": null}]}', "is no conversation"),
    "content is a list": ('{"messages": [{"role": "assistant", "content": ["a"]}]}', "is no conversation"),
    "unknown role": ('{"messages": [{"role": "bot", "content": "a"}]}', "has role 'bot'"),
    "no answer": ('{"messages": [{"role": "user", "content": "q"}]}', "has no message of the assistant"),
    "empty": ('{"messages": []}', "has no message of the assistant"),
    "half a surrogate pair": (
        '{"messages": [{"role": "assistant", "content": "\\ud83d"}]}', "half of a surrogate pair",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "words"), BAD.values(), ids=BAD)
def test_a_bad_line_is_one_line_that_names_file_and_place(tmp_path, line, words):
    path = tmp_path / "own.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        conversations((f"file:{path}",), tmp_path, "train", 10)
    assert f"{path} line 3" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"messages": []}\n\x83\x65\x83X\x83g', "is not UTF-8"),
        (b"", "no conversations in"),
        (b"\n\n", "no conversations in"),
        (None, "no conversations at"),
    ],
    ids=["not UTF-8", "empty", "empty lines", "missing"],
)
def test_a_bad_file_is_one_line(tmp_path, content, words):
    path = tmp_path / "own.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        conversations((f"file:{path}",), tmp_path, "train", 10)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_at_home_with_a_byte_order_mark_is_read_and_its_state_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "own.jsonl"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert len(conversations(("file:~/own.jsonl",), tmp_path, "train", 10)) == 1
    assert state(("pairs", "file:~/own.jsonl")) == [(str(path), path.stat().st_size, path.stat().st_mtime_ns)]
    with pytest.raises(DataError, match=r"no conversations at .*absent; check the path in tune\.sources"):
        state(("file:~/absent",))


def test_a_folder_without_data_says_which_stage_writes_it(tmp_path):
    with pytest.raises(DataError, match="yatsude data"):
        conversations(("pairs",), tmp_path, "train", 10)
