"""`yatsude launch`: what a cluster is handed to train on many machines. It runs nothing itself."""

import typer

from yatsude.cli import launch_kubernetes, launch_slurm

__all__ = ["BELOW", "command"]

BELOW = {"slurm": launch_slurm.command, "kubernetes": launch_kubernetes.command}
"""`yatsude launch slurm`, `yatsude launch kubernetes`."""


def command(context: typer.Context) -> None:
    """Write a batch script for Slurm, or a manifest for Kubernetes, that trains by a recipe."""
    if not context.invoked_subcommand:
        print(context.get_help())
