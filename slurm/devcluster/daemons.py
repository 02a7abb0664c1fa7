"""munge, MariaDB, slurmdbd, slurmctld and a slurmd a node: up in that order, down in the other."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import layout
import processes
from layout import Cluster
from processes import Failed

PACKAGES = {
    "munged": "munge",
    "mungekey": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "sbatch": "slurm-client",
}
ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
"""What Debian and Ubuntu call the packages of these commands."""


def check_machine(accounting: bool = True) -> None:
    """`Failed` naming what this machine lacks."""
    if os.geteuid() != 0:
        raise Failed("not root: slurmd starts tasks as the users who submit them; run this as root (sudo)")
    needed = {**PACKAGES, **(ACCOUNTING_PACKAGES if accounting else {})}
    path = processes.environment(Cluster(Path("/")))["PATH"]
    missing = sorted({package for name, package in needed.items() if not shutil.which(name, path=path)})
    if missing:
        raise Failed(f"packages are missing: apt-get install --no-install-recommends {' '.join(missing)}")


def bring_up(cluster: Cluster) -> None:
    """Start what does not run yet."""
    for name in ("state", "spool", *(f"spool/{node}" for node in cluster.node_names)):
        (cluster.folder / name).mkdir(parents=True, exist_ok=True)
    start_munge(cluster)
    if cluster.accounting:
        start_database(cluster)
        start_accounting(cluster)
    if processes.pid(cluster, "slurmctld") is None:
        processes.start(cluster, "slurmctld", ["slurmctld", "-D", "-f", str(cluster.conf)])
        processes.wait(cluster, "slurmctld", lambda: answers(cluster, "scontrol", "ping"))
    for node in cluster.node_names:
        start_node(cluster, node)
    for node in cluster.node_names:
        wait_node(cluster, node)


def bring_down(cluster: Cluster) -> None:
    """End this instance's daemons and every job; leave its files."""
    processes.stop(cluster, "slurmctld")  # first: it would requeue what dies with the nodes
    for node in cluster.node_names:
        processes.stop(cluster, f"slurmd-{node}")
        processes.kill_tasks(cluster, node)
    for name in ("slurmdbd", "mariadbd", "munged"):
        processes.stop(cluster, name)


def answers(cluster: Cluster, *words: str) -> bool:
    try:
        processes.command(cluster, *words, timeout_s=10.0)
    except (Failed, subprocess.TimeoutExpired):
        return False
    return True


def start_munge(cluster: Cluster) -> None:
    if processes.pid(cluster, "munged") is not None:
        return
    key = cluster.folder / "munge.key"
    if not key.exists():
        processes.command(cluster, "mungekey", "--create", f"--keyfile={key}")
    options = [
        f"--key-file={key}",
        f"--socket={cluster.munge_socket}",
        f"--pid-file={cluster.folder}/spool/munged.pid",
        f"--seed-file={cluster.folder}/munge.seed",
    ]
    # --force: munged refuses a socket below a folder that others may write to, such as /tmp.
    processes.start(cluster, "munged", ["munged", "--foreground", "--force", *options])
    socket = f"--socket={cluster.munge_socket}"
    processes.wait(cluster, "munged", lambda: answers(cluster, "munge", "--no-input", socket))


def start_database(cluster: Cluster) -> None:
    if processes.pid(cluster, "mariadbd") is not None:
        return
    data = cluster.folder / "mariadb"
    # None of the machine's own configuration; reached by the socket in this folder alone, so no password.
    base = ["--no-defaults", f"--datadir={data}", "--user=root"]
    if not (data / "mysql").is_dir():
        processes.command(cluster, "mariadb-install-db", *base, "--skip-test-db", timeout_s=180.0)
    options = [
        "--skip-networking",
        "--skip-grant-tables",
        f"--socket={cluster.database_socket}",
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    processes.start(cluster, "mariadbd", ["mariadbd", *base, *options])
    socket = f"--socket={cluster.database_socket}"
    ping = ("mariadb-admin", "--no-defaults", socket, "ping")
    processes.wait(cluster, "mariadbd", lambda: answers(cluster, *ping))


def start_accounting(cluster: Cluster) -> None:
    if processes.pid(cluster, "slurmdbd") is not None:
        return
    processes.start(cluster, "slurmdbd", ["slurmdbd", "-D"])
    show = ("sacctmgr", "--noheader", "--parsable2", "show")
    processes.wait(cluster, "slurmdbd", lambda: answers(cluster, *show, "cluster"))
    if "devcluster" in processes.command(cluster, *show, "cluster", "format=cluster"):
        return
    for words in (
        ("add", "cluster", "devcluster"),
        ("add", "qos", "few", "set", "MaxSubmitJobsPerUser=4"),
        ("add", "account", "lab", "Description=lab", "Organization=lab"),
        ("add", "user", "root", "Account=lab"),
        ("modify", "user", "root", "set", "qos=normal,few", "defaultqos=normal", "defaultaccount=lab"),
    ):
        processes.command(cluster, "sacctmgr", "--immediate", *words)


def start_node(cluster: Cluster, node: str) -> None:
    if processes.pid(cluster, f"slurmd-{node}") is None:
        words = ["slurmd", "-D", "-N", node, "-f", str(cluster.conf)]
        processes.start(cluster, f"slurmd-{node}", words)


def wait_node(cluster: Cluster, node: str) -> None:
    """Until slurmctld hands jobs to the node."""

    def usable() -> bool:
        state = processes.command(cluster, "sinfo", "--noheader", f"--nodes={node}", "--format=%T")
        return state.split("\n")[0] in ("idle", "mixed", "allocated", "completing")

    processes.wait(cluster, f"slurmd-{node}", usable)


def folder_of(text: str) -> Path:
    """The instance's folder as an absolute path; `Failed` where sockets below it could not be opened."""
    folder = Path(text).resolve()
    if len(str(folder)) > layout.LONGEST_FOLDER:
        raise Failed(
            f"--dir {folder}: at most {layout.LONGEST_FOLDER} characters, since sockets lie below it"
        )
    if set(str(folder)) & set(" %,#=\"'\\"):
        raise Failed(f"--dir {folder}: slurm.conf cannot name a folder with spaces, quotes or any of %,#=")
    return folder


def existing(text: str) -> Cluster:
    """The instance in that folder."""
    folder = folder_of(text)
    cluster = layout.load(folder)
    if cluster is None:
        raise Failed(f"--dir {folder}: no Slurm was brought up here")
    return cluster
