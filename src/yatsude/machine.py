"""The machine this runs on."""

import ctypes
import os
import platform
import re
from pathlib import Path

__all__ = ["cores", "keep_freed_memory", "memory", "processor", "resident"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def processor() -> str:
    """The CPU by the name that its maker gave it."""
    named = [
        line.partition(":")[2].strip() for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return named[0] if named else platform.processor() or platform.machine()


def resident() -> tuple[int, int]:
    """Bytes of memory that this process holds now, and at most so far; zeros where the system does not say."""
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+)", _text("/proc/self/status"), re.MULTILINE))
    now, most = (int(found.get(name, 0)) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, max(now, most)


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of handing large ones back to the system; whether it could.

    A training step, and a model that passes through piece by piece, free and take the same megabytes again and again;
    mapping them anew each time cost a tenth of the one and a quarter of the other. Threads share one heap: those of
    their own are cut into pieces of 64 MB, which are handed back.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        wishes = ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_ARENA_MAX, 1))
        granted = [bool(libc.mallopt(name, value)) for name, value in wishes]
        return all(granted)
    except (OSError, AttributeError):
        return False  # another C library: slower, not wrong


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
