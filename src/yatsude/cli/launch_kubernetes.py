"""`yatsude launch kubernetes`."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.errors import RecipeError
from yatsude.files import new_file
from yatsude.progress import say
from yatsude.train.cluster import Nodes, name_of

__all__ = ["command", "manifest"]

MOUNT, RECIPE = "/runs", "/recipe/recipe.toml"
TRIES = 10
"""How often each pod may be started again before all begin anew."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
AMOUNT = re.compile(r"\d+(\.\d+)?([kMGTP]i?|Ki)?")
GRACE_S = 300
"""A machine that is taken away waits so long for the state to be written."""


def command(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="TOML file with settings; it goes into the manifest.")
    ],
    image: Annotated[str, typer.Option(help="Container image with yatsude in it.")],
    nodes: Annotated[int, typer.Option(min=1, help="Machines: a pod each.")],
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each; 0: ranks run on CPUs.")],
    claim: Annotated[str, typer.Option(help="Volume claim with the runs, which all pods can write to.")],
    min_nodes: Annotated[int, typer.Option(min=0, help="Go on with so many if some are lost; 0: with all only.")] = 0,
    memory: Annotated[str, typer.Option(help="Memory of each pod, such as 1500Gi.")] = "",
    shared_memory: Annotated[str, typer.Option(help="Of that, shared between its processes.")] = "64Gi",
    restarts: Annotated[int, typer.Option(min=0, help="How often all begin anew when pods keep failing.")] = 10,
    namespace: Annotated[str, typer.Option(help="Kubernetes' namespace.")] = "default",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the pods find each other.")] = 29500,
    run: options.Run = Path("default"),
    sets: options.Sets = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default it is printed.")] = None,
) -> None:
    """Write a JobSet that trains on many machines; --run is a folder in the claim."""
    settings = options.Settings(recipe, sets)
    if run.is_absolute() or ".." in run.parts:
        raise RecipeError(f"--run {run}: expected a folder in the claim, such as {run.name or 'default'}")
    for option, value in (("claim", claim), ("namespace", namespace)):
        if not NAME.fullmatch(value):
            raise RecipeError(f"--{option} {value}: expected small letters, digits and hyphens")
    for option, value in (("memory", memory), ("shared-memory", shared_memory)):
        if value and not AMOUNT.fullmatch(value):
            raise RecipeError(f"--{option} {value}: expected bytes as Kubernetes writes them, such as 64Gi")
    wanted = Nodes(
        recipe=Path(RECIPE),
        run=Path(MOUNT) / run,
        sets=tuple(sets or ()),
        nodes=nodes,
        gpus=gpus_per_node,
        min_nodes=min_nodes,
        port=port,
    )
    wanted.check(settings.of("parallel"))
    text = manifest(
        wanted,
        recipe=recipe.read_text(encoding="utf-8"),
        image=image,
        claim=claim,
        memory=memory,
        shared_memory=shared_memory,
        restarts=restarts,
        namespace=namespace,
    )
    if out is None:
        print(text, end="")
        return
    with new_file(out) as draft:
        draft.write_text(text, encoding="utf-8")
    say(f"apply it with: kubectl apply -f {out}")


def manifest(
    nodes: Nodes,
    *,
    recipe: str,
    image: str,
    claim: str,
    memory: str,
    shared_memory: str,
    restarts: int,
    namespace: str,
) -> str:
    """The recipe as a ConfigMap, a headless service by which pods find each other, and the JobSet."""
    name = name_of(nodes.run)
    resources = {"nvidia.com/gpu": nodes.gpus or None, "memory": memory or None}
    limits = "".join(f"\n                  {key}: {value}" for key, value in resources.items() if value is not None)
    asked = f"\n              resources:\n                limits:{limits}" if limits else ""
    words = " ".join([*nodes.command, f"--set launch.rendezvous={name}-node-0-0.{name}:{nodes.port}"])
    return f"""apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  namespace: {namespace}
data:
  recipe.toml: {json.dumps(recipe)}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    jobset.sigs.k8s.io/jobset-name: {name}
---
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
  namespace: {namespace}
spec:
  network:
    enableDNSHostnames: true
    subdomain: {name}
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: {restarts}
    rules:
      - name: our-error
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: node
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: {nodes.nodes}
          parallelism: {nodes.nodes}
          backoffLimit: {nodes.nodes * TRIES}
          podFailurePolicy:
            rules:
              - action: Ignore  # a machine that is taken away is no failure of the job
                onPodConditions:
                  - type: DisruptionTarget
                    status: "True"
              - action: Ignore  # asked to stop, and a state is written
                onExitCodes:
                  containerName: train
                  operator: In
                  values: [{nodes.stopped}]
              - action: FailJob  # what a new start does not mend
                onExitCodes:
                  containerName: train
                  operator: In
                  values: [1]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: {GRACE_S}
              containers:
                - name: train
                  image: {json.dumps(image)}
                  command: [/bin/sh, -c]
                  args:
                    - {json.dumps("exec " + words, ensure_ascii=False)}
                  ports:
                    - containerPort: {nodes.port}{asked.replace(chr(10), chr(10) + "    ")}
                  volumeMounts:
                    - name: runs
                      mountPath: {MOUNT}
                    - name: recipe
                      mountPath: {Path(RECIPE).parent!s}
                    - name: shared-memory
                      mountPath: /dev/shm
              volumes:
                - name: runs
                  persistentVolumeClaim:
                    claimName: {json.dumps(claim)}
                - name: recipe
                  configMap:
                    name: {name}
                - name: shared-memory
                  emptyDir:
                    medium: Memory
                    sizeLimit: {json.dumps(shared_memory)}
"""
