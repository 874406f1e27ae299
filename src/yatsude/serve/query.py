"""Reading a request: every field that would change an answer is checked, none of them is accepted and then ignored.

Fields that change none here (`user`, `metadata`, `service_tier`) and such as OpenAI does not know either are passed
over.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from yatsude.engine.settings import SamplingSettings
from yatsude.errors import RequestError
from yatsude.serve.errors import ApiError
from yatsude.serve.settings import ServeSettings
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["Query", "chat", "completion", "parse"]

MAX_CHOICES = 8
MAX_STOPS = 16
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    "store": (False,),
}
"""Fields of OpenAI's interface that cannot be served, and the values with which they ask for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
    """What a request asks for; choice i answers prompt i // n."""

    model: str | None
    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingSettings
    n: int
    stream: bool
    include_usage: bool


def parse(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise ApiError(400, f"the body is a JSON {type(values).__name__}, expected an object")
    for name, harmless in UNSUPPORTED.items():
        if values.get(name) is not None and values[name] not in harmless:
            raise ApiError(400, f"{name} is not supported by this server; leave it out", param=name)
    return values


def chat(values: Mapping[str, Any], tokenizer: Tokenizer, settings: ServeSettings) -> Query:
    """Read the body of /v1/chat/completions."""
    wants = _flag(values, "logprobs")
    likeliest = _number(values, "top_logprobs", whole=True)
    if likeliest is not None and not wants:
        raise ApiError(400, "top_logprobs needs logprobs = true", param="top_logprobs")
    longest = "max_tokens" if values.get("max_completion_tokens") is None else "max_completion_tokens"
    prompt = tokenizer.encode_chat(_messages(values))
    return _query(values, settings, (tuple(prompt),), likeliest or 0 if wants else None, longest)


def completion(values: Mapping[str, Any], tokenizer: Tokenizer, settings: ServeSettings) -> Query:
    """Read the body of /v1/completions; a text prompt opens a new text, a list of ids is taken as it is."""
    given = values.get("prompt", "")
    several = isinstance(given, list) and given and not isinstance(given[0], int)
    prompts = tuple(_prompt(one, tokenizer) for one in (given if several else [given]))
    return _query(values, settings, prompts, _number(values, "logprobs", whole=True), "max_tokens")


def _query(
    values: Mapping[str, Any],
    settings: ServeSettings,
    prompts: tuple[tuple[int, ...], ...],
    logprobs: int | None,
    longest: str,
) -> Query:
    n = _number(values, "n", whole=True)
    if n is not None and not 1 <= n <= MAX_CHOICES:
        raise ApiError(400, f"n = {n}: expected 1 to {MAX_CHOICES}", param="n")
    stream = _flag(values, "stream")
    options = values.get("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise ApiError(400, "stream_options must be an object, and needs stream = true", param="stream_options")
    return Query(
        model=_text(values, "model"),
        prompts=prompts,
        sampling=_sampling(values, settings, logprobs, longest),
        n=n or 1,
        stream=stream,
        include_usage=_flag(options or {}, "include_usage"),
    )


def _sampling(
    values: Mapping[str, Any], settings: ServeSettings, logprobs: int | None, longest: str
) -> SamplingSettings:
    temperature, top_p = _number(values, "temperature"), _number(values, "top_p")
    max_tokens = _number(values, longest, whole=True)
    try:
        return SamplingSettings(
            temperature=settings.temperature if temperature is None else temperature,
            top_p=settings.top_p if top_p is None else top_p,
            top_k=max(_number(values, "top_k", whole=True) or 0, 0),  # vLLM's clients say -1 for "all"
            seed=_number(values, "seed", whole=True),
            max_tokens=max_tokens,
            stop=_stops(values),
            presence_penalty=_number(values, "presence_penalty") or 0.0,
            frequency_penalty=_number(values, "frequency_penalty") or 0.0,
            logit_bias=_bias(values),
            logprobs=logprobs,
        )
    except RequestError as error:
        field = str(error).split(" ", 1)[0]
        raise ApiError(400, str(error), param=longest if field == "max_tokens" else field) from None


def _messages(values: Mapping[str, Any]) -> list[dict[str, str]]:
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message", param="messages")
    return [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise ApiError(400, f"{where} must be an object with role and content", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(400, f"role {role!r} is unknown; expected one of {', '.join(ROLES)}", param=f"{where}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{number}]") for number, part in enumerate(content))
    if not isinstance(content, str):
        raise ApiError(400, f"{where}.content must be text", param=f"{where}.content")
    return {"role": ROLES[role], "content": content}


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ApiError(400, f"{where}: only parts of type 'text' can be read", param=where)
    return part["text"]


def _prompt(given: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    if isinstance(given, str):
        return (*tokenizer.opening, *tokenizer.encode(given))
    if isinstance(given, list) and given and all(type(token) is int for token in given):
        return tuple(given)
    raise ApiError(400, "prompt must be text, a list of token ids, or a list of either", param="prompt")


def _stops(values: Mapping[str, Any]) -> tuple[str, ...]:
    given = values.get("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise ApiError(400, f"stop must be a text or a list of up to {MAX_STOPS} texts", param="stop")
    return tuple(stops)


def _bias(values: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    given = values.get("logit_bias") or {}
    try:
        return tuple((int(token), _bounded(bias)) for token, bias in given.items())
    except (AttributeError, TypeError, ValueError):
        wanted = "logit_bias must be an object from token ids to numbers from -100 to 100"
        raise ApiError(400, wanted, param="logit_bias") from None


def _bounded(bias: Any) -> float:
    if isinstance(bias, bool) or not -100 <= bias <= 100:
        raise ValueError(bias)
    return float(bias)


def _number(values: Mapping[str, Any], name: str, *, whole: bool = False) -> Any:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        kind = "a whole number" if whole else "a number"
        raise ApiError(400, f"{name} = {_short(value)}: expected {kind}", param=name)
    return value


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} = {_short(value)}: expected true or false", param=name)
    return bool(value)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise ApiError(400, f"{name} = {_short(value)}: expected text", param=name)
    return value


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:40]}…"
