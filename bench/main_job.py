"""The main job as a newcomer has it: fresh clone, empty home and caches, `make run` until the page answers.

    python bench/main_job.py                 the default minutes; the bars are for these
    python bench/main_job.py --minutes 0.5   a short one

Prints the time from `make run` to the first answer of the server, the largest sum of the processes' memory (their
share of it where they share, sampled each second), and the figures of the evaluation. Exit code 1 where a bar is
missed.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

MOST_MINUTES, MOST_GIB = 20.0, 4.0
HOUSE = Path(__file__).resolve().parent.parent


def main() -> int:
    """Clone, run, watch, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="10")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as place:
        clone, home = Path(place, "yatsude"), Path(place, "home")
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(HOUSE), str(clone)], check=True)
        page, peak = _watched(clone, home, minutes)
        figures = json.loads((clone / "runs/default/evaluate/figures.json").read_text(encoding="utf-8"))
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=clone, text=True)
    print(f"commit {commit.strip()}, load {os.getloadavg()[0]:.1f}")
    print(f"page answers after {page / 60:.1f} minutes (bar {MOST_MINUTES:g}), peak {peak:.2f} GiB (bar {MOST_GIB:g})")
    for crossing in (figures.pop("results")["training"] or {"crossings": []})["crossings"]:
        minute = "never" if crossing["minute"] is None else f"{crossing['minute']:.1f}"
        print(f"{crossing['order']}-gram's line ({crossing['level']:.3f} in validation) crossed at minute {minute}")
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return 0 if page / 60 <= MOST_MINUTES and peak <= MOST_GIB else 1


def _watched(clone: Path, home: Path, minutes: str) -> tuple[float, float]:
    """Seconds until the page answered, and the peak of memory in GiB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "VIRTUAL_ENV")}
    environment = {**kept, "HOME": str(home), "PIP_CACHE_DIR": str(home / "pip")}
    words = ["make", "run", f"MINUTES={minutes}", f"ARGS=--set serve.port={port}"]
    start, peak = time.monotonic(), 0.0
    job = subprocess.Popen(words, cwd=clone, env=environment, start_new_session=True)
    try:
        while not _answers(port):
            if job.poll() is not None:
                raise SystemExit(f"make run ended with {job.returncode} before the page answered")
            peak = max(peak, _memory(job.pid))
            time.sleep(1)
        return time.monotonic() - start, max(peak, _memory(job.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGINT)
        job.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _memory(session: int) -> float:
    """GiB of all processes of a session, memory that several share counted once."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**20


if __name__ == "__main__":
    sys.exit(main())
