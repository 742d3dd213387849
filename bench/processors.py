"""Where the time goes: processor time by process, which says the same on a busy machine as on a quiet one."""

import contextlib
from collections.abc import Mapping

import psutil

from deploy.local.platform import Platform


def seconds(platform: Platform) -> dict[str, float]:
    """What every process of the platform has used so far, in its own code and in the kernel; PostgreSQL in one sum."""
    pids = {name: process.pid for name, process in platform.processes.items()}
    used = {name: _used(psutil.Process(pid)) for name, pid in pids.items() if pid is not None}
    if platform.postgres.pid is not None:
        postmaster = psutil.Process(platform.postgres.pid)
        used["PostgreSQL"] = sum(_used(one) for one in (postmaster, *postmaster.children()))
    return used


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each process used between two readings, most first."""
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _used(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0
