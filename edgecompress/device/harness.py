"""Runs an image folder on a device and asks it questions: one `Session` for every device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from edgecompress.device.cycles import Work
from edgecompress.device.firmware import check_flash
from edgecompress.device.meter import Meter
from edgecompress.device.ports.base import CountsWork, Port
from edgecompress.device.protocol import Area, Client, Identity
from edgecompress.device.provenance import Remarks, provenance
from edgecompress.errors import (
    BadData,
    BadInput,
    DeviceFault,
    DeviceNotFound,
    ProtocolError,
)
from edgecompress.records import (
    ImageManifest,
    LayerReport,
    Measurement,
    Provenance,
    TensorSpec,
    sha256_file,
)
from edgecompress.target.schema import DeviceProfile

_AREAS: dict[str, Area] = {"arena": "arena", "input": "in", "output": "out"}
DEVICES = "virtual, process, qemu, adb, serial:/dev/ttyACM0, socket://host:port or rfc2217://..."


@dataclass(frozen=True)
class LayerTrace:
    """What one step left behind: the CRC-32 of its output and its cost in ticks."""

    index: int
    name: str
    crc: int
    ticks: int


@dataclass(frozen=True)
class StepCost:
    """What one step took; `work` is what it executed, on a port that counts it."""

    index: int
    ticks: int
    work: Work | None


@dataclass(frozen=True)
class Image:
    """An image folder, what its image.json says, and the device it was made for."""

    folder: Path
    manifest: ImageManifest
    profile: DeviceProfile


def open_device(
    image_dir: Path,
    profile: DeviceProfile,
    device: str = "virtual",
    *,
    run_timeout_s: float = 120.0,
) -> Session:
    """Starts (or connects to) the device, and makes sure it runs this very image.

    Args:
        image_dir: a folder `link.image.build_image` wrote.
        profile: the device.
        device: "virtual", "process", "qemu", "adb[:SERIAL]", "serial:PORT" or a pyserial URL.
        run_timeout_s: how long one inference or step may take on the host's clock.

    Raises:
        BadInput: the folder holds no image, or its firmware is not the one image.json describes.
        DeviceNotFound: there is no such device here.
        DeviceTimeout: it does not answer.
        ProtocolError: it runs another model, or its flash holds other bytes than the image.
    """
    manifest = load_manifest(image_dir)
    port = _open_port(image_dir / manifest.firmware, profile, device)
    try:
        client = Client(port, run_timeout_s=run_timeout_s)
        client.synchronize()
        image = Image(image_dir, manifest, profile)
        identity = _checked_identity(client, manifest)
        if profile.kind == "mcu":
            check_flash(client, image_dir / manifest.firmware, profile)
        return Session(client, image, identity)
    except BaseException:
        port.close()
        raise


def load_manifest(image_dir: Path) -> ImageManifest:
    """`image.json` of a folder, its firmware's hash compared.

    Raises:
        BadInput: missing, damaged, or the firmware is another.
    """
    path = image_dir / "image.json"
    again = "Compile the image again."
    try:
        manifest = ImageManifest.from_json(path.read_bytes())
        found = sha256_file(image_dir / manifest.firmware)
    except OSError as error:
        raise BadInput(
            f"{image_dir} is not an image folder: {error.filename} cannot be read "
            f"({error.strerror}).",
            next_step=again,
        ) from None
    except ValidationError as error:
        raise BadInput(
            f"{path} is damaged: {error.error_count()} fields are wrong.", next_step=again
        ) from None
    if found != manifest.firmware_hash:
        raise BadInput(
            f"{manifest.firmware} has sha256 {found[:12]}..., image.json says "
            f"{manifest.firmware_hash[:12]}...",
            next_step=again,
        )
    return manifest


def _open_port(firmware: Path, profile: DeviceProfile, device: str) -> Port:
    """The ports' modules are imported only when asked for: Unicorn takes a tenth of a second."""
    if device == "virtual":
        from edgecompress.device.ports.virtual import VirtualPort

        return VirtualPort(firmware, profile)
    if device == "process":
        from edgecompress.device.ports.process import open_process

        return open_process(firmware, profile)
    if device == "qemu":
        from edgecompress.device.ports.qemu import open_qemu

        return open_qemu(firmware, profile)
    if device.partition(",")[0].partition(":")[0] == "adb":
        from edgecompress.device.ports.adb import open_adb

        return open_adb(firmware, profile, device)
    if device.startswith("serial:") or "://" in device:
        from edgecompress.device.ports.serial import SerialPort

        return SerialPort(device.removeprefix("serial:"), baud=profile.console.baud)
    raise DeviceNotFound(f"'{device}' is not a device.", next_step=f"Use {DEVICES}.")


def _checked_identity(client: Client, manifest: ImageManifest) -> Identity:
    identity = client.identity()
    again = "Flash the image of this folder."
    if identity.model != manifest.model_hash:
        raise ProtocolError(
            f"{client.port.name} runs model {identity.model[:12]}..., the image folder holds "
            f"{manifest.model_hash[:12]}...",
            next_step=again,
        )
    expected = {
        "input_bytes": _bytes(manifest.inputs[0]),
        "output_bytes": _bytes(manifest.outputs[0]),
        "steps": len(manifest.layers),
    }
    for name, value in expected.items():
        found = getattr(identity, name)
        if found != value:
            raise ProtocolError(
                f"{client.port.name} reports {name} {found}, image.json {value}.", next_step=again
            )
    return identity


