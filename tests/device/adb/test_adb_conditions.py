"""What an adb device is measured under: clusters, governors, clocks, temperatures, affinity."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from adb_phone import Phone
from tiny_image import MODEL_HASH

from edgecompress.device.adb_survey import affinity_mask, cpu_list, parse_cpus, parse_survey
from edgecompress.device.ports.adb import AdbPort, open_adb
from edgecompress.device.protocol import Client
from edgecompress.errors import (
    BadConfig,
    DeviceNotFound,
)
from edgecompress.target.schema import DeviceProfile

MakePhone = Callable[..., Phone]
Start = Callable[..., tuple[AdbPort, Client]]


def test_the_fastest_cluster_is_taken(
    start: Start, phone: MakePhone, aarch64: DeviceProfile
) -> None:
    device = phone()
    port, _ = start("adb")
    assert device.path("/programs/mask").read_text() == "f0\n"
    now = port.conditions()
    port.close()
    assert (now.pinned_cluster, now.pinned_cpus) == ("big", (4, 5, 6, 7))
    assert (now.machine, now.model, now.kernel) == ("aarch64", "Test Phone", "6.1.0-test")
    assert now.system == "Android 14 test/phone/1"
    assert [cluster.name for cluster in now.clusters_before] == ["little", "big"]
    assert now.clusters_before[1].governor == "performance"
    assert now.clusters_before[1].max_frequency_hz == 2_400_000_000
    assert now.temperatures_before_c == {"cpu": 41.5, "cpu (2)": 43.0}


def test_conditions_are_read_again(start: Start, phone: MakePhone) -> None:
    device = phone()
    port, _ = start("adb")
    device.path("/sys/class/thermal/thermal_zone1/temp").write_text("71500\n")
    policy = device.path("/sys/devices/system/cpu/cpufreq/policy4")
    (policy / "scaling_cur_freq").write_text("1100000\n")
    now = port.conditions()
    port.close()
    assert now.temperatures_after_c == {"cpu": 41.5, "cpu (2)": 71.5}
    assert now.temperatures_before_c["cpu (2)"] == 43.0
    assert now.clusters_before[1].frequency_hz == 2_400_000_000
    assert now.clusters_after[1].frequency_hz == 1_100_000_000


@pytest.mark.parametrize(
    ("option", "mask"), [("cluster=little", "f"), ("cluster=big", "f0"), ("cpus=1+6-7", "c2")]
)
def test_a_cluster_can_be_chosen(start: Start, option: str, mask: str, phone: MakePhone) -> None:
    device = phone()
    port, _ = start(f"adb,{option}")
    port.close()
    assert device.path("/programs/mask").read_text() == f"{mask}\n"


def test_a_cluster_that_is_not_there_lists_those_that_are(
    phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    phone()
    with pytest.raises(BadConfig, match=r"no CPU cluster 'huge'.*little \(CPUs 0-3\), big"):
        open_adb(image, aarch64, "adb,cluster=huge")


def test_without_taskset_nothing_is_pinned_unless_asked(
    start: Start, phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    phone(tools=False)
    port, _ = start("adb")
    assert port.conditions().pinned_cpus == ()
    port.close()
    with pytest.raises(DeviceNotFound, match="has no taskset"):
        open_adb(image, aarch64, "adb,cluster=big")


def test_a_device_without_readable_sysfs_still_runs(start: Start, phone: MakePhone) -> None:
    device = phone(clusters={})
    shutil.rmtree(device.path("/sys/class"))
    port, client = start("adb")
    assert client.identity().model == MODEL_HASH
    now = port.conditions()
    port.close()
    assert (now.clusters_before, now.temperatures_after_c) == ((), {})


def test_an_account_of_nonsense_is_left_out() -> None:
    lines = [
        "machine|aarch64", "folder|tmp", "model|\x1b[2Jx" + "y" * 500, "zone|cpu|99999999999",
        "zone|a|-5000", "policy|0-99999|g|1|2|3", "policy|0 1|g|x|999999999999|", "policy|short",
        "zone", "",
    ]  # fmt: skip
    found = parse_survey(lines, "serial")
    assert found.folder == "/tmp"
    assert found.temperatures_c == {"a": -5.0}
    assert len(found.model) < 100
    assert "\x1b" not in found.model
    (cluster,) = found.clusters
    assert (cluster.cpus, cluster.max_frequency_hz, cluster.frequency_hz) == ((0, 1), None, None)


def test_cpu_lists() -> None:
    assert cpu_list((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert parse_cpus("0-2,5 7") == (0, 1, 2, 5, 7)
    assert affinity_mask((4, 5, 6, 7)) == "f0"
