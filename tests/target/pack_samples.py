"""A small CMSIS-Pack, and ways to spoil it."""

from __future__ import annotations

import zipfile
from pathlib import Path

DESCRIPTION = """<?xml version="1.0" encoding="UTF-8"?>
<package schemaVersion="1.7.7">
  <vendor>Test</vendor>
  <name>House_DFP</name>
  <devices>
    <family Dfamily="House" Dvendor="Test:1">
      <processor Dcore="Cortex-M4" DcoreVersion="r0p1" Dfpu="SP_FPU" Dmpu="1" Dclock="96000000"/>
      <device Dname="HS100">
        <memory id="IROM1" start="0x00004000" size="0x0003C000" startup="1" default="1"/>
        <memory id="IRAM1" start="0x20000000" size="0x00008000" default="1"/>
        <memory id="IRAM2" start="0x20008000" size="0x00004000"/>
        <memory id="IRAM3" start="0x10000000" size="0x00000400"/>
      </device>
      <device Dname="HS200">
        <processor Dclock="0"/>
        <memory id="IROM1" start="0x00000000" size="0x00080000" startup="1" default="1"/>
        <memory id="IRAM1" start="0x20000000" size="0x00010000" default="1"/>
      </device>
    </family>
  </devices>
</package>
"""


def make_pack(
    folder: Path,
    description: str = DESCRIPTION,
    *,
    name: str = "Test.House_DFP.1.0.0.pack",
    others: dict[str, bytes] | None = None,
) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, content in (others or {}).items():
            archive.writestr(other, content)
        archive.writestr("Test.House_DFP.pdsc", description)
    return path
