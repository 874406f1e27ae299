"""The text of an answer while it grows: nothing is shown that a stop text could still take back."""

from collections.abc import Sequence

__all__ = ["StopWatch"]


class StopWatch:
    r"""Passes text on and ends it before the first stop text, wherever the borders between the pieces lie.

    >>> watch = StopWatch(["。\n"])
    >>> watch.push("はい。"), watch.push("\nいいえ"), watch.stopped
    ('はい', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take a piece of text; return what may be shown now."""
        if not self._stops:
            return text
        self._held += text
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = self._open()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """Return what was held back, when no more text will come."""
        shown, self._held = self._held, ""
        return shown

    def _open(self) -> int:
        """Length of the longest end of the text that begins a stop text."""
        longest = min(len(self._held), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
