"""The JSON of answers, whole and in pieces, for the two endpoints that write text."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from yatsude.engine.answer import Delta
from yatsude.engine.sampler import Scored
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["DONE", "PING", "Chat", "Text", "event", "usage"]

DONE = b"data: [DONE]\n\n"
PING = b": still working\n\n"
"""A comment, which clients skip: it keeps proxies from closing a silent connection."""


def event(body: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Tokens that a request took."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class _Wire:
    """What both endpoints share: an id, a time, a model name."""

    prefix, whole, piece = "", "", ""

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def answer(self, choices: Sequence[Sequence[Delta]], counts: dict[str, int]) -> dict[str, Any]:
        """One body for all choices."""
        parts = [self._choice(index, deltas) for index, deltas in enumerate(choices)]
        return {**self._head, "object": self.whole, "choices": parts, "usage": counts}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """One piece of a stream."""
        return {**self._head, "object": self.piece, "choices": choices, **more}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        raise NotImplementedError(f"choice {index} of {len(deltas)} pieces: each endpoint has its own")


class Chat(_Wire):
    """/v1/chat/completions."""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> list[dict[str, Any]]:
        """Return the piece before the first text, which names the role."""
        return [
            {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ]

    def pieces(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Return the choices of a delta: its text, and apart from it the end."""
        parts: list[dict[str, Any]] = []
        if delta.text or delta.scored:
            said = {"index": index, "delta": {"content": delta.text}, "finish_reason": None}
            parts.append({**said, "logprobs": self._logprobs(delta.scored)})
        if delta.finish_reason is not None:
            parts.append({"index": index, "delta": {}, "logprobs": None, "finish_reason": delta.finish_reason})
        return parts

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._logprobs(tuple(scored for delta in deltas for scored in delta.scored)),
            "finish_reason": deltas[-1].finish_reason,
        }

    def _logprobs(self, scored: Sequence[Scored]) -> dict[str, Any] | None:
        entries = [
            {**self._entry(one.token, one.logprob), "top_logprobs": [self._entry(*pair) for pair in one.likeliest]}
            for one in scored
        ]
        return {"content": entries, "refusal": None} if entries else None

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = self.tokenizer.token_bytes(token)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}


class Text(_Wire):
    """/v1/completions."""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def opening(self, _: int) -> list[dict[str, Any]]:
        """Return nothing: a completion has no role to name."""
        return []

    def pieces(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Return the choices of a delta: its text, and apart from it the end."""
        parts: list[dict[str, Any]] = []
        if delta.text or delta.scored:
            parts.append({"index": index, "text": delta.text, "finish_reason": None})
            parts[-1]["logprobs"] = self._logprobs(delta.scored)
        if delta.finish_reason is not None:
            parts.append({"index": index, "text": "", "logprobs": None, "finish_reason": delta.finish_reason})
        return parts

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(delta.text for delta in deltas),
            "logprobs": self._logprobs(tuple(scored for delta in deltas for scored in delta.scored)),
            "finish_reason": deltas[-1].finish_reason,
        }

    def _logprobs(self, scored: Sequence[Scored]) -> dict[str, Any] | None:
        if not scored:
            return None
        return {
            "tokens": [self._word(one.token) for one in scored],
            "token_logprobs": [one.logprob for one in scored],
            "top_logprobs": [{self._word(token): value for token, value in one.likeliest} for one in scored],
        }

    def _word(self, token: int) -> str:
        return self.tokenizer.token_bytes(token).decode(errors="replace")
