"""The page of one evaluation: `report.html`, with every picture inside."""

from collections.abc import Sequence

from yatsude.evaluate import router_page
from yatsude.evaluate.results import Chat, Curve, Quality, Results, total
from yatsude.evaluate.words import PARTS, answer_verdict, chat_verdict, crossing_text, kind_name, quality_verdict
from yatsude.report.page import Page
from yatsude.report.pictures import bars, lines
from yatsude.spec.tasks import TASKS

__all__ = ["page"]

MODEL = "このモデル model"
HEADROOM = 0.6
"""Bits per character shown above the worst line: the first minutes of a curve lie far outside."""
SHOWN = 90
"""Characters of an answer that the table shows."""
RESIDENCE = (
    "専門家の混合（MoE）が節約するのは計算と読み出しであって、置き場所ではありません。"
    "次のトークンがどの専門家を選ぶか分からないので、すべてがメモリに載っている必要があります。",
    "A mixture saves arithmetic and reading, not residence: any expert may be next, so all of them lie in memory.",
)


def page(results: Results) -> Page:
    """Lay the results out; nothing is measured here."""
    sheet = Page("八手 評価報告 · yatsude evaluation", lead=_lead(results))
    _headline(sheet, results)
    _quality(sheet, results.quality)
    if results.training:
        _training(sheet, results.training, results.quality)
    if results.tuning:
        _tuning(sheet, results.tuning)
    router_page.section(sheet, results.experts)
    _samples(sheet, results)
    if results.chat:
        _chat(sheet, results.chat)
    _model(sheet, results)
    _text(sheet, results)
    sheet.section("環境 · Machine and versions")
    sheet.table(["項目", "値"], list(results.machine.items()))
    return sheet


def _lead(results: Results) -> str:
    size = _millions(results.parameters["total"])
    return f"{results.machine['日時 date']} · {size} パラメータ parameters · {results.machine['CPU']}"


def _headline(sheet: Page, results: Results) -> None:
    figures: dict[str, object] = {
        "文字あたりのビット数 bits per character": f"{total(results.quality.model.values()).per_character:.3f}",
        **{f"{n.order}-gram": f"{total(n.kinds.values()).per_character:.3f}" for n in results.quality.ngrams},
        "全パラメータ total": _millions(results.parameters["total"]),
        "1 トークンに使う active": _millions(results.parameters["active"]),
    }
    if results.chat:
        good = sum(results.chat.passed.values())
        figures["対話の試験 chat bars"] = f"{good} / {len(results.chat.passed)}"
    sheet.figures(figures)
    _both(sheet, quality_verdict(results.quality))
    if results.training and results.training.crossings:
        found = "、".join(f"{c.order}-gram: {crossing_text(c)}" for c in results.training.crossings)
        sheet.text(f"学習中に各 n-gram の線を越えた時刻 · minute at which training crossed each line — {found}")
    if results.chat:
        _both(sheet, chat_verdict(results.chat))


def _quality(sheet: Page, quality: Quality) -> None:
    sheet.section("文章を予測する力 · Bits per character")
    everything = {f"{n.order}-gram": total(n.kinds.values()).per_character for n in quality.ngrams}
    everything[MODEL] = total(quality.model.values()).per_character
    sheet.picture(
        bars(everything, emphasis=[MODEL]),
        "学習に使っていない文章 1 文字あたりのビット数。短いほど良い。n-gram は同じ学習用の文章から作った、"
        "割引を調整した Kneser-Ney 平滑化。どちらも文章の終わりの予測を含む。"
        " Held-out text, shorter is better; n-grams learnt from the same text, ends of texts counted in all.",
    )
    rows: list[list[object]] = []
    for kind, mine in sorted(quality.model.items(), key=lambda item: -item[1].characters):
        them = [n.kinds[kind].per_character for n in quality.ngrams]
        rows.append([kind_name(kind), mine.characters, *them, mine.per_character])
    whole = total(quality.model.values())
    them = [total(n.kinds.values()).per_character for n in quality.ngrams]
    rows.append(["全体 all", whole.characters, *them, whole.per_character])
    head = ["文章の種類 kind", "文字数 characters", *(f"{n.order}-gram" for n in quality.ngrams), MODEL]
    sheet.table(head, rows, f"{quality.documents:,} 文書 documents")


