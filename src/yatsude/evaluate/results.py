"""Everything one evaluation found, as plain numbers and texts: what `figures.json` holds and the report shows."""

import dataclasses
from collections.abc import Iterable

from yatsude.evaluate.information import Information
from yatsude.model.router_stats import LayerLoad, Percentiles

__all__ = [
    "JAPANESE_BAR",
    "TOO_OFTEN",
    "Answer",
    "Bits",
    "Chat",
    "Crossing",
    "Curve",
    "ExpertLoad",
    "NgramBits",
    "Quality",
    "Results",
    "Sample",
    "Source",
    "Specialist",
    "total",
]


JAPANESE_BAR = 0.9
"""At least this share of the characters is Japanese where Japanese was asked."""
SHOWN_LAYERS = 12
"""A deeper model is shown by its percentiles."""
TOO_OFTEN = 4
"""A 4-gram of tokens that occurs so often in one answer is a repetition."""


@dataclasses.dataclass(frozen=True)
class Bits:
    """Bits that texts cost, their ends included, and their characters, ends not counted."""

    bits: float
    characters: int

    @property
    def per_character(self) -> float:
        """Bits per character."""
        return self.bits / max(self.characters, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramBits:
    """What the n-gram of one order needs for the same texts."""

    order: int
    kinds: dict[str, Bits]
    """Held-out documents that were scored, by kind of text."""
    validation: Bits
    """The validation documents that the training run scored while it ran."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """The model beside the n-grams, on the same documents."""

    model: dict[str, Bits]
    """By kind of text."""
    ngrams: tuple[NgramBits, ...]
    documents: int

    @property
    def passed(self) -> list[int]:
        """Orders of the n-grams that need more bits than the model."""
        mine = total(self.model.values()).per_character
        return [n.order for n in self.ngrams if mine < total(n.kinds.values()).per_character]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing:
    """When the validation curve of training came below an n-gram's line for good; minutes of training steps alone."""

    order: int
    level: float
    """Bits per character of the n-gram on the documents that training scored."""
    minute: float | None
    """None: not in this run."""
    before_first: bool = False
    """Every score was below; `minute` is that of the first, the crossing came sooner."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """A training run as its log tells it; minutes count training steps, not scoring."""

    minutes: list[float]
    losses: list[float]
    """Training loss in nats a token, averaged over neighbouring steps."""
    score_minutes: list[float]
    scores: list[float]
    """Bits per character of validation text."""
    tokens: int
    crossings: tuple[Crossing, ...] = ()
    busiest: list[float] = dataclasses.field(default_factory=list)
    """Load of the busiest expert of all layers over the mean of its layer, at `minutes`; empty without experts."""
    idlest: list[float] = dataclasses.field(default_factory=list)
    drift: float | None = None
    """Share of the load that moved to other experts in the last hundred steps the log tells of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specialist:
    """An expert that one kind of text uses more than the others do; layers and experts are counted from 1."""

    layer: int
    expert: int
    kind: str
    lift: float
    """Share of the kind's tokens that it gets, over its share of all text with the kinds weighing the same."""
    bits: float
    """Its part of the layer's information."""
    tokens: tuple[str, ...]
    """Tokens that it gets most often over what their frequency would bring."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertLoad:
    """Where tokens went; L mixture layers, E experts, lists of lists from the bottom layer up."""

    all: list[list[float]]
    """Tokens of each expert over the mean of its layer, the kinds of text weighing the same: (L, E)."""
    kinds: dict[str, list[list[float]]]
    """The same for each kind of text alone."""
    styles: dict[str, list[list[float]]]
    """The same for each style, in kinds of text that have both, these weighing the same; empty where none has."""
    layers: list[LayerLoad]
    """Figures of each layer, of `all`."""
    percentiles: dict[str, Percentiles]
    """Those figures over the layers."""
    by_kind: Information | None
    """What an expert tells about the kind of text; None where there are not two kinds with two units of text each."""
    by_kind_given_token: Information | None
    """The same where the token is the same, of the tokens that kinds have in common; None also where they have none."""
    by_style: Information | None
    """What it tells about the style within one kind of text, likewise."""
    specialists: tuple[Specialist, ...]
    """The experts that tell most about the kind, most telling first."""
    tokens: int

    @property
    def shallow(self) -> bool:
        """Whether there are few enough layers to show each; else their percentiles are, and `router.jsonl` has all."""
        return len(self.layers) <= SHOWN_LAYERS

    @property
    def findings(self) -> dict[str, Information | None]:
        """The three, by what they are about."""
        return {"kind": self.by_kind, "kind given token": self.by_kind_given_token, "style": self.by_style}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out beginning, how it went on, and how the model goes on."""

    kind: str
    beginning: str
    truth: str
    greedy: str
    sampled: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer to a held-out prompt."""

    task: str
    prompt: str
    text: str
    reference: str
    """What the held-out text says."""
    japanese_asked: bool
    """False: English was asked."""
    japanese: float
    """Share of Japanese characters."""
    ended: bool
    repeats: int
    """How often its most frequent 4-gram of tokens occurs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat:
    """All answers, and how they stand against the three bars."""

    answers: tuple[Answer, ...]
    japanese: float | None
    """Share of Japanese characters in all answers that should be Japanese; None if there is no such answer."""
    ended: int
    """Answers that said something and ended by themselves."""
    repeating: int
    """Answers in which a 4-gram of tokens occurs four times or more."""

    @property
    def passed(self) -> dict[str, bool]:
        """Whether each bar is met."""
        return {
            "japanese": self.japanese is None or self.japanese >= JAPANESE_BAR,
            "ended": self.ended == len(self.answers),
            "repeats": self.repeating == 0,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One source of the text and its terms."""

    name: str
    licence: str
    attribution: str
    url: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """One evaluation."""

    quality: Quality
    training: Curve | None
    tuning: Curve | None
    experts: ExpertLoad
    samples: tuple[Sample, ...]
    chat: Chat | None
    parameters: dict[str, int]
    """Total, active, bytes resident and bytes read for one token (bfloat16)."""
    parts: dict[str, tuple[int, int]]
    """Parameters of each part: all, and active for one token."""
    text: dict[str, int]
    """Counts of the three parts of the text."""
    sources: tuple[Source, ...]
    machine: dict[str, str]


def total(parts: Iterable[Bits]) -> Bits:
    """Add up."""
    parts = list(parts)
    return Bits(sum(part.bits for part in parts), sum(part.characters for part in parts))
