"""What all clusters are told alike: machines, and the command that each of them runs. No torch."""

import dataclasses
import re
import shlex
from pathlib import Path

from yatsude.errors import RecipeError
from yatsude.spec.launch import STOPPED, LaunchSettings
from yatsude.spec.parallel import ParallelSettings

__all__ = ["Nodes", "name_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nodes:
    """Machines of a job, and what they train."""

    recipe: Path
    run: Path
    sets: tuple[str, ...]
    nodes: int
    gpus: int
    """Of each machine; 0: ranks run on CPUs."""
    min_nodes: int
    port: int

    stopped = STOPPED

    def check(self, parallel: ParallelSettings) -> None:
        """Refuse a recipe that is not for so many machines and GPUs."""
        if self.gpus and parallel.ranks != self.nodes * self.gpus:
            raise RecipeError(
                f"{self.nodes} machines with {self.gpus} GPUs have {self.nodes * self.gpus} ranks, [parallel] pp x"
                f" replicas x dp x cp x tp = {parallel.pp} x {parallel.replicas} x {parallel.dp} x {parallel.cp} x"
                f" {parallel.tp} = {parallel.ranks}; expected as many"
            )
        settings = LaunchSettings(nodes=self.nodes, min_nodes=self.min_nodes, rendezvous=f"first:{self.port}")
        settings.ranks_per_node(parallel)

    @property
    def command(self) -> list[str]:
        """What each machine runs, a line of a script each, but where they meet."""
        given = [f"--set {shlex.quote(one)}" for one in self.sets]
        return [
            f"yatsude train --recipe {shlex.quote(str(self.recipe))} --run {shlex.quote(str(self.run))}",
            *given,
            f"--set launch.nodes={self.nodes} --set launch.min_nodes={self.min_nodes}",
        ]


def name_of(run: Path) -> str:
    """Name of a job, as clusters allow it: small letters, digits and hyphens.

    >>> name_of(Path("runs/Great_700B"))
    'yatsude-great-700b'
    """
    word = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")[:30].strip("-")
    return f"yatsude-{word}" if word else "yatsude"
