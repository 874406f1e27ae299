"""The user's own texts: `file:PATH`, a file or a folder of them (with its subfolders, in order of their names).

    .txt      a document a file; one of more than 10,000 characters is cut at empty lines, and long parts at line ends
    .jsonl    a document a line, from its field "text" ("english" and "id" are read where they are there)
    .parquet  a document a row, from its column "text" (likewise)

.txt and .jsonl may be compressed: .gz, .zst.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yatsude.data.catalogue import Source
from yatsude.data.documents import ROWS, Document
from yatsude.errors import DataError
from yatsude.files import state_of

__all__ = ["document", "parquet_rows", "pieces", "read", "state"]

PIECE = 10_000
ENDINGS = (".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz", ".txt.zst", ".jsonl.zst")
OTHER_ENCODINGS = ("cp932", "euc_jp", "utf-16")


def document(row: Mapping[str, Any], prefix: str, number: int, source: Source) -> Document:
    """Row `number` of a file as a document of `source`."""
    name = number if row.get("id") is None else row["id"]
    return Document(
        id=f"{prefix}#{name}",
        text=row["text"],
        source=source.name,
        domain=source.domain,
        english=row.get("english"),
    )


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Documents of `file:PATH`; nothing is copied to the cache folder. Raises DataError with the file and the place."""
    root = source.path
    for path in _files(root):
        name = path.name if path == root else str(path.relative_to(root))
        for number, row in enumerate(_rows(path)):
            yield document(row, name, number, source)


def state(source: Source) -> list[tuple[str, int, int]]:
    """Name, bytes and time (ns) of each file that `read` would read now: another state is other text."""
    return state_of(_files(source.path))


def pieces(text: str, longest: int = PIECE) -> Iterator[str]:
    """Cut a text of more than `longest` characters at empty lines, and what is still longer at line ends."""
    for part in _cut(text, r"\n\s*\n", "\n\n", longest):
        yield from _cut(part, r"\n", "\n", longest)


def _cut(text: str, end: str, gap: str, longest: int) -> Iterator[str]:
    """Cut a text at matches of `end`, as rarely as can be, and join what stays together by `gap`."""
    if len(text) <= longest:
        yield text
        return
    gathered: list[str] = []
    length = 0
    for part in re.split(end, text):
        if gathered and length + len(part) > longest:
            yield gap.join(gathered)
            gathered, length = [], 0
        gathered.append(part)
        length += len(part)
    yield gap.join(gathered)


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file with a column of strings called "text", and "english" and "id" where they are there."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise DataError(f"{path} has the columns {', '.join(names)}; expected one called 'text': rename it")
            columns = [name for name in ("text", "english", "id") if name in names]
            for batch in file.iter_batches(ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield _checked(row, str(path))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not a readable Parquet file ({reason}); fetch or write it again") from None


def _files(root: Path) -> list[Path]:
    if root.is_dir():
        found = sorted(path for path in root.rglob("*") if path.is_file() and path.name.lower().endswith(ENDINGS))
        if not found:
            raise DataError(f"{root} holds no text: expected files ending in {', '.join(ENDINGS)}")
        return found
    if not root.exists():
        raise DataError(f"no file or folder at {root}; check the path after 'file:'")
    if not root.name.lower().endswith(ENDINGS):
        raise DataError(f"{root} is not read: expected a name ending in {', '.join(ENDINGS)}; rename or convert it")
    return [root]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from parquet_rows(path)
    elif name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        yield from _json_rows(path)
    else:
        yield from ({"text": piece} for piece in pieces(_decoded(_content(path), path)))


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_decoded(_content(path), path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} line {number} is not JSON ({error}); expected one object a line") from None
        if not isinstance(row, Mapping) or "text" not in row:
            have = f"the fields {', '.join(row)}" if isinstance(row, Mapping) else "no object"
            raise DataError(f"{path} line {number} has {have}; expected an object with a field 'text'")
        yield _checked({key: row[key] for key in ("text", "english", "id") if key in row}, f"{path} line {number}")


def _checked(row: dict[str, Any], place: str) -> dict[str, Any]:
    if not isinstance(row["text"], str):
        raise DataError(f"{place}: 'text' is {row['text']!r:.40}; expected a string")
    if not isinstance(row.get("english"), str | None):
        raise DataError(f"{place}: 'english' is {row['english']!r:.40}; expected a string or null")
    try:
        f"{row['text']}{row.get('english')}{row.get('id')}".encode()
    except UnicodeEncodeError:
        raise DataError(f"{place} holds half of a surrogate pair; expected text that can be UTF-8") from None
    return row


def _content(path: Path) -> bytes:
    name = path.name.lower()
    try:
        if name.endswith(".gz"):
            return gzip.decompress(path.read_bytes())
        if name.endswith(".zst"):
            return _unzstd(path.read_bytes())
        return path.read_bytes()
    except PermissionError:
        raise DataError(f"{path} may not be read; give yourself the right to (chmod u+r)") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} is damaged, it cannot be decompressed ({error}); fetch or write it again") from None


def _unzstd(content: bytes) -> bytes:
    """All frames, one after the other; zstandard's own reader takes a frame without its end for whole."""
    import zstandard  # noqa: PLC0415

    parts = []
    while content:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(content))
        if not frame.eof:
            raise EOFError("it ends in the middle of a frame")
        content = frame.unused_data
    return b"".join(parts)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start};"
            f" convert it, such as: iconv -f {_guess(content)} -t UTF-8 {path.name} > utf8-{path.name}"
        ) from None


def _guess(content: bytes) -> str:
    """The first of the usual encodings that fits, as iconv calls it."""
    for encoding in OTHER_ENCODINGS:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return {"cp932": "CP932", "euc_jp": "EUC-JP", "utf-16": "UTF-16"}[encoding]
    return "ITS-ENCODING"
