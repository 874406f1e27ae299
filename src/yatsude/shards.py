"""Tokens on disk: written once, then mapped into memory and read in O(1) by sample number.

A folder of shards holds

    tokens-00000.bin …   token ids, little-endian uint16 (uint32 where the vocabulary is larger)
    characters.npy       how many characters each document has, int32, in order
    shards.json          vocabulary size, token counts, the id that separates documents

A document is its separator followed by its tokens, so the stream of a shard reads  | a b c | d e | f g h |  and ends
with one more separator: the end of every text can be predicted and is counted.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yatsude.errors import DataError
from yatsude.files import new_file

__all__ = ["Shards", "write"]

SHARD_TOKENS = 1 << 27


class Shards:
    """Token shards of one split, mapped into memory.

    Sample `i` of length T is the T + 1 tokens that begin at T·i of its shard: inputs and, one further, targets.
    """

    def __init__(self, folder: Path) -> None:
        try:
            page = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
            self.characters: npt.NDArray[np.int32] = np.load(folder / "characters.npy", allow_pickle=False)
            self.vocab_size: int = int(page["vocab_size"])
            self.separator: int = int(page["separator"])
            self.counts: list[int] = [int(count) for count in page["tokens"]]
        except FileNotFoundError as error:
            raise DataError(f"{error.filename} is missing; run 'yatsude tokenizer' to write token shards") from None
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(
                f"token shards in {folder} are damaged ({error!r}); run 'yatsude tokenizer' again"
            ) from None
        self.folder = folder
        dtype = _dtype(self.vocab_size)
        self._maps = [self._map(number, count, dtype) for number, count in enumerate(self.counts)]

    @property
    def tokens(self) -> int:
        """Number of tokens in all shards."""
        return sum(self.counts)

    def samples(self, length: int) -> int:
        """How many whole samples of `length` tokens there are."""
        return sum((count - 1) // length for count in self.counts)

    def sample(self, index: int, length: int) -> npt.NDArray[np.int64]:
        """Tokens of sample `index`, shape (length + 1,)."""
        for array in self._maps:
            here = (len(array) - 1) // length
            if index < here:
                return array[index * length : (index + 1) * length + 1].astype(np.int64)
            index -= here
        raise IndexError(f"sample {index} past the end of {self.folder}")

    def streams(self) -> Iterable[npt.NDArray[np.unsignedinteger]]:
        """All tokens of each shard, as they lie on disk."""
        return iter(self._maps)

    def documents(self) -> Iterable[npt.NDArray[np.int64]]:
        """Each document with its separator in front and the next separator behind, in order."""
        for array in self._maps:
            starts = np.flatnonzero(np.asarray(array) == self.separator)
            for start, end in itertools.pairwise(starts):
                yield array[start : end + 1].astype(np.int64)

    def _map(self, number: int, count: int, dtype: np.dtype[np.unsignedinteger]) -> np.memmap:
        path = _name(self.folder, number)
        if not path.is_file() or path.stat().st_size != count * dtype.itemsize:
            have = path.stat().st_size if path.is_file() else 0
            raise DataError(
                f"{path} has {have} bytes, expected {count * dtype.itemsize}; run 'yatsude tokenizer' again"
            )
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,))


def write(
    folder: Path,
    documents: Iterable[tuple[npt.ArrayLike, int]],
    *,
    vocab_size: int,
    separator: int,
    shard_tokens: int = SHARD_TOKENS,
) -> Shards:
    """Write documents, each as (token ids without separator, characters), and open the result.

    A document is never split over two shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = _dtype(vocab_size)
    counts: list[int] = []
    characters: list[int] = []
    pending: list[npt.NDArray[np.unsignedinteger]] = []
    size = 0

    def close() -> None:
        nonlocal size
        with new_file(_name(folder, len(counts))) as draft, draft.open("wb") as stream:
            for part in pending:
                part.tofile(stream)
            np.array([separator], dtype).tofile(stream)
        counts.append(size + 1)
        pending.clear()
        size = 0

    for ids, length in documents:
        part = np.concatenate([[separator], np.asarray(ids, np.int64)])
        if part.max() >= vocab_size:
            raise DataError(f"token id {part.max()} does not fit a vocabulary of {vocab_size}")
        if size and size + len(part) > shard_tokens:
            close()
        pending.append(part.astype(dtype))
        characters.append(length)
        size += len(part)
    if not characters:
        raise DataError(f"no documents to write to {folder}; check the sources and the cleaning settings")
    close()
    with new_file(folder / "characters.npy") as draft, draft.open("wb") as stream:
        np.save(stream, np.array(characters, np.int32), allow_pickle=False)
    with new_file(folder / "shards.json") as draft:
        draft.write_text(json.dumps({"vocab_size": vocab_size, "separator": separator, "tokens": counts}))
    return Shards(folder)


def _dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _name(folder: Path, number: int) -> Path:
    return folder / f"tokens-{number:05d}.bin"
