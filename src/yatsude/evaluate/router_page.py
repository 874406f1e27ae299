"""The router board on a page: load, what experts tell about kind and style of text, and the most special ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from yatsude.evaluate.information import Information
from yatsude.evaluate.results import Curve, ExpertLoad
from yatsude.evaluate.router import lift
from yatsude.evaluate.words import ABOUT, information_verdict, kind_name
from yatsude.report.page import Page
from yatsude.report.pictures import bars, heat_map, lines

__all__ = ["balance", "section"]

PICTURED_KINDS = 6
"""So many kinds of text have a heat map of their own; `router.jsonl` has all."""
FIGURES = {
    "busiest": "最多 busiest",
    "idlest": "最少 idlest",
    "entropy": "エントロピー entropy",
    "dead": "不使用 dead",
    "bias_range": "バイアスの幅 bias range",
}


def section(sheet: Page, load: ExpertLoad) -> None:
    """Add what is known about the experts to a page."""
    sheet.section("専門家の負荷 · Load of the experts")
    if not load.layers:
        sheet.text("このモデルには専門家の混合がありません。 This model has no mixture layer.")
        return
    _load(sheet, load)
    sheet.section("専門家は文章を分けているか · Do experts specialise?")
    for about, found in load.findings.items():
        for paragraph in information_verdict(about, found):
            sheet.text(paragraph)
    sheet.text(
        "偶然の値は、文章の単位（一つの文書の初めか、短い文書のまとまり）に種類を配り直して数えたもの。"
        "文体は同じ種類の中だけで配り直す。種類は単語の違いだけでも分かれるので、同じトークンどうしでも比べる"
        "（前後の文脈による分け方が残る）。p は配り直しの回数で決まる最小値より小さくならない。"
        " Chance is found by dealing the kinds anew to units of text (the beginning of a document, or short ones"
        " together), styles within one kind. Words that differ are enough to tell kinds apart, so tokens that are the"
        " same are compared too: what is left comes from their context. The number of deals limits how small p gets."
    )
    for about, found in load.findings.items():
        if found:
            _information(sheet, about, found, load.shallow)
    for tables in (load.kinds, load.styles):
        _lifts(sheet, tables)
    _specialists(sheet, load)


def balance(sheet: Page, curve: Curve) -> None:
    """Add how evenly the experts were used while the model was trained."""
    if len(curve.busiest) < 2:
        return
    moved = (
        "" if curve.drift is None else f"最後の 100 ステップで負荷の {100 * curve.drift:.1f} % が別の専門家へ移った。"
    )
    drift = "" if curve.drift is None else f" In the last hundred steps {100 * curve.drift:.1f} % of the load moved."
    sheet.picture(
        lines(
            {"最多 busiest": (curve.minutes, curve.busiest), "最少 idlest": (curve.minutes, curve.idlest)},
            x_label="分 minutes",
            y_label="平均に対する負荷 load over the mean",
            height=220,
        ),
        f"学習中に最も忙しい専門家と最も暇な専門家（全層で）。{moved} The busiest and the idlest expert of all layers"
        f" while training.{drift}",
    )


def _load(sheet: Page, load: ExpertLoad) -> None:
    sheet.text(
        "1.00 はその層の平均どおり。緑は忙しく、黄土色は暇な専門家。"
        " 1.00 is the mean of the layer; green is busier, ochre idler."
    )
    sheet.picture(
        _map(load.all),
        f"すべての文章（種類ごとに同じ重み、{load.tokens:,} トークン）。 All text, each kind weighing the same.",
    )
    rows: list[list[object]] = [
        [f"層 {number}", *(_shown(getattr(layer, name)) for name in FIGURES)]
        for number, layer in enumerate(load.layers if load.shallow else [], 1)
    ]
    if len(load.layers) > 2:
        for share in (10, 50, 90):
            found = {name: getattr(over, f"p{share}") for name, over in load.percentiles.items()}
            rows.append([f"{share} %", *(_shown(found.get(name)) for name in FIGURES)])
    sheet.table(
        ["層 layer", *FIGURES.values()],
        rows,
        "最多と最少は平均に対する比、エントロピーは最大に対する割合。% の行は層にわたる分位点。"
        " Load over the mean; entropy as a share of the greatest; rows in % are percentiles over the layers.",
    )


def _information(sheet: Page, about: str, found: Information, each_layer: bool) -> None:
    japanese, english = ABOUT[about]
    units = "、".join(f"{kind_name(kind)} {number}" for kind, number in found.units.items())
    names = {f"層 {number}": layer for number, layer in enumerate(found.layers, 1)}
    names["平均 mean"] = found.mean
    bits, chance = ({name: getattr(value, what) for name, value in names.items()} for what in ("bits", "chance_95"))
    numbers = range(1, len(found.layers) + 1)
    curves = {
        "実際 found": (numbers, [layer.bits for layer in found.layers]),
        "偶然 95 %": (numbers, [layer.chance_95 for layer in found.layers]),
    }
    sheet.picture(
        bars(bits, marks=chance)
        if each_layer
        else lines(curves, x_label="層 layer", y_label="ビット bits", height=220),
        f"専門家が{japanese}について教えるビット数と、偶然の 95 % 点（{found.shuffles} 回の配り直し）。"
        f" Bits that a token's expert tells about {english}, and 95 % of what chance gives."
        f" 単位 units: {units}.",
    )
    if each_layer:
        sheet.table(
            ["層 layer", "ビット bits", "偶然 chance", "偶然の 95 % 点", "p"],
            [[name, *(f"{x:.4f}" for x in (v.bits, v.chance, v.chance_95)), f"{v.p:.3f}"] for name, v in names.items()],
        )


def _lifts(sheet: Page, tables: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Pictures of all kinds, or of all styles, in one scale."""
    if len(tables) < 2:
        return
    lifts = dict(list(lift(tables).items())[:PICTURED_KINDS])
    reach = max(float(np.abs(np.array(table) - 1).max()) for table in lifts.values())
    for name, table in lifts.items():
        sheet.picture(
            _map(table, reach),
            f"{kind_name(name)}: 専門家の負荷を全種類の平均で割った値。 Load over the mean of all of these.",
        )


def _specialists(sheet: Page, load: ExpertLoad) -> None:
    if load.specialists:
        sheet.table(
            ["層 layer", "専門家 expert", "好む種類 prefers", "倍率 lift", "目立つトークン tokens over expectation"],
            [[str(s.layer), str(s.expert), kind_name(s.kind), s.lift, "  ".join(s.tokens)] for s in load.specialists],
            "種類について最も多くを教える専門家。目立つものを選んだので、倍率はやや大きめに出る。"
            " The experts that tell most about the kind; picked for standing out, so the lift is somewhat flattered.",
        )


def _map(table: Sequence[Sequence[float]], reach: float | None = None) -> str:
    layers = [f"層 {number}" for number in range(1, len(table) + 1)]
    experts = [str(number) for number in range(1, len(table[0]) + 1)]
    return heat_map(
        table, rows=layers, columns=experts, x_label="専門家 expert", y_label="層 layer", centre=1.0, reach=reach
    )


def _shown(value: float | None) -> object:
    return round(value, 3) if isinstance(value, float) else value
