"""Placement by memory region, counted on the virtual board: what is hot lies where it is fast."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import unicorn.unicorn_const as const

from edgecompress.device.harness import open_device
from edgecompress.device.ports.board import Board
from edgecompress.link.image import build_image
from edgecompress.link.sizes import Section, allocated_sections
from edgecompress.lower import twin
from edgecompress.lower.passes.specialize import specialize
from edgecompress.lower.pipeline import lower
from edgecompress.records import ImageManifest
from edgecompress.target import DeviceProfile, load_target

HASH = "ab" * 32


@dataclass(frozen=True)
class Run:
    """One inference of keyword spotting with every memory too small for all of it."""

    manifest: ImageManifest
    profile: DeviceProfile
    accesses: Counter[str]
    sections: dict[str, Section]
    exact: dict[str, bool]
    folder: Path


def narrow_profile() -> DeviceProfile:
    """The two-memory target with less DTCM and less internal flash than the model takes."""
    document = load_target("cortex-m7-tcm").model_dump()
    sizes = {"FLASH": 24 * 1024, "DTCM": 12 * 1024, "AXI": 64 * 1024}
    for region in document["regions"]:
        region["size"] = sizes.get(region["name"], region["size"])
    return DeviceProfile.model_validate(document)


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory) -> Run:
    profile = narrow_profile()
    folder = tmp_path_factory.mktemp("kws")
    model = (shared_data / "mlperf_tiny" / "kws_int8.tflite").read_bytes()
    program = lower(model, name="kws", profile=profile)
    manifest = build_image(specialize(program, profile), profile, folder, model_hash=HASH)
    sections = {item.name: item for item in allocated_sections(folder / "firmware.elf")}
    hits: Counter[int] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        _count_accesses(patch, hits)
        with open_device(folder, profile) as session:
            sample = np.random.default_rng(1).integers(-128, 128, program.inputs[0].shape)
            x = sample.astype(np.int8)
            session.load(x)
            hits.clear()
            session.run()
            accesses = _by_section(hits, sections)
            expected = twin.run(program, x)
            exact = {
                trace.name: trace.crc == zlib.crc32(expected[trace.name].tobytes())
                for trace in session.layers(x)
            }
    return Run(manifest, profile, accesses, sections, exact, folder)


def _count_accesses(patch: pytest.MonkeyPatch, hits: Counter[int]) -> None:
    """Every data access of the board's firmware, by address."""
    original = Board._map_memory

    def count(_engine, _kind, address, _size, _value, _state) -> None:
        hits[address] += 1

    def mapped(board: Board) -> None:
        original(board)
        board.engine.hook_add(const.UC_HOOK_MEM_READ | const.UC_HOOK_MEM_WRITE, count)

    patch.setattr(Board, "_map_memory", mapped)


def _by_section(hits: Counter[int], sections: dict[str, Section]) -> Counter[str]:
    found: Counter[str] = Counter()
    # A copy: the board goes on waiting for its next command meanwhile.
    for address, count in dict(hits).items():
        for section in sections.values():
            if section.address <= address < section.address + section.size:
                found[section.name] += count
    return found


def test_every_layer_is_exact_whatever_memory_it_lies_in(run):
    assert {arena.region for arena in run.manifest.memory.arenas} == {"DTCM", "AXI"}
    assert len(run.exact) == len(run.manifest.layers)
    assert all(run.exact.values()), run.exact


def test_the_hot_buffers_traffic_is_in_the_fast_memory(run):
    fast, slow = run.accesses[".model_arena"], run.accesses[".model_arena.AXI"]
    assert slow > 0, run.accesses
    # with everything in AXI every access to the arena would wait
    assert slow / (fast + slow) < 0.2


def test_the_weights_in_internal_flash_are_read_more_often_a_byte(run):
    inside, outside = run.sections[".weights"], run.sections[".weights.QSPI"]
    assert outside.address == run.profile.regions[3].origin
    reads = {item.name: run.accesses[item.name] / item.size for item in (inside, outside)}
    assert reads[".weights"] > reads[".weights.QSPI"] > 0


def test_the_report_of_each_region_is_the_linked_image(run):
    uses = {use.name: use for use in run.manifest.size.regions}
    assert set(uses) == {"FLASH", "DTCM", "AXI", "QSPI"}
    assert all(0 < use.used_bytes <= use.size_bytes for use in uses.values())
    size = run.manifest.size
    for kind, total in (("flash", size.flash_bytes), ("ram", size.ram_bytes)):
        assert sum(use.used_bytes for use in uses.values() if use.kind == kind) == total
    arenas = {arena.region: arena.size_bytes for arena in run.manifest.memory.arenas}
    assert run.sections[".model_arena.AXI"].size == uses["AXI"].used_bytes == arenas["AXI"]
    assert (run.folder / "firmware.bin").stat().st_size == uses["FLASH"].used_bytes
    assert (run.folder / "firmware.QSPI.bin").stat().st_size == uses["QSPI"].used_bytes
