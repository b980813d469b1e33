"""A real SLURM cluster of simulated nodes on one machine, for the tests that submit jobs.

    python tests/slurm/cluster.py up [--force]
    python tests/slurm/cluster.py status
    python tests/slurm/cluster.py down [--purge]

`up` installs the packages that are missing, writes /etc/slurm, starts every daemon and returns once all nodes take
jobs. On a healthy cluster it returns at once; on a damaged one it starts what died and resumes what is down. `status`
exits with 0 if the cluster is healthy. `down` cancels all jobs and leaves no process; `--purge` also removes the
configuration, the accounting data and the logs. It takes root, but no systemd or cgroups.

The controller, the accounting (slurmdbd on MariaDB, so `sacct` tells the truth) and one slurmd a node are the genuine
daemons; only the sizes of the nodes and their two GPUs are made up. What a job can meet there:

    partition   tier   preemption
    main        5      never preempted; the default
    low         1      requeued for a job of a higher tier, GraceTime seconds after SIGTERM
    high        10     never preempted

Everything but /etc/slurm lives under LAB_SLURM_DIR (default /var/lib/lab-slurm): log/, run/, the data of each daemon.
"""

import argparse
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STATE = Path(os.environ.get("LAB_SLURM_DIR", "/var/lib/lab-slurm")).resolve()
LOG, RUN = STATE / "log", STATE / "run"
ETC = Path("/etc/slurm")
MARKER = "# Written by tests/slurm/cluster.py; changes are lost at its next `up`.\n"
PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server"]
PARTITIONS = ["main", "low", "high"]
NODES, CPUS, MEMORY = 2, 8, 8000  # nodes n1 and n2, with CPUs and MB each
# Unusual ports, so that a cluster or database which the machine already runs is left in peace.
CONTROL_PORT, ACCOUNTING_PORT, DATABASE_PORT, NODE_PORT = 17817, 17819, 17820, 17900

SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}/slurmctld
SlurmctldPidFile={state}/slurmctld/pid
SlurmdPidFile={state}/slurmd.%n/pid
SlurmdSpoolDir={state}/slurmd.%n
AuthType=auth/munge
CredType=cred/munge
# A requeued job is held back until its old credential expires: 120 s by default. KillWait must be well below it.
AuthInfo=cred_expire=8,socket={state}/munge/socket
KillWait=2

# Nodes are as large as the configuration says, whatever the machine has; there are no cgroups to lean on.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
# Without cgroups memory is measured once a second, and a step above its request is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting}
# AuthInfo does not reach the accounting: there the socket of munge goes by the name of a password.
AccountingStoragePass={state}/munge/socket
AccountingStorageTRES=gres/gpu

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# A job too large for its partition is refused, where it would otherwise wait for ever.
EnforcePartLimits=ALL
MaxArraySize=2001
MaxJobCount=20000
SchedulerType=sched/backfill
# Tests wait for the scheduler, so it looks at the queue every second.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue
# A node set down by hand stays down until it is resumed; one that only fell silent comes back by itself.
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=60

NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} Boards=1 \
SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=5 PreemptMode=OFF MaxTime=INFINITE State=UP
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={state}/munge/socket
DbdHost=localhost
DbdPort={accounting}
SlurmUser=root
PidFile={state}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


class RefusalError(Exception):
    """The request cannot be served here; nothing was changed."""


class ClusterError(Exception):
    """Something did not work; the logs tell more."""


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGIN:5.1f} s  {text}", flush=True)


