"""Every error a user can cause, as one small tree.

    YatsudeError            exit code 1, one line on the screen
    ├── RecipeError         a recipe or --set names something unknown or impossible
    ├── DataError           text, a token shard or a manifest is missing, empty or damaged
    │   └── ChecksumError   bytes arrived, but not the ones that were promised
    ├── NetworkError        a host could not be reached, or may not be
    ├── CheckpointError     weights are missing, damaged or do not fit the model
    ├── TrainingError       the loss is not a number, or the run cannot go on
    ├── RequestError        a prompt or a request to the server cannot be answered as asked
    └── MachineError        no disk, no memory, no free port, a missing package

A message is one line and says what happened (with the value), what was expected, and what to do next.
"""

import difflib
from collections.abc import Collection

__all__ = [
    "CheckpointError",
    "ChecksumError",
    "DataError",
    "MachineError",
    "NetworkError",
    "RecipeError",
    "RequestError",
    "TrainingError",
    "YatsudeError",
    "nearest",
]


class YatsudeError(Exception):
    """The root: `str(error)` is the line shown to the user."""


class RecipeError(YatsudeError):
    """A recipe or a `--set` names something unknown or impossible."""


class DataError(YatsudeError):
    """Text, a token shard or a manifest is missing, empty or damaged."""


class ChecksumError(DataError):
    """Bytes arrived, but not the ones that were promised."""


class NetworkError(YatsudeError):
    """A host could not be reached, or may not be."""


class CheckpointError(YatsudeError):
    """Weights are missing, damaged or do not fit the model."""


class TrainingError(YatsudeError):
    """The loss is not a number, or the run cannot go on."""


class RequestError(YatsudeError):
    """A prompt or a request to the server cannot be answered as asked."""


class MachineError(YatsudeError):
    """No disk, no memory, no free port, or a missing package."""


def nearest(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown word: what may have been meant, or else all that is known.

    >>> nearest("trian", ["train", "tune"])
    "; did you mean 'train'?"
    """
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
