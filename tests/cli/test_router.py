"""The board of any model over any texts."""

import json


def texts(folder, corpus):
    """Three kinds of text: sentences as JSON lines, a text file, and a program."""
    (folder / "manual").mkdir()
    (folder / "manual" / "one.txt").write_text("オプションを指定すると、結果を表示する。\n" * 300, encoding="utf-8")
    (folder / "code.py").write_text("for line in lines:\n    print(line, '行')\n" * 200, encoding="utf-8")
    return [corpus(folder / "talk.jsonl", 100), folder / "manual", folder / "code.py"]


def test_the_board_over_files_of_any_kind(yatsude, home, tmp_path, write_corpus):
    words = [word for path in texts(tmp_path, write_corpus) for word in ("--text", path)]
    few = (
        "--set",
        "evaluate.window=64",
        "--set",
        "evaluate.router_tokens=2048",
        "--set",
        "evaluate.router_shuffles=39",
    )
    code, out, err = yatsude("router", "--run", home, *words, *few, "--out", tmp_path / "out")
    assert code == 0, err
    assert "Units of text: code 11, manual 11, talk 11." in out
    lines = [json.loads(line) for line in (tmp_path / "out" / "router.jsonl").read_text("utf-8").splitlines()]
    assert {line["text"] for line in lines if line["figure"] == "load"} >= {"all", "talk", "manual", "code"}
    assert "<svg" in (tmp_path / "out" / "router.html").read_text("utf-8")


def test_what_cannot_be_read_is_one_line(fails, home, tmp_path):
    assert "give --text FILE" in fails("router", "--run", home)
    assert "absent.txt; check the path after --text" in fails(
        "router", "--run", home, "--text", tmp_path / "absent.txt"
    )
    for name, content in (("a.md", b""), ("b.md", "日本".encode("cp932"))):
        (tmp_path / name).write_bytes(content)
    assert "holds no text" in fails("router", "--run", home, "--text", tmp_path / "a.md")
    assert "not UTF-8" in fails("router", "--run", home, "--text", tmp_path / "b.md")
    (tmp_path / "a.txt").write_text("雨。")
    twice = fails("router", "--run", home, "--text", tmp_path / "a.md", "--text", tmp_path / "a.txt")
    assert "both of the kind 'a'" in twice