def run(*command: str, seconds: float = 10) -> str:
    """Runs a command to its end and returns its output; a failure or a late end is a ClusterError."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=seconds)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(command)}` did not end within {seconds:g} s.") from None
    except OSError as error:
        raise ClusterError(f"`{command[0]}` cannot be run: {error.strerror}.") from None
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stdout.strip()[-2000:]}")
    return done.stdout


def succeeds(*command: str, seconds: float = 5) -> bool:
    with contextlib.suppress(ClusterError):
        run(*command, seconds=seconds)
        return True
    return False


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until the condition holds; returns False if it does not within the time limit."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds


# Daemons. Each runs in the foreground of a session of its own, with one log and one pid file named after it. They also
# write pid files themselves, elsewhere: those are empty for a moment at the start, when a daemon would seem dead.


def alive(name: str) -> int:
    """The pid of a running daemon, or 0."""
    try:
        pid = int((RUN / f"{name}.pid").read_text())
        program = Path(f"/proc/{pid}/exe").readlink().name  # a zombie has none; a recycled pid has another
    except (OSError, ValueError):
        return 0
    return pid if program.split("-")[0] == name.split(".")[0] else 0  # slurmd.n1 is a slurmd-wlm to Debian


def start(name: str, *command: str, ready: Callable[[], bool] = lambda: True) -> None:
    """Starts a daemon that does not run yet, and waits until it is ready."""
    if not (running := alive(name)):
        with (LOG / f"{name}.log").open("ab") as log:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=STATE, start_new_session=True
            )
        (RUN / f"{name}.pid").write_text(f"{daemon.pid}\n")
    if not wait(lambda: not alive(name) or ready(), seconds=30) or not alive(name):
        raise ClusterError(f"{name} did not become ready.")
    if not running:
        say(f"{name} runs.")


def stop(name: str) -> None:
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        if not (pid := alive(name)):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        wait(lambda: not alive(name), patience)
    if alive(name):
        raise ClusterError(f"{name} cannot be stopped.")
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def stop_all() -> None:
    """Cancels all jobs, then stops the daemons, each before those it depends on."""
    if alive("slurmctld"):
        for partition in PARTITIONS:
            succeeds("scancel", f"--partition={partition}")
        wait(lambda: not jobs(), seconds=10)
    slurmds = sorted(path.stem for path in RUN.glob("slurmd.*.pid"))
    for name in [*slurmds, "slurmctld", "slurmdbd", "mariadbd", "munged"]:
        stop(name)
    for pid in orphans():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not wait(lambda: not orphans(), seconds=5):
        raise ClusterError("Some processes of jobs cannot be stopped.")


def orphans() -> list[int]:
    """Processes of jobs which outlived the daemons, as they do when the controller was killed before them."""
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stepd = (process / "exe").readlink().name.startswith("slurmstepd") and (process / "cwd").readlink() == STATE
            names = (process / "environ").read_bytes().split(b"\0")
            if stepd or (b"SLURM_CLUSTER_NAME=lab" in names and any(n.startswith(b"SLURMD_NODENAME=") for n in names)):
                processes.append(int(process.name))
    return sorted(processes)


def jobs() -> str:
    with contextlib.suppress(ClusterError):
        return run("squeue", "--noheader", "--all", "--format=%i", seconds=5).strip()
    return ""


# Health.


def node_states() -> dict[str, str]:
    lines = run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T", seconds=3).splitlines()
    return dict(line.split() for line in lines)


def takes_jobs(state: str) -> bool:
    return state in ("idle", "mixed", "allocated", "completing")  # an asterisk after it means: does not respond


def trouble() -> str:
    """The first thing that is wrong with the cluster, as a sentence; empty if it is healthy."""
    if not (ETC / "slurm.conf").exists() or not RUN.exists():
        return "There is no cluster."
    for name in ("munged", "mariadbd", "slurmdbd", "slurmctld"):
        if not alive(name):
            return f"{name} does not run."
    try:
        for node, state in node_states().items():
            if not alive(f"slurmd.{node}"):
                return f"slurmd.{node} does not run."
            if not takes_jobs(state):
                return f"Node {node} is {state}."
        run("sacct", "--noheader", "--allocations", seconds=5)
    except ClusterError as error:
        return str(error)
    return ""


# Setting up.


def install() -> None:
    known = run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n").splitlines()
    missing = [name for name in PACKAGES if f"{name} installed" not in known]
    if not missing:
        return
    say(f"Installing {', '.join(missing)}.")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    # Packages like to start their daemons: this file tells them not to.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        succeeds("apt-get", "update", "-qq", seconds=300)  # an old list of packages may do: the next line decides
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, seconds=900)
    finally:
        if ours:
            policy.unlink()


def slurm_conf() -> str:
    return MARKER + SLURM_CONF.format(
        host=socket.gethostname().split(".")[0], state=STATE, control=CONTROL_PORT, accounting=ACCOUNTING_PORT,
        nodes=NODES, cpus=CPUS, memory=MEMORY, first=NODE_PORT + 1, last=NODE_PORT + NODES,
    )  # fmt: skip


def write_configuration(text: str) -> None:
    for folder in (ETC, STATE / "slurmctld", *(STATE / f"slurmd.n{i}" for i in range(1, NODES + 1))):
        folder.mkdir(parents=True, exist_ok=True)
    for gpu in (STATE / "gpu0", STATE / "gpu1"):
        gpu.unlink(missing_ok=True)
        gpu.symlink_to("/dev/null")  # slurmd only wants a GPU's file to be some device
    (ETC / "gres.conf").write_text(f"{MARKER}NodeName=n[1-{NODES}] Name=gpu File={STATE}/gpu[0-1]\n")
    (ETC / "slurm.conf").write_text(text)


def start_munge() -> None:
    home = STATE / "munge"
    home.mkdir(mode=0o755, exist_ok=True)
    key, sock = home / "key", home / "socket"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
    start(
        "munged", "munged", "--foreground", "--force", f"--socket={sock}", f"--key-file={key}",
        f"--seed-file={home}/seed", f"--log-file={home}/log", f"--pid-file={home}/pid",
        ready=lambda: succeeds("munge", "--no-input", f"--socket={sock}"),
    )  # fmt: skip


def start_accounting() -> None:
    data = STATE / "mariadb"
    sock = f"--socket={data}/socket"
    if not (data / "ready").exists():  # the mark is set last: half a database is thrown away
        stop("mariadbd")
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        shutil.chown(data, "mysql", "mysql")
        run("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=socket", seconds=60)  # fmt: skip
        (data / "ready").touch()
    start(
        "mariadbd", "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", sock, f"--pid-file={data}/pid",
        "--bind-address=127.0.0.1", f"--port={DATABASE_PORT}", "--skip-name-resolve", "--skip-log-bin",
        # Small and quick: what a crash of the machine would lose is only the accounting of tests.
        "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900", "--performance-schema=0",
        ready=lambda: succeeds("mariadb-admin", "--no-defaults", sock, "ping"),
    )  # fmt: skip
    if alive("slurmdbd"):
        return
    password = secrets.token_hex(16)  # a new one at each start: nobody but slurmdbd needs it
    run("mariadb", "--no-defaults", sock, "-e", f"""
        CREATE DATABASE IF NOT EXISTS slurm_acct_db;
        CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';
        GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'""")  # fmt: skip
    conf = ETC / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.chmod(0o600)
    conf.write_text(
        MARKER
        + SLURMDBD_CONF.format(state=STATE, accounting=ACCOUNTING_PORT, database=DATABASE_PORT, password=password)
    )
    start("slurmdbd", "slurmdbd", "-D", ready=lambda: succeeds("sacctmgr", "--noheader", "show", "cluster"))
    if "lab" not in run("sacctmgr", "--noheader", "show", "cluster", "format=cluster").split():
        run("sacctmgr", "--immediate", "add", "cluster", "lab")