class Session:
    """A device that runs the image, as a context manager.

    Attributes:
        manifest: what image.json says.
        port: where the device is; `port.name` names it.
        core: the processor's name.
        tick_hz: the rate of the timer its ticks come from.
    """

    def __init__(self, client: Client, image: Image, identity: Identity) -> None:
        self._client = client
        self._image = image
        self._identity = identity
        self._next_step: int | None = None
        self._sample = b""
        self.manifest = image.manifest
        self.port = client.port
        self.core = image.profile.core.name
        self.tick_hz = identity.tick_hz

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.port.close()

    def identity(self) -> dict[str, Any]:
        """Model hash, target, ABI, clocks, sizes and arena address, from the device itself."""
        return asdict(self._identity)

    def load(self, x: np.ndarray) -> None:
        """Writes one sample, in the device's layout and type, into the model's input.

        Raises:
            BadData: the wrong type or number of elements.
        """
        spec = self.manifest.inputs[0]
        array = np.ascontiguousarray(x)
        if array.dtype != spec.dtype or array.nbytes != _bytes(spec):
            raise BadData(
                f"The image takes one {spec.dtype} sample of shape {list(spec.shape)}; given "
                f"{array.dtype} of shape {list(array.shape)}."
            )
        self._sample = array.tobytes()
        self._client.load_input(self._sample)
        self._next_step = None

    def infer(self, x: np.ndarray) -> np.ndarray:
        """One inference.

        Args:
            x: one sample in the device's layout and type, batch 1 or without the batch.

        Returns:
            The output as the image stores it, in `manifest.outputs[0]`'s shape and type.
        """
        self.load(x)
        self._client.run()
        spec = self.manifest.outputs[0]
        data = self._client.output(_bytes(spec))
        return np.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)

    def run(self) -> int:
        """Runs what `load` put in; the ticks it took, the reading of the timer included."""
        self._next_step = None
        return self._client.run()

    def layers(self, x: np.ndarray, manifest: ImageManifest | None = None) -> list[LayerTrace]:
        """Every step in order: what it wrote (as a CRC-32 of its bytes) and what it cost.

        Raises:
            ProtocolError: `manifest` is not of the image that runs.
        """
        if manifest is not None and manifest.model_hash != self.manifest.model_hash:
            raise ProtocolError(f"{self.port.name} runs another model than the manifest's.")
        self.load(x)
        self._client.begin()
        traces = []
        for layer in self.manifest.layers:
            ticks = self._client.step(layer.index)
            crc = self._client.crc(layer.offset_bytes, layer.size_bytes, _AREAS[layer.location])
            traces.append(LayerTrace(layer.index, layer.name, crc, ticks))
        self._next_step = len(self.manifest.layers)
        return traces

    def take_work(self) -> Work | None:
        """What the model executed since the last call; None on a port that cannot see it."""
        return self.port.take_work() if isinstance(self.port, CountsWork) else None

    def read_layer(self, index: int) -> np.ndarray:
        """The output of one layer for the sample loaded last, in its shape and type.

        Later steps reuse the arena, the input's bytes too, so the sample is loaded again and the
        model run from its start up to this layer.
        """
        layer = self.manifest.layers[index]
        if self._next_step != index + 1:
            self._client.load_input(self._sample)
            self._client.begin()
            for earlier in range(index + 1):
                self._client.step(earlier)
            self._next_step = index + 1
        return self._read(layer)

    def _read(self, layer: LayerReport) -> np.ndarray:
        data = self._client.read(layer.offset_bytes, layer.size_bytes, _AREAS[layer.location])
        return np.frombuffer(data, dtype=layer.output_dtype).reshape(layer.output_shape)

    def stack_high_water(self) -> int | None:
        """Bytes of stack used since reset; None where no stack was painted (a process).

        Raises:
            DeviceFault: the stack reached its end, and so may have overwritten other memory.
        """
        stack = next((one for one in self._identity.regions if one.name == "stack"), None)
        if stack is None or not stack.size_bytes:
            return None
        used, available = self._client.stack()
        if used >= available:
            raise DeviceFault(
                f"The stack used all of its {available} bytes on {self.port.name}: it may have "
                "overwritten other memory.",
                next_step="Raise stack_reserve in the target.",
            )
        return used

    def step_costs(self, x: np.ndarray) -> list[StepCost]:
        """Every step in order and its cost alone: nothing is read between two of them."""
        self.load(x)
        self._client.begin()
        self.take_work()
        costs = []
        for layer in self.manifest.layers:
            ticks = self._client.step(layer.index)
            costs.append(StepCost(layer.index, ticks, self.take_work()))
        self._next_step = len(self.manifest.layers)
        return costs

    def measure(self, x: np.ndarray, runs: int = 1, warmup: int = 0) -> Measurement:
        """The cost of one inference: median over `runs`, and each step's own. See `Meter`."""
        meter = Meter(self, x)
        meter.warm_up(warmup)
        meter.run(max(runs, 1))
        meter.finish()
        return meter.record()

    def provenance(self, remarks: Remarks) -> Provenance:
        """Where a measurement of this session, made now, comes from."""
        return provenance(
            self._image.folder, self.manifest, self._image.profile, self._client, self._identity,
            remarks,
        )  # fmt: skip


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
