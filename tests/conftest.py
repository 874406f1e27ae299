"""Text made up on the spot, for tests that walk more than one room."""

import json
import random

import pytest

TIMES = {"朝早く": "early", "昼過ぎに": "after noon", "夕方": "in the evening", "真夜中に": "at midnight"}
DAYS = {"昨日": "yesterday", "日曜日": "on Sunday", "先週": "last week", "正月": "at New Year", "夏休み": "in summer"}
FAMILIES = {"田中": "Tanaka", "鈴木": "Suzuki", "小林": "Kobayashi", "高橋": "Takahashi", "渡辺": "Watanabe"}
TITLES = {"さん": "", "先生": "the teacher", "医師": "the doctor", "くん": "the boy", "夫妻": "and his wife"}
TOWNS = {"札幌": "Sapporo", "京都": "Kyoto", "那覇": "Naha", "仙台": "Sendai", "神戸": "Kobe", "松山": "Matsuyama"}
SPOTS = {"駅前": "station", "図書館": "library", "公園": "park", "港": "harbour", "市場": "market", "学校": "school"}
LOOKS = {"赤い": "a red", "古びた": "an old", "珍しい": "a rare", "重たい": "a heavy", "小さな": "a small"}
THINGS = {"傘": "umbrella", "時計": "clock", "りんご": "apple", "手紙": "letter", "太鼓": "drum", "地図": "map"}
DEEDS = {"買った": "bought", "なくした": "lost", "見つけた": "found", "描いた": "drew", "友だちに渡した": "gave away"}
ENDS = {"。": ".", "そうです。": ", they say.", "らしい。": ", it seems.", "と聞いた。": ", I heard.", "のだ。": "."}


def make_sentences(count, seed=0):
    """Pairs of a Japanese sentence and its English translation, all different and few of them alike."""
    pick = random.Random(seed)
    slots = (TIMES, DAYS, FAMILIES, TITLES, TOWNS, SPOTS, LOOKS, THINGS, DEEDS, ENDS)
    made = {}
    while len(made) < count:
        (t, te), (d, de), (f, fe), (i, ie), (o, oe), (s, se), (k, ke), (h, he), (v, ve), (e, ee) = (
            pick.choice(list(slot.items())) for slot in slots
        )
        english = f"{fe} {ie}".strip() + f" {ve} {ke} {he} {de}, {te}, at the {se} of {oe}{ee}"
        made[f"{d}の{t}、{f}{i}は{o}の{s}で{k}{h}を{v}{e}"] = english
    return list(made.items())


@pytest.fixture(scope="session")
def write_corpus():
    """Write sentences as a JSON lines file that `file:` sources read."""

    def write(path, count, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": t, "english": e}, ensure_ascii=False) for t, e in make_sentences(count, seed)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
