"""On what machine and with which versions something was measured."""

import platform
from datetime import datetime
from pathlib import Path

import torch

from yatsude import __version__
from yatsude.machine import cores, memory

__all__ = ["describe"]


def describe() -> dict[str, str]:
    """Name -> value, as the report shows them; nothing that names the owner or a folder."""
    facts = {
        "日時 date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "CPU": f"{_cpu()}, {cores()} コア cores",
        "メモリ memory": f"{memory() / 2**30:.1f} GiB" if memory() else "",
        "OS": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "yatsude": __version__,
    }
    return {name: value for name, value in facts.items() if value}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
