"""Views: buffers that are a run of another buffer's bytes, such as some rows of an NHWC map.

A view has no memory of its own. It lies `view_offset_bytes` into its parent, which is no view; the
parent is live from the first to the last step that touches it or any view of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecompress.lower.program import Buffer


def owner(buffers: Mapping[str, Buffer], name: str) -> str:
    """The name of the buffer whose memory `name` is: itself, or its parent."""
    return buffers[name].view_of or name


def settled(buffers: Mapping[str, Buffer]) -> dict[str, Buffer]:
    """The same buffers, each view's offset and location those of its place in its parent."""
    placed = {}
    for name, buffer in buffers.items():
        if buffer.view_of:
            parent = buffers[buffer.view_of]
            buffer = replace(
                buffer,
                location=parent.location,
                offset_bytes=parent.offset_bytes + buffer.view_offset_bytes,
            )
        placed[name] = buffer
    return placed


def view_array(parent: np.ndarray, buffer: Buffer) -> np.ndarray:
    """A view buffer's elements, in its shape and dtype, sharing memory with the parent's array.

    Args:
        parent: contiguous, of the parent's size in bytes.
    """
    start = buffer.view_offset_bytes
    content = parent.reshape(-1).view(np.uint8)[start : start + buffer.size_bytes]
    return content.view(buffer.dtype).reshape(buffer.shape)
