"""What an adb device says of itself: machine, CPU clusters, governors, clocks, temperatures.

One script of constants is sent to the device's sh; its answer is parsed as hostile text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecompress.device.adb_client import AdbClient, printable
from edgecompress.device_records import CpuCluster
from edgecompress.errors import BadConfig, DeviceNotFound, DeviceTrouble

_FIELD_CHARACTERS = 80
_MOST_ENTRIES = 256
_MOST_CPUS = 1024
_FOLDERS = {"data": "/data/local/tmp", "tmp": "/tmp"}

# Linux Documentation/admin-guide/pm/cpufreq.rst (policy*/related_cpus, scaling_*, kHz) and
# Documentation/driver-api/thermal/sysfs-api.rst (thermal_zone*/temp, millidegrees Celsius).
_SCRIPT = """
say() { echo "$1|$(eval "$2" 2>/dev/null | head -n 1)"; }
say machine 'uname -m'
say kernel 'uname -r'
say model 'getprop ro.product.model'
say android 'getprop ro.build.version.release'
say fingerprint 'getprop ro.build.fingerprint'
command -v taskset >/dev/null 2>&1 && echo 'taskset|yes'
[ -w /data/local/tmp ] && echo 'folder|data'
[ -w /tmp ] && echo 'folder|tmp'
for p in /sys/devices/system/cpu/cpufreq/policy*; do
  [ -r "$p/related_cpus" ] || continue
  r=; for f in related_cpus scaling_governor cpuinfo_min_freq cpuinfo_max_freq scaling_cur_freq; do
    v=; [ -r "$p/$f" ] && v=$(head -n 1 "$p/$f" 2>/dev/null); r="$r|$v"
  done
  echo "policy$r"
done
for z in /sys/class/thermal/thermal_zone*; do
  [ -r "$z/temp" ] || continue
  echo "zone|$(head -n 1 "$z/type" 2>/dev/null)|$(head -n 1 "$z/temp" 2>/dev/null)"
done
echo 'end'
"""


@dataclass(frozen=True)
class Survey:
    """A device at one moment.

    `folder` is where a program may be pushed to and run; `can_pin` whether it has taskset.
    """

    machine: str
    kernel: str
    model: str
    system: str
    folder: str
    can_pin: bool
    clusters: tuple[CpuCluster, ...]
    temperatures_c: dict[str, float]


def survey(client: AdbClient, serial: str) -> Survey:
    """Asks the device; a few tenths of a second.

    Raises:
        DeviceTrouble: it does not answer, or has no folder for the runner.
    """
    answer = client.shell(serial, _SCRIPT)
    lines = answer.output.decode(errors="replace").splitlines()
    if not lines or lines[-1].strip() != "end":
        raise DeviceTrouble(f"{printable(serial)} gave no account of itself: {answer.last_words()}")
    return parse_survey(lines, serial)


def parse_survey(lines: list[str], serial: str) -> Survey:
    """The script's answer; what is not of its grammar is left out."""
    rows = [[part.strip() for part in line.split("|")] for line in lines[:_MOST_ENTRIES]]
    texts = {row[0]: printable(row[1], _FIELD_CHARACTERS) for row in reversed(rows) if len(row) > 1}
    folder = _FOLDERS.get(texts.get("folder", ""))
    if folder is None:
        raise DeviceNotFound(
            f"{printable(serial)} lets adb write neither /data/local/tmp nor /tmp."
        )
    android = texts.get("android", "")
    system = " ".join(part for part in (android and f"Android {android}", texts.get("fingerprint"))
                      if part)  # fmt: skip
    return Survey(
        machine=texts.get("machine", ""),
        kernel=texts.get("kernel", ""),
        model=texts.get("model", ""),
        system=system,
        folder=folder,
        can_pin=texts.get("taskset") == "yes",
        clusters=_clusters([row for row in rows if row[0] == "policy" and len(row) == 6]),
        temperatures_c=_temperatures([row for row in rows if row[0] == "zone" and len(row) == 3]),
    )


def find_cluster(clusters: tuple[CpuCluster, ...], name: str, serial: str) -> CpuCluster:
    """The cluster of that name.

    Raises:
        BadConfig: there is none; those there are, are listed.
    """
    for cluster in clusters:
        if cluster.name == name:
            return cluster
    known = ", ".join(f"{one.name} (CPUs {cpu_list(one.cpus)})" for one in clusters)
    raise BadConfig(
        f"{printable(serial)} has no CPU cluster '{printable(name)}'.",
        next_step=f"It has {known}." if known else "It names no clusters: use cpus=0-3.",
    )


def affinity_mask(cpus: tuple[int, ...]) -> str:
    """What `taskset` takes: bit n for CPU n, in hex without a prefix (toybox knows no 0x)."""
    return f"{sum(1 << cpu for cpu in set(cpus)):x}"


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of "0-3,7" or "0 1 2 3 7", sorted; () where it is not such a list."""
    cpus: set[int] = set()
    for part in re.split(r"[\s,+]+", text.strip()):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        if match is None:
            return ()
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= _MOST_CPUS:
            return ()
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def cpu_list(cpus: tuple[int, ...]) -> str:
    """The shortest writing: (4, 5, 6, 7) is "4-7"."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _clusters(rows: list[list[str]]) -> tuple[CpuCluster, ...]:
    found = [
        CpuCluster(
            name="",
            cpus=cpus,
            governor=printable(governor, _FIELD_CHARACTERS),
            min_frequency_hz=_hertz(low),
            max_frequency_hz=_hertz(high),
            frequency_hz=_hertz(now),
        )
        for _, related, governor, low, high, now in rows
        if (cpus := parse_cpus(related))
    ]
    found.sort(key=lambda cluster: (cluster.max_frequency_hz or 0, cluster.cpus))
    names = _cluster_names(len(found))
    return tuple(
        cluster.model_copy(update={"name": name})
        for cluster, name in zip(found, names, strict=True)
    )


def _cluster_names(count: int) -> list[str]:
    """By the highest clock: little, middle, big."""
    if count <= 1:
        return ["all"] * count
    middle = ["middle"] if count == 3 else [f"middle{index + 1}" for index in range(count - 2)]
    return ["little", *middle, "big"]


def _hertz(kilohertz: str) -> int | None:
    match = re.fullmatch(r"\d{1,9}", kilohertz, re.ASCII)
    return int(kilohertz) * 1000 if match else None


def _temperatures(rows: list[list[str]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for _, zone, millidegrees in rows:
        if re.fullmatch(r"-?\d{1,6}", millidegrees, re.ASCII) is None:
            continue
        name = printable(zone, _FIELD_CHARACTERS) or "zone"
        # Zones may share a type: two "cpu" become "cpu" and "cpu (2)".
        same = sum(1 for known in found if known == name or known.startswith(f"{name} ("))
        found[f"{name} ({same + 1})" if same else name] = int(millidegrees) / 1000
    return found
