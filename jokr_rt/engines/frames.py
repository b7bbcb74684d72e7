"""The queue of whole frames that GPU engines share: copy in, compute and copy out, each on a stream of its own.

Of two neighbouring frames one is computed while the other is copied. The engine computes on one set of buffers, so
that what it captured as a CUDA graph stays valid; every frame in flight has staging buffers of its own before and
after them.
"""

import math
from collections import deque
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, Signature, TensorSpec
from jokr_rt.engines import IN_FLIGHT
from jokr_rt.engines.cuda import Device, DeviceBuffer, Stream
from jokr_rt.errors import EngineError

OUTPUTS = ("image", "keypoints", "confidence")


class Chain(Protocol):
    """An engine's graphs of one direction, from frame to image, on device memory at fixed addresses.

    name: the engine's, for messages. device, stream: where it computes. specs and buffers: of "frame" and `OUTPUTS`;
    each buffer holds `max_batch` frames.
    """

    name: str
    device: Device
    stream: Stream
    max_batch: int
    specs: dict[str, TensorSpec]
    buffers: dict[str, DeviceBuffer]

    def launch(self, batch: int) -> None:
        """Have the stream compute `OUTPUTS` of the first `batch` frames of "frame". Raises EngineError."""
        ...

    def close(self) -> None:
        """Free all of it but the device. May be called twice."""
        ...


class StageBuffers:
    """Device memory for a direction's three graphs and up to `max_batch` frames: what one writes, the next one reads.

    graphs: their names, in order. specs: of every tensor. The generator finds the target's appearance
    (1, 3, size/2, size/2), which `stream` copies in here; what the extractor says of the source's looks is not read.
    """

    def __init__(
        self,
        stream: Stream,
        signatures: dict[str, Signature],
        direction: str,
        appearance: NDArray[np.float32],
        max_batch: int,
    ) -> None:
        device = stream.device
        self.graphs = ("extractor", f"stn-{direction}", "generator")
        used = [signatures[graph] for graph in self.graphs]
        self.specs = {spec.name: spec for each in used for spec in (*each.inputs, *each.outputs)}
        sizes = {name: max_batch * bytes_per_frame(spec) for name, spec in self.specs.items()}
        self._memory = {name: device.buffer(nbytes) for name, nbytes in sizes.items()}
        self._unread = device.buffer(sizes["appearance"])
        looks = device.pinned((max_batch, *appearance.shape[1:]), appearance.dtype)
        looks.array[:] = appearance
        stream.copy_in(self._memory["appearance"], looks, looks.nbytes)
        stream.synchronize()
        looks.close()

    def of(self, graph: str) -> dict[str, DeviceBuffer]:
        """By the names of the graph's inputs and outputs, and more."""
        return self._memory | ({"appearance": self._unread} if graph == "extractor" else {})

    def close(self) -> None:
        """Free them. May be called twice."""
        for buffer in (*self._memory.values(), self._unread):
            buffer.close()


def batch_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """Of a graph's input or output with so many frames."""
    return (batch, *map(int, spec.shape[1:]))


def bytes_per_frame(spec: TensorSpec) -> int:
    """Of a graph's input or output."""
    return math.prod(batch_shape(spec, 1)) * np.dtype(spec.dtype).itemsize


class DeviceFrames:
    """See `jokr_rt.engines.FrameQueue`. It closes the chain it was given."""

    depth = IN_FLIGHT

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._copying_in, self._copying_out = chain.device.stream(), chain.device.stream()
        self._slots = [_Slot(chain) for _ in range(IN_FLIGHT)]
        self._free, self._taken = deque(self._slots), deque[_Slot]()

    def enqueue(self, frame: NDArray[np.uint8]) -> None:
        chain, spec = self._chain, self._chain.specs["frame"]
        try:
            spec.check(frame)
        except ValueError as error:
            raise EngineError(f"{chain.name}: {error}") from None
        if not 1 <= len(frame) <= chain.max_batch:
            raise EngineError(f"{chain.name}: a batch of {len(frame)} frames, and it takes 1 to {chain.max_batch}")
        if not self._slots:
            raise EngineError(f"{chain.name}: the queue is closed")
        if not self._free:
            raise EngineError(f"{chain.name}: {IN_FLIGHT} frames are in flight already; collect one first")
        slot = self._free[0]
        slot.batch = len(frame)
        slot.host["frame"].array[: slot.batch] = frame
        slot.copy_in(self._copying_in)
        slot.compute(chain)
        slot.copy_out(self._copying_out)
        self._taken.append(self._free.popleft())

    def collect(self) -> Arrays:
        if not self._taken:
            raise EngineError(f"{self._chain.name}: no frame is in flight")
        slot = self._taken.popleft()
        self._free.append(slot)
        slot.copied_out.synchronize()
        return {name: slot.host[name].array[: slot.batch].copy() for name in OUTPUTS}

    def close(self) -> None:
        self._free.clear()
        self._taken.clear()
        with suppress(EngineError):  # see cuda.Device.close
            self._chain.device.synchronize()
        self._copying_in.close()
        self._copying_out.close()
        for slot in self._slots:
            slot.close()
        self._slots.clear()
        self._chain.close()


class _Slot:
    """One frame in flight: where it is on the host and on the device, and how far it is."""

    def __init__(self, chain: Chain) -> None:
        device = chain.device
        specs = {name: chain.specs[name] for name in ("frame", *OUTPUTS)}
        self.host = {
            name: device.pinned(batch_shape(spec, chain.max_batch), spec.dtype) for name, spec in specs.items()
        }
        self.staging = {name: device.buffer(array.nbytes) for name, array in self.host.items()}
        self.frame_bytes = {name: bytes_per_frame(spec) for name, spec in specs.items()}
        self.copied_in, self.computed, self.copied_out = (device.event() for _ in range(3))
        self.batch = 0

    def copy_in(self, stream: Stream) -> None:
        stream.copy_in(self.staging["frame"], self.host["frame"], self._nbytes("frame"))
        stream.record(self.copied_in)

    def compute(self, chain: Chain) -> None:
        chain.stream.wait(self.copied_in)
        chain.stream.copy(chain.buffers["frame"], self.staging["frame"], self._nbytes("frame"))
        chain.launch(self.batch)
        for name in OUTPUTS:
            chain.stream.copy(self.staging[name], chain.buffers[name], self._nbytes(name))
        chain.stream.record(self.computed)

    def copy_out(self, stream: Stream) -> None:
        stream.wait(self.computed)
        for name in OUTPUTS:
            stream.copy_out(self.host[name], self.staging[name], self._nbytes(name))
        stream.record(self.copied_out)

    def close(self) -> None:
        for made in (*self.host.values(), *self.staging.values(), self.copied_in, self.computed, self.copied_out):
            made.close()

    def _nbytes(self, name: str) -> int:
        return self.batch * self.frame_bytes[name]
