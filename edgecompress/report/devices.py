"""The table of what `edgecompress devices` found, and of what `flash` did."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.device_records import FlashReport, FoundDevice
from edgecompress.report.tables import plain_table
from edgecompress.units import format_bytes

_TARGETS_SHOWN = 4
_KINDS = {"serial": "Serial ports", "adb": "adb", "probe": "Debug probes", "virtual": "Emulated"}


def devices_table(devices: Sequence[FoundDevice], hints: Sequence[str] = ()) -> RenderableType:
    """One table; a first column that can be copied behind --device (--probe for probes)."""
    table = plain_table("Device", "What", "Likely target", "State")
    for kind, heading in _KINDS.items():
        found = [device for device in devices if device.kind == kind]
        if not found:
            continue
        table.add_row(Text(heading, style="bold"))
        for device in found:
            table.add_row(
                Text(f"  {device.address}"), _what(device), _targets(device), _state(device)
            )
    parts: list[RenderableType] = [table]
    if not any(device.kind in ("serial", "adb", "probe") for device in devices):
        parts.append(Text("No board or phone is connected.", style="dim"))
    parts += [Text(hint, style="dim") for hint in hints]
    return Group(*parts)


def _what(device: FoundDevice) -> Text:
    usb = device.details.get("usb", "")
    number = device.details.get("serial_number", "")
    more = ", ".join(part for part in (usb, f"no. {number}" if number else "") if part)
    return Text(device.description + (f" [{more}]" if more else ""))


def _targets(device: FoundDevice) -> Text:
    shown = ", ".join(device.likely_targets[:_TARGETS_SHOWN])
    rest = len(device.likely_targets) - _TARGETS_SHOWN
    return Text(shown + (f" and {rest} more" if rest > 0 else "") or "-")


def _state(device: FoundDevice) -> Text:
    if device.model:
        return Text(f"runs model {device.model[:12]}")
    return Text(device.state, style="" if device.state == "ready" else "yellow")


def flash_table(report: FlashReport) -> RenderableType:
    """What was programmed where, and how it was checked."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("Programmed", f"{format_bytes(report.flash_bytes)} for {report.target}")
    facts.add_row("Chip", Text(report.chip))
    facts.add_row("By", Text(f"{report.tool}, {report.where}, {report.seconds:.1f} s"))
    facts.add_row("Checked", Text(report.verified))
    facts.add_row("Firmware", Text(f"sha256 {report.firmware_hash[:16]}"))
    return facts
