"""What a run's result depends on, key by key: so that a state says what has changed since it was written."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from yatsude.errors import CheckpointError, RecipeError, nearest

__all__ = ["Change", "Identity", "flat"]

FREE = ("parallel", "checkpoint_steps", "keep_checkpoints", "keep_every", "keep_best", "spikes")
"""Sections and keys that may change: how a job is cut, which states are kept, what is done when a step goes wrong."""
LATER = {"keep_every": 0, "keep_best": False, "spikes": 0, "optimizer.states": "fp32"}
"""Keys that came when states said their settings already: `digest` is without them, for those that do not."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A key whose value is another now; none on a side that does not know it."""

    key: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """Give the key, and both values."""
        return f"{self.key}: {_short(self.then)} → {_short(self.now)}"


@dataclasses.dataclass(frozen=True)
class Identity:
    """The settings of a run by dotted key, and digests of what it reads; `digest` names all of it in one word.

    >>> now = Identity.of({"train": TrainSettings(steps=20)}, {"text": "9bc1…"})
    >>> str(now.changes(Identity.of({"train": TrainSettings()}, {"text": "9bc1…"}).values)[0])
    'train.steps: 1000 → 20'
    """

    digest: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a key means to a state that is older than it."""

    @classmethod
    def of(cls, sections: Mapping[str, Any], texts: Mapping[str, str]) -> "Identity":
        """Name a run by its settings and by the digests of what it reads, in the order they are given."""
        plain = {name: TypeAdapter(type(one)).dump_python(one, mode="json") for name, one in sections.items()}
        old = {name: _without_later(table) for name, table in plain.items() if name not in FREE}
        text = json.dumps(old, sort_keys=True, ensure_ascii=False)
        settings = {
            name: TypeAdapter(type(one)).dump_python(type(one)(), mode="json") for name, one in sections.items()
        }
        return cls(
            ":".join((hashlib.sha256(text.encode()).hexdigest(), *texts.values())),
            {**dict(flat(plain)), **texts},
            dict(flat(settings)),
        )

    def changes(self, then: Mapping[str, Any]) -> list[Change]:
        """What is another than in a state; a key that it does not know yet had its default."""
        missing = {key: self.defaults[key] for key in self.values if key not in then and key in self.defaults}
        before = {**then, **missing}
        keys = dict.fromkeys([*self.values, *before])
        found = (Change(key, before.get(key), self.values.get(key)) for key in keys)
        return [change for change in found if change.then != change.now]

    def refuse(self, page: Mapping[str, Any], allow: Sequence[str], folder: Path, table: str) -> list[Change]:
        """Refuse to go on from a state of other settings, unless they are allowed; what has changed comes back.

        `folder` is the run's, `table` of the recipe what the stage is called.
        """
        known = {"parallel", *(above for key in self.values for above in _above(key))}
        for key in allow:
            if key not in known:
                raise RecipeError(f"--allow {key}: no such key or section{nearest(key, sorted(known))}")
        new = f"give another --run, or --restart (of 'yatsude {table}', for this stage alone)"
        if not page.get("settings"):
            if page["identity"] != self.digest:
                raise CheckpointError(f"{folder} holds a run with other settings or other text; {new}")
            return []
        changes = self.changes(page["settings"])
        if other := [change for change in changes if change.key.startswith("model.")]:
            raise CheckpointError(f"{folder} holds a run of another model ({_listed(other)}); {new}")
        strict = [change for change in changes if not _is_free(change.key) and not {*_above(change.key)} & {*allow}]
        if strict:
            words = " ".join(f"--allow {change.key}" for change in strict)
            raise CheckpointError(
                f"{folder} holds a run with other settings or other text ({_listed(strict)}); {new};"
                f" or go on with the new ones: {words}"
            )
        return changes


def _listed(changes: Sequence[Change]) -> str:
    return ", ".join(map(str, changes))


def flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested tables, by dotted key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _without_later(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A section without the keys of `LATER` that have their first value."""
    return {
        key: _without_later(value, f"{above}{key}.") if isinstance(value, dict) else value
        for key, value in table.items()
        if f"{above}{key}" not in LATER or value != LATER[f"{above}{key}"]
    }


def _above(key: str) -> list[str]:
    """A key, and the sections that it stands in."""
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _is_free(key: str) -> bool:
    return key.split(".", maxsplit=1)[0] in FREE or key.rpartition(".")[2] in FREE


def _short(value: Any) -> str:
    """A value as it is told: of a digest its first letters."""
    text = "none" if value is None else str(value)
    return text if len(text) <= 32 else f"{text[:12]}…"
