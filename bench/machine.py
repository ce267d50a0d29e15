"""The machine and the versions that the figures belong to."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from trackd.compiled import is_compiled

_PACKAGES = ("trackd", "grpcio", "protobuf", "rocksdict", "uvloop", "xxhash")


def machine_facts(directory: Path) -> dict[str, str]:
    """What a reader needs to compare; directory: on the disk that is measured."""
    memory = _field("/proc/meminfo", "MemTotal").split()
    return {
        "CPU": f"{os.cpu_count()} cores, {_field('/proc/cpuinfo', 'model name') or 'unknown'}",
        "memory": f"{int(memory[0]) / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": _file_system(directory),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def version_facts() -> dict[str, str]:
    """Python's version and those of what the hot path is made of."""
    return {
        "Python": platform.python_version(),
        "loops": "compiled" if is_compiled() else "Python",
        **{package: version(package) for package in _PACKAGES},
    }


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(directory: Path) -> str:
    """The type of the file system that a directory is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    path = os.path.realpath(directory)
    within = [(point, kind) for point, kind in mounts if os.path.commonpath([point, path]) == point]
    return max(within, key=lambda mount: len(mount[0]))[1]
