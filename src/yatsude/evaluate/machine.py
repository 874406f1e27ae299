"""On what machine and with which versions something was measured."""

import platform
from datetime import datetime

import torch

from yatsude import __version__
from yatsude.machine import cores, memory, processor

__all__ = ["describe"]


def describe() -> dict[str, str]:
    """Name -> value, as the report shows them; nothing that names the owner or a folder."""
    facts = {
        "日時 date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "CPU": f"{processor()}, {cores()} コア cores",
        "メモリ memory": f"{memory() / 2**30:.1f} GiB" if memory() else "",
        "OS": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "yatsude": __version__,
    }
    return {name: value for name, value in facts.items() if value}
