"""The state of a run on disk: tensors and one page of JSON, found again after anything short of a broken disk.

    checkpoints/step-00001200/tensors.safetensors     weights, optimiser moments
                              page.json               everything that is not a tensor
                              complete.json           size and SHA-256 of both: written last

A step is built beside its place and renamed into it. What is not complete or not as it was written is never loaded.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from yatsude.checkpoint.sharded import Sharded
from yatsude.checkpoint.sums import COMPLETE, PAGE, TENSORS, damage, put
from yatsude.checkpoint.tensors import stream
from yatsude.errors import CheckpointError
from yatsude.files import new_folder, tidy
from yatsude.progress import say

__all__ = ["exists", "forget_after", "kept", "latest", "load", "prune", "save", "step_folder", "steps"]


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where step number `step` of a run is kept."""
    return checkpoints / f"step-{step:08d}"


def save(folder: Path, tensors: Mapping[str, Tensor], page: Mapping[str, Any]) -> None:
    """Write a state; `page` is anything JSON can hold. Killed at any moment, it leaves the old or the new."""
    with new_folder(folder) as draft:
        sums = {TENSORS: stream(draft / TENSORS, tensors)}
        sums[PAGE] = put(draft / PAGE, json.dumps(page, ensure_ascii=False, indent=1))
        put(draft / COMPLETE, json.dumps(sums))


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state back, whoever wrote it: its tensors, bit for bit, and its page. A damaged one is an error."""
    wrong = damage(folder)
    if wrong:
        raise CheckpointError(f"checkpoint {folder} cannot be used: {wrong}; start from an earlier one")
    return _read(folder)


def exists(checkpoints: Path) -> bool:
    """Whether there is any state, good or damaged."""
    return bool(steps(checkpoints))


def latest(checkpoints: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest state that is as it was written; none if there is no state at all.

    A damaged newer one is reported by name and passed over; if every one is damaged, that is an error.
    """
    found = steps(checkpoints)
    for folder in found:
        wrong = damage(folder)
        if not wrong:
            return _read(folder)
        say(f"checkpoint {folder} cannot be used: {wrong}; trying the one before it")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {checkpoints} can be used; move the folder away to start anew"
        )
    return None


def kept(scores: Mapping[int, float | None], last: int, every: int = 0, best: bool = False) -> set[int]:
    """Which states stay, by their steps: the `last` ones, those at multiples of `every`, and the `best`.

    `scores` are bits per character, the fewer the better; none where a state was not scored itself.

    >>> sorted(kept({10: 3.1, 20: 2.9, 30: 3.0, 40: None}, last=1, every=30, best=True))
    [20, 30, 40]
    """
    stay = set(sorted(scores)[-last:])
    stay |= {step for step in scores if every and step % every == 0}
    known = {step: score for step, score in scores.items() if score is not None and not math.isnan(score)}
    return stay | ({min(known, key=lambda step: (known[step], -step))} if best and known else set())


def prune(written: Path, keep: int, every: int = 0, best: bool = False) -> None:
    """Keep what `kept` says of the state just written and those before it; later ones were passed over as damaged."""
    if keep < 1:
        raise CheckpointError(f"cannot keep {keep} checkpoints; expected at least 1")
    found = steps(written.parent)
    scores = {_step(folder): _score(folder) if best else None for folder in found[found.index(written) :]}
    stay = kept(scores, keep, every, best)
    for folder in found:
        if _step(folder) not in stay:
            shutil.rmtree(folder)


def forget_after(checkpoints: Path, step: int) -> None:
    """Remove the states after `step`, but never the last one that there is."""
    found = steps(checkpoints)
    for folder in found[:-1]:
        if _step(folder) > step:
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _score(folder: Path) -> float | None:
    """Bits per character of a state that was scored itself."""
    try:
        score: float | None = json.loads((folder / PAGE).read_text(encoding="utf-8")).get("bits_per_character")
    except (OSError, ValueError, AttributeError):
        return None
    return score


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    found = Sharded(folder, check=False)
    return {name: found.read(name) for name in found.shapes}, found.page


def steps(checkpoints: Path) -> list[Path]:
    """Folders of steps, newest first, once what an interrupted write left behind is put right."""
    for rest in list(checkpoints.glob(".step-*")):
        tidy(checkpoints / rest.name[1:].partition(".")[0])
    found = [path for path in checkpoints.glob("step-*") if re.fullmatch(r"step-\d+", path.name) and path.is_dir()]
    return sorted(found, key=_step, reverse=True)
