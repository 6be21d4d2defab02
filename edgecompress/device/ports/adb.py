"""A phone or board behind adb: the static runner is pushed, run by `adb shell`, and removed.

`adb shell -T` speaks adb's shell protocol (version 2): standard input and output are carried byte
for byte without a terminal, standard error and the exit code apart from them. `adb exec-out` has
no input and `adb exec-in` no output.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecompress.device.adb_client import AdbClient, AdbDevice, printable
from edgecompress.device.adb_survey import (
    Survey,
    affinity_mask,
    cpu_list,
    find_cluster,
    parse_cpus,
    survey,
)
from edgecompress.device.ports.base import Clock
from edgecompress.device.ports.pipe import PipePort
from edgecompress.device_records import AdbConditions, CpuCluster
from edgecompress.errors import BadConfig, DeviceFault, DeviceNotFound, DeviceTrouble
from edgecompress.target.schema import DeviceProfile

_FORM = "adb, adb:SERIAL, adb:SERIAL,cluster=big or adb:SERIAL,cpus=4-7"
_MACHINES = {"armv8-a": ("aarch64", "arm64"), "x86-64": ("x86_64", "amd64")}


@dataclass(frozen=True)
class AdbAddress:
    """What `--device adb...` asks for. `serial` None: the only device. `cpus` (): any."""

    serial: str | None = None
    cluster: str = ""
    cpus: tuple[int, ...] = ()


def parse_adb_address(device: str) -> AdbAddress:
    """`adb[:SERIAL][,cluster=NAME|,cpus=LIST]`; several CPU ranges are joined by +.

    Raises:
        BadConfig: it is not of that form.
    """
    head, *options = device.split(",")
    scheme, _, serial = head.partition(":")
    values = {name: value for name, _, value in (option.partition("=") for option in options)}
    wrong = set(values) - {"cluster", "cpus"}
    cpus = parse_cpus(values["cpus"]) if "cpus" in values else ()
    if (
        scheme != "adb"
        or wrong
        or len(values) != len(options)
        or len(values) > 1
        or "" in values.values()
        or ("cpus" in values and not cpus)
    ):
        raise BadConfig(f"'{printable(device)}' is not an adb device.", next_step=f"Use {_FORM}.")
    return AdbAddress(serial or None, values.get("cluster", ""), cpus)


def open_adb(image: Path, profile: DeviceProfile, device: str) -> AdbPort:
    """Pushes the image and starts it.

    Without `cluster=` or `cpus=` it is kept on the fastest cluster of a device that has several.

    Args:
        image: the static executable of a host image.
        profile: what it was made for.
        device: see `parse_adb_address`.

    Raises:
        BadConfig: `device` is wrong, or names a cluster that is not there.
        DeviceNotFound: no such device, not ready, or the image is not for its processor.
        DeviceTrouble: the image could not be pushed.
    """
    address = parse_adb_address(device)
    if profile.kind != "host":
        raise DeviceNotFound(
            f"{profile.name} images do not run behind adb.",
            next_step="Use --device virtual, qemu, or serial:PORT.",
        )
    client = AdbClient()
    chosen = client.choose(address.serial)
    before = survey(client, chosen.serial)
    if before.machine not in _MACHINES.get(profile.core.isa, ()):
        raise DeviceNotFound(
            f"{chosen.serial} is a {before.machine or 'unknown'} machine; the image is for "
            f"{profile.core.isa}.",
            next_step="Compile for the device's own processor with --target.",
        )
    return AdbPort(client, chosen, before, image, _pinning(address, before, chosen.serial))


def _pinning(address: AdbAddress, now: Survey, serial: str) -> CpuCluster | None:
    """Where to keep the runner; None: anywhere."""
    if address.cluster:
        chosen = find_cluster(now.clusters, address.cluster, serial)
    elif address.cpus:
        chosen = CpuCluster(name="", cpus=address.cpus)
    elif len(now.clusters) > 1 and now.can_pin:
        return now.clusters[-1]
    else:
        return None
    if not now.can_pin:
        raise DeviceNotFound(
            f"{serial} has no taskset, so the runner cannot be kept on CPUs "
            f"{cpu_list(chosen.cpus)}.",
            next_step="Leave out cluster= and cpus=.",
        )
    return chosen


class AdbPort(PipePort):
    """The image running on an adb device. Made by `open_adb`."""

    def __init__(
        self,
        client: AdbClient,
        device: AdbDevice,
        before: Survey,
        image: Path,
        pinned: CpuCluster | None,
    ) -> None:
        self._client, self._serial = client, device.serial
        self._before, self._pinned = before, pinned
        # The name is all ours: nothing of the local file's name reaches the device's shell.
        self._remote = f"{before.folder}/edgecompress-{secrets.token_hex(8)}"
        where = f" on CPUs {cpu_list(pinned.cpus)}" if pinned else ""
        name = f"{before.model or device.model or 'adb'} ({device.serial}){where}"
        try:
            client.push(self._serial, image, self._remote)
            super().__init__(
                client.command(self._serial, "shell", "-T", self._start_script()),
                name=name,
                kind="adb",
                clock=Clock("measured on device", ticks_are_time=True),
                environment=client.environment,
            )
        except BaseException:
            self._remove()
            raise

    def _start_script(self) -> str:
        """Also removes the file once the runner has ended, should this computer be gone by then."""
        remote = shlex.quote(self._remote)
        pin = f"taskset {affinity_mask(self._pinned.cpus)} " if self._pinned else ""
        return f"chmod 700 {remote} && {pin}{remote}; code=$?; rm -f {remote}; exit $code"

    def check(self) -> None:
        """As any program's; a device that left is said to have left."""
        try:
            super().check()
        except DeviceFault as fault:
            with contextlib.suppress(DeviceTrouble):
                if self._still_there():
                    raise fault from None
            raise DeviceFault(
                f"{self.name} disappeared: adb no longer reaches it.",
                next_step="Check the cable, or that the device did not restart or sleep.",
            ) from None

    def _still_there(self) -> bool:
        return any(
            device.usable and device.serial == self._serial for device in self._client.devices()
        )

    def conditions(self) -> AdbConditions:
        """The device as it was before the image started and as it is now.

        Ask right after a measurement: clocks fall and temperatures drop within a second.
        """
        before, after = self._before, survey(self._client, self._serial)
        return AdbConditions(
            serial=self._serial,
            model=before.model,
            system=before.system,
            kernel=before.kernel,
            machine=before.machine,
            pinned_cluster=self._pinned.name if self._pinned else "",
            pinned_cpus=self._pinned.cpus if self._pinned else (),
            clusters_before=before.clusters,
            clusters_after=after.clusters,
            temperatures_before_c=before.temperatures_c,
            temperatures_after_c=after.temperatures_c,
        )

    def close(self) -> None:
        """Ends the runner and removes it from the device, also after faults and Ctrl-C."""
        with self._removed():
            super().close()

    @contextlib.contextmanager
    def _removed(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._remove()

    def _remove(self) -> None:
        """A device that is gone keeps the file until its own shell removes it."""
        with contextlib.suppress(DeviceTrouble):
            self._client.shell(self._serial, f"rm -f {shlex.quote(self._remote)}", timeout_s=10)
