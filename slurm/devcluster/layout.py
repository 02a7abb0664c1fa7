"""What a one-machine Slurm consists of: its folder, its ports and the text of its configuration files."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

DEFAULT_FOLDER = Path("/tmp/xr2ct-slurm")
LONGEST_FOLDER = 60
"""Characters. A Unix socket's path has at most 107, and slurmd puts NODE/NODE_JOB.STEP below the folder."""

GPUS = 4
"""A node, none of them real."""


@dataclass
class Cluster:
    """One instance; everything it writes lies below `folder`. Kept in `folder`/cluster.json."""

    folder: Path
    nodes: int = 2
    cpus: int = 8
    """What each node advertises, however few the machine has."""
    accounting: bool = True
    max_array_size: int = 1001
    grace_s: int = 30
    """Between the SIGTERM of a preempted job and its SIGKILL."""
    ports: list[int] = field(default_factory=list)
    """slurmctld's, slurmdbd's, then one a node."""

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge.socket"

    @property
    def database_socket(self) -> Path:
        return self.folder / "mariadb.socket"

    @property
    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    def save(self) -> None:
        values = {**asdict(self), "folder": str(self.folder)}
        (self.folder / "cluster.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Cluster | None:
    """The instance brought up in `folder`, or None where there is none."""
    path = folder / "cluster.json"
    if not path.is_file():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return Cluster(**{**values, "folder": Path(values["folder"])})


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different: several instances may run at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write_configuration(cluster: Cluster) -> None:
    """slurm.conf, gres.conf and, with accounting, slurmdbd.conf."""
    cluster.conf.write_text(slurm_conf(cluster), encoding="utf-8")
    (cluster.folder / "gres.conf").write_text(gres_conf(cluster), encoding="utf-8")
    if cluster.accounting:
        path = cluster.folder / "slurmdbd.conf"
        path.write_text(slurmdbd_conf(cluster), encoding="utf-8")
        path.chmod(0o600)  # slurmdbd refuses any other mode


def slurm_conf(cluster: Cluster) -> str:
    """A Slurm that reacts within seconds: for trying and testing, never for work."""
    host = socket.gethostname().split(".")[0]
    controller, database, *nodes = cluster.ports
    accounting = (
        f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={database}
# With munge this is no password but the socket to reach slurmdbd by.
AccountingStoragePass={cluster.munge_socket}
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5"""
        if cluster.accounting
        else "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none"
    )
    defined = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={cluster.cpus} RealMemory=64000 Gres=gpu:{GPUS}"
        for name, port in zip(cluster.node_names, nodes, strict=True)
    )
    every = f"Nodes=n[1-{cluster.nodes}] State=UP MaxTime=1-0 DefaultTime=30 DefMemPerCPU=1000"
    return f"""# Written by slurm/devcluster/up.
ClusterName=devcluster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={nodes[0]}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: two minutes by default.
AuthInfo=socket={cluster.munge_socket},cred_expire=5
StateSaveLocation={cluster.folder}/state
SlurmctldPidFile={cluster.folder}/spool/slurmctld.pid
SlurmctldLogFile={cluster.folder}/slurmctld.log
SlurmdPidFile={cluster.folder}/spool/slurmd-%n.pid
SlurmdLogFile={cluster.folder}/slurmd-%n.log
SlurmdSpoolDir={cluster.folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
# Nodes are what is written below, not what slurmd finds on the machine.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=12
# slurmd says that tasks have ended once they have, KillWait at most. Were that late, slurmctld would ask
# again a minute later, and end the next attempt of a job that has been requeued by then.
KillWait=5
MessageTimeout=60
MinJobAge=600
InactiveLimit=0
OverTimeLimit=0
JobRequeue=1
MaxArraySize={cluster.max_array_size}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
GresTypes=gpu
{defined}
PartitionName=main {every} Default=YES PriorityTier=5 PreemptMode=OFF
PartitionName=low {every} PriorityTier=1 PreemptMode=REQUEUE GraceTime={cluster.grace_s}
PartitionName=high {every} PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(cluster: Cluster) -> str:
    """GPUs in name only: Slurm hands them out, and no job that gets one finds a device."""
    files = [cluster.folder / f"gpu{number}" for number in range(GPUS)]
    for file in files:
        file.touch()  # slurmd counts files
    return f"NodeName=n[1-{cluster.nodes}] Name=gpu File={cluster.folder}/gpu[0-{GPUS - 1}]\n"


def slurmdbd_conf(cluster: Cluster) -> str:
    """slurmdbd finds MariaDB by MYSQL_UNIX_PORT of its environment."""
    return f"""# Written by slurm/devcluster/up.
DbdHost=localhost
DbdPort={cluster.ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={cluster.munge_socket}
PidFile={cluster.folder}/spool/slurmdbd.pid
LogFile={cluster.folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""
