"""The compiled passes of `kernels.cpp`: built on first use where there is a C++ compiler, absent elsewhere.

They only save time. Each stands beside a reference in PyTorch, in the file that calls it, and both give the same to
rounding; float64 and devices other than the CPU always take the reference.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.files import new_file
from yatsude.progress import say

__all__ = ["aside", "build", "call", "usable"]

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("g++", "clang++", "c++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)
SIGNATURES: dict[str, tuple[str, Any]] = {
    "norm_forward": ("pppp iii f", None),
    "norm_backward": ("pppppp iii", None),
    "swiglu_forward": ("pp ii", None),
    "swiglu_backward": ("ppp ii", None),
    "weights_forward": ("pp iiiiiii f", None),
    "weights_backward": ("pp iiii f", None),
    "cross_entropy": ("ppp ii f", ctypes.c_double),
    "combine": ("pppp iii", None),
    "combine_backward": ("pppppp iii", None),
    "rotate": ("ppp iiiiiiii f", None),
    "collect": ("pp iii", ctypes.c_double),
    "adamw": ("ppppp i ffffffff", None),
}
"""Arguments of each kernel and what it returns: pointers, integers of 64 bits, floats."""
KINDS = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
_lock = threading.Lock()
_aside = False


class _Kernel(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("bf16", ctypes.c_void_p), ("fp32", ctypes.c_void_p))


Table = dict[tuple[str, torch.dtype], Callable[..., Any]]


def usable(*tensors: Tensor) -> bool:
    """Whether kernels take these tensors: all on the CPU, all bf16 or all float32, and the library could be built."""
    dtype = tensors[0].dtype
    if dtype not in (torch.bfloat16, torch.float32):
        return False
    plain = _aside or not all(t.dtype == dtype and t.device.type == "cpu" for t in tensors)
    return not plain and bool(_table())


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Leave the kernels aside, in all threads: what they do, no tracker of PyTorch's operators sees."""
    global _aside  # noqa: PLW0603
    before, _aside = _aside, True
    try:
        yield
    finally:
        _aside = before


def call(name: str, *arguments: Tensor | float | None) -> Any:
    """Run a kernel, in the precision of its first argument: tensors are handed over by address, numbers by value."""
    first = arguments[0]
    assert isinstance(first, Tensor), f"kernel {name}: the first argument decides the precision"
    function = _table()[name, first.dtype]
    return function(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


def build(source: Path, cache: Path, compilers: tuple[str, ...] = COMPILERS) -> Path | None:
    """Compile `source` into a shared library below `cache`, unless it is there; None, and a line why, if that fails.

    The name holds a hash of source, flags, compiler and processor. Processes may build at once: the last rename stays.
    """
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        say(f"no C++ compiler ({', '.join(compilers)}): training runs without compiled passes, slower, to the same end")
        return None
    try:
        # its predefined macros tell the compiler's version and what it makes of this processor
        machine = _run(compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull)
        digest = hashlib.sha256(f"{machine}{FLAGS}{source.read_text('utf-8')}".encode()).hexdigest()
        library = cache / f"kernels-{digest[:16]}.so"
        if not library.is_file():
            start = time.perf_counter()
            with new_file(library) as draft:
                _run(compiler, *FLAGS, "-o", str(draft), str(source))
            say(
                f"compiled the training step's passes with {compiler} in {time.perf_counter() - start:.0f} s: {library}"
            )
        return library
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        say(f"{compiler} cannot build the compiled passes, training runs without: {why.strip().splitlines()[0]}")
        return None


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def _table() -> Table:
    with _lock:  # workers ask at once
        return _loaded()


@functools.cache
def _loaded() -> Table:
    path = build(SOURCE, Path("~/.cache/yatsude/native").expanduser())
    if path is None:
        return {}
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        say(f"{path} cannot be loaded, training runs without compiled passes: {error}")
        return {}
    table: Table = {}
    for kernel in (_Kernel * len(SIGNATURES)).in_dll(library, "kernels"):
        name = kernel.name.decode()
        arguments, result = SIGNATURES[name]
        kind = ctypes.CFUNCTYPE(result, *(KINDS[letter] for letter in arguments if letter != " "))
        table[name, torch.bfloat16], table[name, torch.float32] = kind(kernel.bf16), kind(kernel.fp32)
    return table