def _training(sheet: Page, curve: Curve, quality: Quality) -> None:
    sheet.section("学習の歩み · Training")
    levels = {f"{c.order}-gram": c.level for c in curve.crossings}
    if len(curve.scores) > 1:
        low, high = min([*curve.scores, *levels.values()]), max([*levels.values(), curve.scores[-1]])
        sheet.picture(
            lines(
                {"モデル model": (curve.score_minutes, curve.scores)},
                x_label="分 minutes",
                y_label="ビット / 文字 bits per character",
                levels=levels,
                y_range=(low - 0.1, min(high + HEADROOM, max(high, *curve.scores) + 0.1)),
            ),
            "学習中に検証用の文書で測った値。破線は同じ文書での n-gram、輪は曲線がその線に達した時刻。"
            f"上にはみ出す部分は省いた。評価用の文書では {total(quality.model.values()).per_character:.3f}。"
            " While training, on validation documents; rings mark where a line is crossed.",
        )
    if curve.crossings:
        sheet.table(
            ["n-gram", "ビット / 文字 bits per character", "越えた時刻 crossed at"],
            [[f"{c.order}-gram", c.level, crossing_text(c)] for c in curve.crossings],
            "時刻は学習の計算だけを数え、途中の測定や開始前の準備を含まない。 Minutes of training steps alone.",
        )
    _loss(sheet, curve, "学習の損失 training loss")
    router_page.balance(sheet, curve)


def _tuning(sheet: Page, curve: Curve) -> None:
    sheet.section("対話の調整 · Fine-tuning")
    _loss(sheet, curve, "調整の損失 tuning loss")


def _loss(sheet: Page, curve: Curve, name: str) -> None:
    if len(curve.losses) > 1:
        sheet.picture(
            lines(
                {name: (curve.minutes, curve.losses)}, x_label="分 minutes", y_label="nats / トークン token", height=220
            ),
            f"{name}、{curve.tokens:,} トークン。隣り合うステップの平均。 Mean of neighbouring steps.",
        )


def _samples(sheet: Page, results: Results) -> None:
    if not results.samples:
        return
    sheet.section("続きを書く · Continuations")
    sheet.text(
        "学習に使っていない文章の書き出しと、その続き。最尤は最も確かなトークンを選び続けたもの、抽選は確率に従って引いたもの。"
        " Held-out beginnings: the true text, the likeliest tokens, and tokens drawn at the chat page's temperature."
    )
    for sample in results.samples:
        parts = {"原文 true": sample.truth, "最尤 greedy": sample.greedy, "抽選 drawn": sample.sampled}
        text = "\n".join(f"{name}: {_one_line(part)}" for name, part in parts.items())
        sheet.sample(f"「{_one_line(sample.beginning)}」\n{text}", kind_name(sample.kind))


def _chat(sheet: Page, chat: Chat) -> None:
    sheet.section("対話の試験 · Chat")
    for task in dict.fromkeys(answer.task for answer in chat.answers):
        rows = [
            [answer.prompt.split("\n", 1)[-1], _cut(answer.text), answer.reference, answer_verdict(answer)]
            for answer in chat.answers
            if answer.task == task
        ]
        head = [f"{TASKS[task].label}: 入力 prompt", "答え answer", "お手本 reference", "判定 verdict"]
        sheet.table(head, rows, f"指示 instruction: {TASKS[task].instruction}")
    sheet.text(
        "お手本は元の文で、正解は一つではありません。長い答えは途中まで示します（全文は figures.json）。"
        " The reference is one of many good answers; long answers are cut here and whole in figures.json."
    )


def _model(sheet: Page, results: Results) -> None:
    sheet.section("モデルの大きさ · The model in numbers")
    numbers = results.parameters
    rows: list[Sequence[object]] = [[PARTS.get(name, name), *pair] for name, pair in results.parts.items() if pair[0]]
    rows.append(["合計 sum", numbers["total"], numbers["active"]])
    sheet.table(["部分 part", "全パラメータ total", "1 トークンに使う active"], rows)
    resident, read = numbers["resident_bytes"], numbers["read_bytes"]
    sheet.table(
        ["bfloat16 での大きさ size in bfloat16", "MB", "%"],
        [
            ["メモリに置く重み resident weights", resident / 1e6, 100.0],
            ["1 トークンのために読む重み read for one token", read / 1e6, 100 * read / resident],
        ],
    )
    _both(sheet, RESIDENCE)


def _text(sheet: Page, results: Results) -> None:
    sheet.section("文章とライセンス · Text and licences")
    names = {
        "train_characters": "学習の文字 training characters",
        "train_documents": "学習の文書 training documents",
        "validation_characters": "検証の文字 validation characters",
        "validation_documents": "検証の文書 validation documents",
        "held_out_characters": "評価の文字 held-out characters",
        "held_out_documents": "評価の文書 held-out documents",
        "train_tokens": "学習のトークン training tokens",
        "vocab_size": "語彙 vocabulary",
    }
    sheet.table(["数 count", ""], [[label, results.text[key]] for key, label in names.items() if key in results.text])
    sheet.table(
        ["出所 source", "ライセンス licence", "帰属 attribution", "URL"],
        [[s.name, s.licence, s.attribution, s.url] for s in results.sources],
    )


def _both(sheet: Page, words: tuple[str, str]) -> None:
    for paragraph in words:
        sheet.text(paragraph)


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f} M" if number < 1e9 else f"{number / 1e9:,.1f} B"


def _cut(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= SHOWN else line[:SHOWN] + " […]"


def _one_line(text: str) -> str:
    return " ⏎ ".join(line.strip() for line in text.splitlines() if line.strip())
