"""The data room's Parquet, read as it lies on disk: `train/`, `validation/` and `held_out/`, each `*.parquet`.

Columns used: text, domain, and english where a source has translations (null where a text has none).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yatsude.errors import DataError

__all__ = ["SPLITS", "check", "columns", "count", "sample"]

SPLITS = ("train", "validation", "held_out")
BATCH_ROWS = 2048


def check(data_folder: Path) -> None:
    """Raise DataError if a split is missing, before time is spent on another."""
    for split in SPLITS:
        _files(data_folder, split)


def columns(data_folder: Path, split: str, names: tuple[str, ...]) -> Iterator[tuple[list[Any], ...]]:
    """Yield batches of rows in file order, each a tuple of columns; an optional column that is absent is all None."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only this stage needs it

    for path in _files(data_folder, split):
        with _damage_is_an_error(path), pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            if missing := {"text", "domain"} - present:
                raise DataError(f"{path} has no column '{min(missing)}'; run 'yatsude data' to write it again")
            wanted = [name for name in names if name in present]
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                rows = {name: batch.column(name).to_pylist() for name in wanted}
                yield tuple(rows.get(name, [None] * batch.num_rows) for name in names)


def count(data_folder: Path, split: str, name: str = "text") -> tuple[int, int]:
    """Count the texts and the characters in one column of a split; nulls count for nothing."""
    texts = characters = 0
    for (values,) in columns(data_folder, split, (name,)):
        texts += sum(value is not None for value in values)
        characters += sum(len(value) for value in values if value)
    return texts, characters


def sample(data_folder: Path, name: str, characters: float) -> Iterator[str]:
    """Yield every n-th training text of a column, with n such that about `characters` characters come out."""
    _, total = count(data_folder, "train", name)
    share = min(1.0, characters / total) if total else 0.0
    credit = 0.0
    for (values,) in columns(data_folder, "train", (name,)):
        for value in filter(None, values):
            credit += share
            if credit >= 1.0 - 1e-9:
                credit -= 1.0
                yield value


def _files(data_folder: Path, split: str) -> list[Path]:
    files = sorted((data_folder / split).glob("*.parquet"))
    if not files:
        raise DataError(f"no Parquet files in {data_folder / split}; run 'yatsude data' again to write them")
    return files


@contextlib.contextmanager
def _damage_is_an_error(path: Path) -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read ({reason}); run 'yatsude data' to write it again") from error
