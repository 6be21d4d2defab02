"""pyOCD's session, target descriptions and loader, with a simulated chip under them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

pytest.importorskip("pyocd", reason="pyOCD is not installed")

from pyocd.core import exceptions
from pyocd.core.session import Session
from simulated_probe import Chip, Probe, connect

from edgecompress.device.flash import FlashOptions, flash
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTrouble
from edgecompress.link.sizes import write_flash_images
from edgecompress.target.registry import load_target

MakeImage = Callable[..., Path]
TARGET = "nrf52840"


class Steps:
    """Progress as numbers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done: dict[str, int] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages.append((name.split()[0], total))

    def advance(self, done: int = 1) -> None:
        name = self.stages[-1][0]
        self.done[name] = self.done.get(name, 0) + done

    def note(self, message: str) -> None: ...


def _failing(error: Exception) -> Callable[[Session], NoReturn]:
    def fail(_session: Session) -> NoReturn:
        raise error

    return fail


def test_it_is_programmed_read_back_and_started(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, steps = Chip(), Steps()
    chip.memory = dict.fromkeys(range(0, 64), 0)
    (session,) = [connect(monkeypatch, chip)]
    folder = make_image(TARGET, size=9001)
    report = flash(folder, load_target(TARGET), progress=steps)
    assert bytes(chip.read(0, 9001)) == (folder / "content").read_bytes()
    assert chip.erased == [0, 0x1000, 0x2000]
    assert chip.resets == 1
    assert (report.tool, report.chip) == ("pyocd", "nRF52840")
    assert report.where == "ST-LINK/V2-1 0661234"
    assert [name for name, _ in steps.stages] == ["Connect", "Program", "Read"]
    assert steps.done == {"Program": 200, "Read": 9001}
    assert session[0].options.get("target_override") == "nrf52840"


def test_nothing_of_the_working_folder_is_run_and_nothing_erased_unasked(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "pyocd_user.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    (here / "pyocd.yaml").write_text("auto_unlock: true\n")
    monkeypatch.chdir(here)
    sessions = connect(monkeypatch, Chip())
    flash(make_image(TARGET), load_target(TARGET))
    assert not (tmp_path / "pwned").exists()
    assert Path(os.getcwd()) == here
    assert sessions[0].options.get("auto_unlock") is False
    flash(make_image(TARGET), load_target(TARGET), options=FlashOptions(unlock=True))
    assert sessions[1].options.get("auto_unlock") is True


def test_no_probe(make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyocd.core.helpers import ConnectHelper

    monkeypatch.setattr(ConnectHelper, "get_all_connected_probes", lambda **_: [])
    with pytest.raises(DeviceNotFound, match="No debug probe is connected"):
        flash(make_image(TARGET), load_target(TARGET))


def test_several_probes_must_be_chosen_from(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip()
    connect(monkeypatch, chip, Probe("0661"), Probe("0662"), Probe("1102", "DAPLink"))
    folder, profile = make_image(TARGET), load_target(TARGET)
    with pytest.raises(DeviceNotFound, match=r"3 debug probes.*0662.*--probe ID"):
        flash(folder, profile)
    with pytest.raises(DeviceNotFound, match="2 probes' ids begin with '066'"):
        flash(folder, profile, probe="066")
    with pytest.raises(DeviceNotFound, match=r"No probe's id begins with '9'.*DAPLink 1102"):
        flash(folder, profile, probe="9")
    assert flash(folder, profile, probe="11").where == "DAPLink 1102"


@pytest.mark.parametrize(
    ("words", "found"),
    [({0x10000100: 0x52832}, "is nRF52832"), ({0x10000100: 0x1234}, "unknown chip"),
     ({}, "does not identify itself")],
)  # fmt: skip
def test_another_chip_is_refused_before_it_is_erased(
    words: dict[int, int], found: str, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip(words=words)
    connect(monkeypatch, chip)
    with pytest.raises(BadInput, match=rf"for nrf52840 \(nRF52840\); the chip .*{found}"):
        flash(make_image(TARGET), load_target(TARGET))
    assert (chip.erased, chip.memory) == ([], {})
    report = flash(make_image(TARGET), load_target(TARGET), options=FlashOptions(force=True))
    assert report.chip == "Cortex-M4 (forced)"


def test_the_probes_board_must_do_where_no_identification_is_known(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, probe = Chip(core="Cortex-M0+"), Probe(description="DAPLink")
    connect(monkeypatch, chip, probe)
    folder, profile = make_image("mkl25z128"), load_target("mkl25z128")
    # No chip that a port drives is without an identification: this one borrows a console.
    profile = profile.model_copy(update={"console": load_target("stm32f446re").console})
    probe.associated_board_info = SimpleNamespace(name="FRDM-KL46Z", target="kl46z")
    with pytest.raises(BadInput, match="is a kl46z by the probe's board"):
        flash(folder, profile)
    assert chip.erased == []
    probe.associated_board_info = SimpleNamespace(name="FRDM-KL25Z", target="kl25z")
    assert "not checked" in flash(folder, profile).chip


def test_another_core_is_refused_even_by_force(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a Cortex-M4 image is made of does not run there."""
    chip = Chip(core="Cortex-M33")
    connect(monkeypatch, chip)
    with pytest.raises(BadInput, match=r"a cortex-m4\).*has a Cortex-M33"):
        flash(make_image(TARGET), load_target(TARGET), options=FlashOptions(force=True))
    assert chip.erased == []


def test_worn_flash_is_found_by_its_address(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_image(TARGET)
    content = (folder / "content").read_bytes()
    worn = next(index for index, value in enumerate(content) if index > 900 and value)
    chip = Chip(worn=worn)
    connect(monkeypatch, chip)
    with pytest.raises(DeviceFault, match=rf"holds 0x00 at {worn:#010x} .* {content[worn]:#04x}"):
        flash(folder, load_target(TARGET))
    assert chip.resets == 0


def test_an_unknown_target_names_the_pack_to_install(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyocd.target.pack.pack_target import ManagedPacks

    monkeypatch.setattr(ManagedPacks, "populate_target", lambda *_: None)
    connect(monkeypatch, Chip())
    with pytest.raises(
        DeviceNotFound, match=r"does not know 'stm32f446retx' \(pack Keil"
    ) as caught:
        flash(make_image("stm32f446re"), load_target("stm32f446re"))
    assert caught.value.next_step == "pyocd pack install stm32f446retx"


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (exceptions.TargetError("nRF52840 APPROTECT enabled: not automatically unlocking"),
         r"is locked against the probe.*--unlock erases the whole chip"),
        (exceptions.ProbeError("USB\x1b[2J failed"), r"The probe fails: USB\?\[2J failed"),
        (exceptions.TransferError("no ACK"), r"does not answer the probe as a nrf52840: no ACK"),
        (OSError(13, "Permission denied"), "Permission denied"),
    ],
)  # fmt: skip
def test_what_fails_on_connecting_is_explained(
    error: Exception, match: str, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, Chip(on_connect=_failing(error)))
    with pytest.raises(DeviceTrouble, match=match):
        flash(make_image(TARGET), load_target(TARGET))


def test_flash_that_pyocd_does_not_know_is_refused(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile's flash is larger than pyOCD's: both sides are named."""
    chip = Chip()
    connect(monkeypatch, chip)
    profile = load_target(TARGET)
    (first, *others) = profile.regions
    larger = profile.model_copy(
        update={"regions": (first.model_copy(update={"size": 4 << 20}), *others)}
    )
    with pytest.raises(BadInput, match=r"0x00180000, which is not flash of pyOCD's nrf52840"):
        flash(make_image(TARGET, at=0x180000), larger)
    assert chip.erased == []


def test_a_linked_image_arrives_as_its_flash_image(
    tiny_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the linker made: variables' initial values lie in flash, not where they are used."""
    chip = Chip()
    connect(monkeypatch, chip)
    folder, profile = tiny_image(TARGET), load_target(TARGET)
    report = flash(folder, profile)
    copied = tmp_path / "firmware.elf"
    copied.write_bytes((folder / "firmware.elf").read_bytes())
    write_flash_images(copied, profile)
    expected = (tmp_path / "firmware.bin").read_bytes()
    assert bytes(chip.read(profile.region("flash").origin, len(expected))) == expected
    assert report.flash_bytes <= len(expected)
