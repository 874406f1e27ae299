"""`yatsude launch slurm`."""

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.errors import RecipeError
from yatsude.files import new_file
from yatsude.progress import say
from yatsude.spec.launch import LOST
from yatsude.train.cluster import Nodes, name_of

__all__ = ["command", "script"]

TIME = re.compile(r"\d+|(\d+-)?\d+:\d\d(:\d\d)?|\d+-\d+")
NOTICE_S = 300
"""Before its time is over a job is told, so that it can write a state."""


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file with settings.")],
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")],
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each; 0: ranks run on CPUs.")],
    time: Annotated[str, typer.Option(help="How long a job may run: D-HH:MM:SS. It is queued again until done.")],
    partition: Annotated[str, typer.Option(help="Slurm's partition.")] = "",
    container: Annotated[str, typer.Option(help="Image, for Slurm's pyxis plugin.")] = "",
    mounts: Annotated[str, typer.Option(help="FROM:TO,… of the container; by default the current folder.")] = "",
    min_nodes: Annotated[int, typer.Option(min=0, help="Go on with so many if some are lost; 0: with all only.")] = 0,
    cpus_per_node: Annotated[int, typer.Option(min=0, help="Cores of each; 0: whole machines.")] = 0,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the machines find each other.")] = 29500,
    run: options.Run = Path("runs/default"),
    sets: options.Sets = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default it is printed.")] = None,
) -> None:
    """Write a batch script that trains on many machines, and is queued again when its time is over."""
    if not TIME.fullmatch(time):
        raise RecipeError(f"--time {time}: expected minutes, HH:MM:SS or D-HH:MM:SS")
    if seconds(time) < 2 * NOTICE_S:
        raise RecipeError(
            f"--time {time}: {NOTICE_S} s before its end a job stops; expected {2 * NOTICE_S // 60} min or more"
        )
    if partition and not re.fullmatch(r"[\w.,-]+", partition):
        raise RecipeError(f"--partition {partition}: expected names of partitions, with commas")
    settings = options.Settings(recipe, sets)
    wanted = Nodes(
        recipe=recipe, run=run, sets=tuple(sets or ()), nodes=nodes, gpus=gpus_per_node, min_nodes=min_nodes, port=port
    )
    wanted.check(settings.of("parallel"))
    text = script(wanted, time=time, partition=partition, container=container, mounts=mounts, cpus=cpus_per_node)
    if out is None:
        print(text, end="")
        return
    with new_file(out) as draft:
        draft.write_text(text, encoding="utf-8")
    say(f"submit it with: sbatch {shlex.quote(str(out))}")


def _word(text: str) -> str:
    """A value as a line of #SBATCH takes it."""
    return json.dumps(text, ensure_ascii=False) if re.search(r"\s", text) else text


def seconds(time: str) -> int:
    """Seconds of a time as Slurm writes it.

    >>> [seconds(time) for time in ("30", "30:15", "1:30:00", "2-0", "1-12:00")]
    [1800, 1815, 5400, 172800, 129600]
    """
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # hours come first then
        hours, minutes, last = (*parts, 0, 0)[:3]
    else:
        hours, minutes, last = (0, *parts, 0)[:3] if len(parts) < 3 else parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + last


def script(nodes: Nodes, *, time: str, partition: str, container: str, mounts: str, cpus: int) -> str:
    """The batch script: one agent a machine, which starts that machine's ranks."""
    name = name_of(nodes.run)
    logs = shlex.quote(str(nodes.run / "slurm"))
    head = {
        "job-name": name,
        "nodes": nodes.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": nodes.gpus or None,
        "cpus-per-task": cpus or None,
        "exclusive": None if cpus else "",
        "time": time,
        "partition": partition or None,
        "signal": f"B:USR1@{NOTICE_S}",
        "requeue": "",
        "no-kill": "",
        "open-mode": "append",
        "output": _word(f"{nodes.run / 'slurm'}-%j.log"),
    }
    lines = [
        f"#SBATCH --{key}" + (f"={value}" if value != "" else "") for key, value in head.items() if value is not None
    ]
    inside = f" --container-image={shlex.quote(container)}" if container else ""
    if container:
        inside += f' --container-mounts="{mounts or "$PWD:$PWD"}" --container-workdir="$PWD"'
    words = " \\\n    ".join([*nodes.command, '--set launch.rendezvous="$first:' + f'{nodes.port}"'])
    return f"""#!/bin/bash
{chr(10).join(lines)}

# One agent a machine; it starts the ranks of that machine, and starts them again when some are lost.
set -u
mkdir -p {logs}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --ntasks-per-node=1 --no-kill --kill-on-bad-exit=0{inside} \\
    --output={logs}/%j-%n-%N.log --open-mode=append \\
    {words} &
agents=$!

# USR1 comes {NOTICE_S} s before the time is over, TERM when somebody else needs the machines or has cancelled the job.
over=
trap 'over=1; kill -USR1 "$agents"' USR1
trap 'kill -TERM "$agents"' TERM
while wait "$agents"; code=$?; kill -0 "$agents" 2>/dev/null; do :; done
wait "$agents" && code=0 || code=$?

# {nodes.stopped}: a state is written, and the same script goes on from it. {LOST}: the machine where all meet is lost.
if [ "$code" -eq {LOST} ] || {{ [ -n "$over" ] && [ "$code" -eq {nodes.stopped} ]; }}; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
