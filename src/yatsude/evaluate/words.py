"""What the report says in words: verdicts and names, in Japanese and English.

Differences are written with a sign, as the n-gram's bits minus the model's: above zero the model is better.
"""

from yatsude.evaluate.information import Information
from yatsude.evaluate.results import JAPANESE_BAR, TOO_OFTEN, Answer, Chat, Crossing, Quality, total
from yatsude.text.style import PLAIN, POLITE

__all__ = [
    "ABOUT",
    "BEYOND",
    "KINDS",
    "PARTS",
    "answer_verdict",
    "chat_verdict",
    "crossing_text",
    "information_verdict",
    "kind_name",
    "quality_verdict",
]

KINDS = {
    "dialogue": "対話文 dialogue",
    "technical": "技術文書 technical",
    "literature": "文学 literature",
    "law": "法令 law",
    "code": "プログラム code",
    "own": "自分の文書 own",
    "hub": "ハブ hub",
    POLITE: "敬体（です・ます） polite",
    PLAIN: "常体（だ・である） plain",
}
ABOUT = {
    "kind": ("文章の種類", "the kind of text"),
    "kind given token": ("同じトークンでの文章の種類", "the kind of text where the token is the same"),
    "style": ("敬体と常体の違い", "polite or plain style"),
}
"""What an expert may tell something about."""
BEYOND = 0.05
"""A p below it is called beyond chance."""
FAINT = 0.05
"""Less than this share of the most information there could be, chance taken off, is called faint."""
PARTS = {
    "embedding": "埋め込み embedding",
    "attention": "注意機構 attention",
    "dense": "密な層 dense",
    "routers": "ルーター routers",
    "routed_experts": "選ばれる専門家 routed experts",
    "shared_experts": "共有の専門家 shared experts",
    "norms": "正規化 norms",
    "head": "出力 head",
}


def kind_name(kind: str) -> str:
    """Name a kind of text for the reader; a kind of the user's own keeps its name."""
    return KINDS.get(kind, kind)


def quality_verdict(quality: Quality) -> tuple[str, str]:
    """Say which n-grams the model beats and by how much, in Japanese and in English."""
    mine = total(quality.model.values()).per_character
    gaps = {n.order: total(n.kinds.values()).per_character - mine for n in quality.ngrams}
    won = [f"{order}-gram ({gap:+.3f})" for order, gap in gaps.items() if gap > 0]
    lost = [f"{order}-gram ({gap:+.3f})" for order, gap in gaps.items() if gap <= 0]
    japanese = [f"学習で見ていない文章を、1 文字あたり {mine:.3f} ビットで予測しました（小さいほど良い）。"]
    english = [f"The model predicts unseen text at {mine:.3f} bits per character (lower is better)."]
    if won:
        japanese.append(f"文字 n-gram と比べると、{'、'.join(won)} より良い予測です。")
        english.append(f"It is better than {', '.join(won)}.")
    if lost:
        japanese.append(f"{'、'.join(lost)} にはまだ届いていません。")
        english.append(f"It has not reached {', '.join(lost)}.")
    japanese.append("括弧の中は n-gram の値との差です。")
    english.append("In brackets: bits per character of the n-gram minus the model's.")
    return "".join(japanese), " ".join(english)


def information_verdict(about: str, found: Information | None) -> tuple[str, str]:
    """Say whether experts tell kinds ("kind") or styles ("style") apart beyond chance, and by how much."""
    ja, en = ABOUT[about]
    if found is None:
        return (
            f"{ja}は比べられません（二つ以上の文章の単位を持つものが、二つはありません）。",
            f"Nothing to compare for {en}: two with two units of text each are needed.",
        )
    mean, most = found.mean, max(found.most, 1e-9)  # with one expert there is nothing to know
    japanese = (
        f"層の平均で {mean.bits:.3f} ビット（ありうる最大 {most:.2f} ビットの {100 * mean.bits / most:.1f} %）、"
        f"偶然なら {mean.chance:.3f}（95 % は {mean.chance_95:.3f} 未満）、p = {mean.p:.3f}。"
    )
    english = (
        f"a mean over the layers of {mean.bits:.3f} bits ({100 * mean.bits / most:.1f} % of the most there can be,"
        f" {most:.2f}), by chance {mean.chance:.3f} (95 % below {mean.chance_95:.3f}), p = {mean.p:.3f}."
    )
    if mean.p < BEYOND:
        faint = mean.bits - mean.chance < FAINT * most
        how = ("、ただしわずかに", ", but faintly") if faint else ("", "")
        return (
            f"専門家は{ja}を偶然を超えて{how[0]}分けています: {japanese}",
            f"Experts tell {en} beyond chance{how[1]}: {english}",
        )
    return (
        f"専門家が{ja}を分けているとは、偶然を超えては言えません: {japanese}",
        f"Experts do not tell {en} beyond chance: {english}",
    )


def crossing_text(crossing: Crossing) -> str:
    """Say when one line was crossed, in both languages."""
    if crossing.minute is None:
        return "到達せず not crossed"
    if crossing.before_first:
        return f"最初の測定（{crossing.minute:.1f} 分）より前 before the first score"
    return f"{crossing.minute:.1f} 分 min"


def answer_verdict(answer: Answer) -> str:
    """Name what is wrong with one answer: × for what a bar forbids, △ for an answer in the wrong language."""
    faults = []
    if not answer.text.strip():
        faults.append("空 empty")
    elif answer.japanese_asked and answer.japanese < JAPANESE_BAR:
        faults.append(f"日本語 {100 * answer.japanese:.0f} %")
    if not answer.ended:
        faults.append("終わらない no end")
    if answer.repeats >= TOO_OFTEN:
        faults.append(f"{answer.repeats} 回反復 repeats")
    if faults:
        return "× " + "、".join(faults)
    english = answer.japanese_asked or answer.japanese <= 1 - JAPANESE_BAR
    return "○" if english else "△ 英語でない not English"


def chat_verdict(chat: Chat) -> tuple[str, str]:
    """Say whether the chat model passes its three bars, in Japanese and in English."""
    number = len(chat.answers)
    share = "–" if chat.japanese is None else f"{100 * chat.japanese:.1f} %"
    good = all(chat.passed.values())
    japanese = (
        f"{number} 問の試験は{'合格' if good else '不合格'}です。"
        f"日本語を求めた答えの文字の {share} が日本語（基準 {100 * JAPANESE_BAR:.0f} % 以上）、"
        f"{chat.ended} 問が自分で終わり（基準 {number} 問すべて）、"
        f"同じ 4 トークンの並びが {TOO_OFTEN} 回以上現れた答えは {chat.repeating} 問（基準 0 問）でした。"
    )
    english = (
        f"{'Passed' if good else 'Not passed'}: {share} of the characters are Japanese"
        f" where Japanese was asked (bar: {100 * JAPANESE_BAR:.0f} %),"
        f" {chat.ended} of {number} answers ended by themselves (bar: all),"
        f" {chat.repeating} repeat a 4-gram of tokens {TOO_OFTEN} times or more (bar: none)."
    )
    return japanese, english
