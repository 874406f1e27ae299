from yatsude.spec.tasks import LONGEST, SHORTEST, sentences


def test_sentences_end_at_their_marks_or_lines_and_fit():
    text = (
        "昨日は雨が降りました。短い。\n題名のように終わる行です\n" + "長" * LONGEST + "い。本当にそうなのですか？はい！"
    )
    assert sentences(text) == ["昨日は雨が降りました。", "題名のように終わる行です", "本当にそうなのですか？"]
    assert all(SHORTEST <= len(sentence) <= LONGEST for sentence in sentences(text))
    assert sentences("") == []
