"""Sizes and windows."""

from __future__ import annotations

from evaluation.config import Protocol
from evaluation.windows import cut, resized, window_slices


def test_the_last_window_ends_with_the_image() -> None:
    assert window_slices(10, 4, 3) == [slice(0, 4), slice(3, 7), slice(6, 10)]
    assert window_slices(9, 4, 3) == [slice(0, 4), slice(3, 7), slice(5, 9)]
    assert window_slices(4, 4, 2) == window_slices(4, None, None) == window_slices(4, 8, 8) == [slice(0, 4)]


def test_windows_come_row_by_row() -> None:
    assert cut(4, 6, Protocol(window=4, stride=2)) == (
        (slice(0, 4), slice(0, 4)),
        (slice(0, 4), slice(2, 6)),
    )


def test_the_shorter_side_is_resized_and_the_longer_one_bounded() -> None:
    assert resized(300, 600, Protocol(shorter_side=448, longest_side=2048)) == (448, 896)
    assert resized(100, 8000, Protocol(shorter_side=448, longest_side=2048)) == (26, 2048)
    assert resized(300, 600, Protocol(shorter_side=None, longest_side=None)) == (300, 600)


def test_by_default_only_large_images_are_made_smaller() -> None:
    assert resized(375, 500, Protocol()) == (375, 500)
    assert resized(6000, 8000, Protocol()) == (768, 1024)


def test_no_side_is_below_a_patch() -> None:
    assert resized(1, 8000, Protocol(), least=16) == (16, 1024)
    assert resized(8, 8, Protocol(), least=16) == (16, 16)
