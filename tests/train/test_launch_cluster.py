"""What clusters are handed, rehearsed: script and manifest start processes of this machine as their nodes."""

import getpass
import itertools
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from yatsude.cli.main import application
from yatsude.spec.launch import STOPPED

RECIPE = """
[model]
preset = "pico"
[parallel]
dp = 2
[train]
steps = 10
sequences_per_step = 8
sequence_length = 16
evaluations = 0
checkpoint_steps = 2
precision = "fp32"
candidates = 0
workers = 1
"""
SRUN = """#!/bin/bash
# Starts the command once for each node, passes signals on, and ends with the highest exit code.
while [ "${1#--}" != "$1" ]; do echo "$1" >> "$CLUSTER/options"; shift; done
tasks=
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
    SLURM_NODEID=$node "$@" 2>> "$CLUSTER/node-$node.log" & tasks="$tasks $!"
done
for name in USR1 TERM; do trap "kill -$name $tasks" $name; done
highest=0
for task in $tasks; do
    while wait $task; code=$?; kill -0 $task 2>/dev/null; do :; done
    wait $task; code=$?
    [ $code -gt $highest ] && highest=$code
done
exit $highest
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'localhost\\nother\\n'; else echo "$@" >> "$CLUSTER/scontrol"; fi
"""
YATSUDE = f"""#!/bin/bash
exec {sys.executable} -m yatsude.cli "$@"
"""