def repaired() -> bool:
    """Whether the cluster is healthy; resumes the nodes that take no jobs if it is not."""
    if not trouble():
        return True
    with contextlib.suppress(ClusterError):
        for node, state in node_states().items():
            if not takes_jobs(state):
                run("scontrol", "update", f"nodename={node}", "state=resume", seconds=5)
    return False


def up(force: bool) -> None:
    text, conf = slurm_conf(), ETC / "slurm.conf"
    written = conf.read_text() if conf.exists() else ""
    if written and not written.startswith(MARKER) and not force:
        raise RefusalError(f"{conf} is not this script's, so it is left alone; --force overwrites it.")
    if written == text and not trouble():
        say("The cluster is already up.")
        return
    install()
    if written != text:
        stop_all()
    write_configuration(text)
    start_munge()
    start_accounting()
    start("slurmctld", "slurmctld", "-D")
    for i in range(1, NODES + 1):
        start(f"slurmd.n{i}", "slurmd", "-D", "-N", f"n{i}")
    if not wait(repaired, seconds=60):
        raise ClusterError(f"The cluster did not come up. {trouble()}")
    say(f"The cluster is up: {NODES} nodes with {CPUS} CPUs, {MEMORY} MB and 2 GPUs each.")


def down(purge: bool) -> None:
    stop_all()
    if purge:
        shutil.rmtree(STATE)
        for path in ETC.glob("*.conf"):
            if path.read_text().startswith(MARKER):
                path.unlink()
    say("The cluster is down.")


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Lets one command at a time work on the cluster."""
    for folder in (STATE, LOG, RUN):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as file:

        def acquire() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not wait(acquire, seconds=300):
            raise RefusalError("Another command has been working on the cluster for more than 300 s.")
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    raising = commands.add_parser("up", help="install, configure and start the cluster")
    raising.add_argument("--force", action="store_true", help="overwrite a slurm.conf that is not this script's")
    commands.add_parser("status", help="say whether the cluster is healthy")
    ending = commands.add_parser("down", help="cancel all jobs and stop the cluster")
    ending.add_argument("--purge", action="store_true", help="also remove configuration, accounting data and logs")
    args = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where daemons live, even if the caller's PATH does not know
    try:
        if os.geteuid():
            raise RefusalError("This needs root, because SLURM's daemons start jobs for any user.")
        if args.command == "status":
            problem = trouble()
            say(problem or "The cluster is healthy.")
            return int(bool(problem))
        with lock():
            if args.command == "up":
                up(args.force)
            else:
                down(args.purge)
    except RefusalError as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except ClusterError as error:
        for log in sorted(LOG.glob("*.log")):
            print(f"== {log}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
        print(error, file=sys.stderr)
        return 1
    return 0


BEGIN = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
