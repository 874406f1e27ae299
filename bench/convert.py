"""Convert and verify a folder of some gigabytes, beside `cp` then `sha256sum` of the same files, both synced.

    python bench/convert.py                      4 GB, bfloat16 to bfloat16, three rounds
    python bench/convert.py --gigabytes 1 --rounds 1 --dtype float8

The folder is a DeepSeek-V3 layout with random weights. Each round does both, one after the other. Printed are seconds
(medians), their ratio, and the peak memory of the converting process. Exit code 1 where a bar is missed.
"""

import argparse
import dataclasses
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import torch
from torch import Tensor

from yatsude.checkpoint.write import Precision, write
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.spec.presets import preset
from yatsude.spec.stored import stored

MOST_RATIO, MOST_GB = 1.5, 1.2
SHARD_BYTES = 1_000_000_000
HOUSE = Path(__file__).resolve().parent.parent


class Random:
    """Weights drawn as they are asked for."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._shapes = {name: entry.shape for name, entry in stored(config).items()}
        self._numbers = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).bfloat16()

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        shape = self._shapes[name]
        shape = shape if rows is None else (rows[1] - rows[0], *shape[1:])
        size = math.prod(shape)
        start = zlib.crc32(f"{name} {rows}".encode()) % 1000
        repeated = self._numbers[start:].repeat(-(-size // (len(self._numbers) - start)))[:size]
        return 1 + 0.1 * repeated.view(shape) if len(shape) == 1 else repeated.view(shape) * shape[-1] ** -0.5

    def lies(self, name: str) -> None:
        """In no folder."""


def main() -> int:
    """Make the folder, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = _source(Path(place), options.gigabytes)
        seconds: dict[str, list[float]] = {"cp": [], "sha256sum": [], "convert": []}
        peaks = []
        for _ in range(options.rounds):
            copied, converted = Path(place, "copied"), Path(place, "converted")
            seconds["cp"].append(_timed(f"cp -r {source} {copied} && sync {copied}/*"))
            seconds["sha256sum"].append(_timed(f"sha256sum {copied}/* > /dev/null"))
            shutil.rmtree(copied)
            start = time.perf_counter()
            peaks.append(_convert(source, converted, options.dtype))
            seconds["convert"].append(time.perf_counter() - start)
            shutil.rmtree(converted)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["convert"] / (medians["cp"] + medians["sha256sum"])
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=HOUSE, text=True).strip()
    print(f"commit {commit}, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds")
    print(f"cp and sync {medians['cp']:.1f} s, sha256sum {medians['sha256sum']:.1f} s")
    print(f"convert and verify ({options.dtype}) {medians['convert']:.1f} s: {ratio:.2f} times both (bar {MOST_RATIO})")
    print(f"peak memory {max(peaks):.2f} GB (bar {MOST_GB})")
    return 0 if ratio <= MOST_RATIO and max(peaks) <= MOST_GB else 1


def _source(place: Path, gigabytes: float) -> Path:
    """A folder of about this size: the layout of the large preset, narrower, with as many layers as fit."""
    base = preset(
        "700b",
        hidden_size=2048,
        num_hidden_layers=4,
        intermediate_size=8192,
        moe_intermediate_size=1024,
        num_attention_heads=16,
        n_routed_experts=64,
        num_experts_per_tok=8,
        first_k_dense_replace=1,
        num_nextn_predict_layers=0,
        vocab_size=100_000,
    )
    layers = 2
    while 2 * count(dataclasses.replace(base, num_hidden_layers=layers + 1)).total <= gigabytes * 1e9:
        layers += 1
    config = dataclasses.replace(base, num_hidden_layers=layers)
    folder = place / "source"
    folder.mkdir()
    write(Random(config), folder, Precision(torch.bfloat16), SHARD_BYTES)
    (folder / "tokenizer.json").write_text('{"added_tokens": [], "model": {"vocab": {"a": 0}}}')
    (folder / "LICENSE").write_text("For this measurement alone.\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{size / 1e9:.2f} GB, {count(config).total / 1e9:.2f} B parameters in {layers} layers")
    subprocess.run(["sync"], check=True)
    return folder


def _timed(command: str) -> float:
    start = time.perf_counter()
    subprocess.run(["sh", "-c", command], check=True)
    return time.perf_counter() - start


def _convert(source: Path, target: Path, dtype: str) -> float:
    """Run the verb as a user does; gigabytes of its peak."""
    words = ["convert", str(source), str(target)]
    words += ["--set", f"export.dtype={dtype}", "--set", f"export.shard_bytes={SHARD_BYTES}"]
    script = "import resource, sys; from yatsude.cli.main import main\ntry: main()\n"
    script += "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.rsplit("peak", 1)[1]) * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
