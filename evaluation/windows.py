"""Where an image is looked at: its size after resizing, and the windows that are cut from it."""

from __future__ import annotations

from evaluation.config import Protocol

Window = tuple[slice, slice]
"""rows and columns of the resized image"""


def resized(height: int, width: int, protocol: Protocol, least: int = 1) -> tuple[int, int]:
    """Return the size that the protocol gives an image before anything is cut from it; no side is below `least`."""
    scale = 1.0 if protocol.shorter_side is None else protocol.shorter_side / min(height, width)
    if protocol.longest_side is not None:
        scale = min(scale, protocol.longest_side / max(height, width))
    return max(least, round(height * scale)), max(least, round(width * scale))


def cut(height: int, width: int, protocol: Protocol) -> tuple[Window, ...]:
    """Return the windows of a resized image, all of one size, row by row."""
    rows, columns = (window_slices(length, protocol.window, protocol.stride) for length in (height, width))
    return tuple((row, column) for row in rows for column in columns)


def window_slices(length: int, window: int | None, stride: int | None) -> list[slice]:
    """Return the windows along one side; the last one is shifted back so that it ends with the image."""
    if window is None or window >= length:
        return [slice(0, length)]
    step = stride or window
    starts = [*range(0, length - window, step), length - window]
    return [slice(start, start + window) for start in starts]