@pytest.fixture
def cluster(tokens, tmp_path, monkeypatch):
    """A folder with a recipe and a run, and programs of a cluster before all others."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokenizer").symlink_to(tokens)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "yatsude": YATSUDE}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(*words):
    with pytest.raises(SystemExit) as end:
        application()(["launch", *map(str, words)])
    return end.value.code


def told(cluster):
    return "".join(path.read_text() for path in sorted(cluster.glob("node-*.log")))


def submit(cluster):
    environment = {**os.environ, "SLURM_JOB_NODELIST": "any[0-1]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    return subprocess.Popen(["bash", "job.sbatch"], env=environment)


def test_a_batch_script_stops_before_its_time_is_over_and_goes_on_when_it_is_queued_again(cluster, port):
    words = ["recipe.toml", "--nodes", 2, "--gpus-per-node", 1, "--time", "1-00:00:00", "--run", "run"]
    assert launch("slurm", *words, "--port", port, "--partition", "large", "--out", "job.sbatch") == 0
    job = submit(cluster)
    deadline = time.monotonic() + 180
    while not list(cluster.glob("run/train/checkpoints/step-*/complete.json")):
        assert time.monotonic() < deadline, told(cluster)
        assert job.poll() is None, told(cluster)
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(180) == STOPPED, told(cluster)
    assert (cluster / "scontrol").read_text() == "requeue 7\n"
    assert submit(cluster).wait(180) == 0, told(cluster)
    assert "resuming" in told(cluster)
    assert (cluster / "run" / "train" / "model" / "config.json").is_file()
    assert (cluster / "scontrol").read_text() == "requeue 7\n"  # once only


def test_a_batch_script_asks_for_what_was_wished(cluster, capsys):
    words = ["recipe.toml", "--nodes", 2, "--gpus-per-node", 1, "--time", "30", "--run", "run", "--min-nodes", 1]
    assert launch("slurm", *words, "--container", "a/b:1", "--set", "train.seed=3", "--partition", "large") == 0
    text = capsys.readouterr().out
    for line in ("nodes=2", "gpus-per-node=1", "time=30", "partition=large", "signal=B:USR1@300", "requeue", "no-kill"):
        assert f"#SBATCH --{line}\n" in text
    assert "--container-image=a/b:1" in text
    assert "--set train.seed=3" in text
    assert "--set launch.min_nodes=1" in text
    (cluster / "script").write_text(text)
    assert subprocess.run(["bash", "-n", "script"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "soon"], "--time soon: expected minutes"),
        (["--time", "0:03:00"], "--time 0:03:00: 300 s before its end a job stops; expected 10 min or more"),
        (["--partition", "a b; rm"], "--partition a b; rm: expected names of partitions"),
        (["--gpus-per-node", "8"], "2 machines with 8 GPUs have 16 ranks"),
        (["--min-nodes", "3"], "launch.min_nodes = 3: expected at most launch.nodes = 2"),
        (["--nodes", "3", "--gpus-per-node", "0"], "launch.nodes = 3: expected a divisor of the 2 ranks"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_queued(cluster, capsys, words, said):
    usual = {"--nodes": "2", "--gpus-per-node": "1", "--time": "30"} | dict(zip(words[::2], words[1::2], strict=True))
    assert launch("slurm", "recipe.toml", *itertools.chain(*usual.items())) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--claim", "Runs_X"], "--claim Runs_X: expected small letters"),
        (["--namespace", "A_B"], "--namespace A_B: expected small letters"),
        (["--memory", "lots"], "--memory lots: expected bytes as Kubernetes writes them, such as 64Gi"),
        (["--run", "../etc"], "--run ../etc: expected a folder in the claim"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(cluster, capsys, words, said):
    usual = {"--nodes": "2", "--gpus-per-node": "1", "--image": "i", "--claim": "runs", "--run": "run"}
    usual |= dict(zip(words[::2], words[1::2], strict=True))
    assert launch("kubernetes", "recipe.toml", *itertools.chain(*usual.items())) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")


def manifest(*words):
    usual = ["recipe.toml", "--nodes", 2, "--gpus-per-node", 1, "--image", "registry/yatsude:1", "--claim", "runs"]
    assert launch("kubernetes", *usual, "--run", "run", *words, "--out", "job.yaml") == 0
    with open("job.yaml", encoding="utf-8") as stream:
        return list(yaml.safe_load_all(stream))


@pytest.mark.usefixtures("cluster")
def test_a_manifest_is_one_that_kubernetes_knows():
    validate = pytest.importorskip("kubernetes_validate").validate
    settings, service, jobs = manifest("--memory", "64Gi", "--min-nodes", 1)
    (inner,) = jobs["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, **inner["template"]}
    for page in (settings, service, job):
        validate(page, "1.31", strict=True)
    assert settings["data"]["recipe.toml"].strip() == RECIPE.strip()
    assert service["spec"]["clusterIP"] == "None"
    assert jobs["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobs["spec"]["network"]["subdomain"] == service["metadata"]["name"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "64Gi"}
    assert "--set launch.rendezvous=yatsude-run-node-0-0.yatsude-run:29500" in container["args"][0]
    assert "secret" not in json.dumps([settings, service, jobs]).lower()


@pytest.mark.soak
def test_the_command_of_a_manifest_trains_in_its_pods(cluster, port):
    """With the names that JobSet gives to pods standing for this machine, and its mounts for folders of it."""
    _, _, jobs = manifest("--port", port)
    (container,) = jobs["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    places = {"yatsude-run-node-0-0.yatsude-run": "localhost", "/runs/": f"{cluster}/", "/recipe/": f"{cluster}/"}
    command = container["command"] + container["args"]
    for there, here in places.items():
        command = [re.sub(re.escape(there), here, word) for word in command]
    given = {"JOBSET_NAME": "yatsude-run", "REPLICATED_JOB_NAME": "node", "JOB_INDEX": "0"}
    pods = []
    for index in range(2):
        environment = {**os.environ, **given, "JOB_COMPLETION_INDEX": str(index)}
        with (cluster / f"node-{index}.log").open("w") as log:
            pods.append(subprocess.Popen(command, env=environment, stderr=log, cwd="/"))
    assert [pod.wait(240) for pod in pods] == [0, 0], told(cluster)
    assert (cluster / "run" / "train" / "model" / "config.json").is_file()


def test_writing_these_needs_no_torch(cluster):
    script = (
        "import sys\nfrom yatsude.cli.main import application\n"
        "try: application()(['launch', 'slurm', 'recipe.toml', '--nodes=1', '--gpus-per-node=2', '--time=10'])\n"
        "finally: print([name for name in ('torch', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cluster, check=False)
    assert done.stdout.endswith("[]\n"), done.stderr


@pytest.fixture
def slurm(cluster, monkeypatch):
    """A real Slurm on this machine, with two nodes: a controller and two daemons, no accounts."""
    controller, daemon = shutil.which("slurmctld"), shutil.which("slurmd")
    if not (controller and daemon):
        pytest.skip("needs Slurm (Debian: slurm-wlm)")
    root = Path(daemon).resolve().parent
    plugins = next((root.parent / "lib").rglob("auth_none.so")).parent
    for name in ("srun", "scontrol"):
        (cluster / "bin" / name).unlink()
    host = socket.gethostname()
    lines = {
        "ClusterName": "here", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": 17817,
        "SlurmUser": getpass.getuser(), "AuthType": "auth/none", "CredType": "cred/none", "PluginDir": plugins,
        "StateSaveLocation": cluster, "SlurmdSpoolDir": cluster / "spool-%n", "SlurmctldPidFile": cluster / "ctl.pid",
        "SlurmdPidFile": cluster / "%n.pid", "SlurmctldLogFile": cluster / "ctl.txt",
        "SlurmdLogFile": cluster / "%n.txt", "ProctrackType": "proctrack/pgid", "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "MpiDefault": "none",
        "SlurmdParameters": "config_overrides",
        "NodeName": f"127.0.0.[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17818-17819] CPUs=1",
        "PartitionName": "all Nodes=ALL Default=YES State=UP",
    }  # fmt: skip
    conf = cluster / "slurm.conf"
    conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    steps = next(root.glob("slurmstepd*"))
    daemons = [[controller, "-D"], *([daemon, "-D", "-N", name, "-d", steps] for name in ("127.0.0.1", "127.0.0.2"))]
    begun = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in daemons]
    yield
    subprocess.run(["scancel", "--full", "--signal=KILL", "1"], check=False)
    for one in reversed(begun):
        one.terminate()
        one.wait(30)


def ask(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout or done.stderr


def soon(what, cluster, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        logs = "".join(path.read_text() for path in (*cluster.glob("run/slurm*/*.log"), *cluster.glob("*.txt")))
        assert time.monotonic() < deadline, logs
        time.sleep(0.2)
    return found


@pytest.mark.soak
@pytest.mark.usefixtures("slurm")
def test_a_real_slurm_runs_the_script_and_queues_it_again(cluster, port):
    words = ["recipe.toml", "--nodes", 2, "--gpus-per-node", 0, "--cpus-per-node", 1, "--time", 20, "--run", "run"]
    assert launch("slurm", *words, "--port", port, "--set", "train.steps=40", "--out", "job.sbatch") == 0
    soon(lambda: ask("sinfo", "-h", "-o", "%D %t") == "2 idle\n", cluster, seconds=40)
    assert ask("sbatch", "job.sbatch") == "Submitted batch job 1\n"
    soon(lambda: list(cluster.glob("run/train/checkpoints/step-*/complete.json")), cluster)
    ask("scancel", "--batch", "--signal=USR1", "1")  # as Slurm does before the time is over
    soon(lambda: "Restarts=1 " in ask("scontrol", "show", "job", "1"), cluster)
    soon(lambda: "JobState=PENDING" in ask("scontrol", "show", "job", "1"), cluster)
    ask("scontrol", "update", "JobId=1", "StartTime=now")  # Slurm waits two minutes by itself
    soon(lambda: "JobState=COMPLETED" in ask("scontrol", "show", "job", "1"), cluster)
    assert "resuming" in (cluster / "run" / "slurm" / f"1-0-{socket.gethostname()}.log").read_text()
    assert (cluster / "run" / "train" / "model" / "config.json").is_file()
