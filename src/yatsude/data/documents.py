"""A document, and the Parquet files that hold a split of them.

    FOLDER/train/part-00000.parquet        columns id, text, source, domain, english
    FOLDER/validation/part-00000.parquet
    FOLDER/held_out/part-00000.parquet

`english` is null where a source has no translation.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from yatsude.errors import DataError

__all__ = ["HELD_OUT", "TRAIN", "VALIDATION", "Document", "documents", "write"]

TRAIN, VALIDATION, HELD_OUT = "train", "validation", "held_out"
ROWS = 8192
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("english", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text; `id` is unique within its source."""

    id: str
    text: str
    source: str
    domain: str
    english: str | None = None
    """A translation of the text, where the source has one."""


def write(path: Path, texts: Iterable[Document]) -> None:
    """Write documents to one Parquet file, in row groups of 8,192."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        rest = iter(texts)
        while rows := list(islice(rest, ROWS)):
            columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
            writer.write_table(pa.table(columns, SCHEMA))


def documents(folder: Path, split: str) -> Iterator[Document]:
    """Documents of a split ("train", "validation" or "held_out") of a data folder, in the order they were written."""
    parts = sorted((folder / split).glob("part-*.parquet"))
    if not parts:
        raise DataError(f"no {split} documents in {folder}: expected {split}/part-00000.parquet; run 'yatsude data'")
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                for rows in file.iter_batches(ROWS, columns=SCHEMA.names):
                    for row in rows.to_pylist():
                        yield Document(**row)
        except (pa.ArrowException, KeyError, OSError) as error:
            raise DataError(f"{part} is damaged ({str(error).splitlines()[0]}); run 'yatsude data' again") from None
