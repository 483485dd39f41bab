from __future__ import annotations

import pytest

from curation.columns import columns_of_cells, names_captions, standard_names


@pytest.mark.parametrize(
    ("names", "standard"),
    [
        (("URL", "TEXT", "NSFW"), ("url", "caption", "nsfw")),
        (("image_url", "caption"), ("url", "caption")),
        (("url", "caption", "text"), ("url", "caption", "text")),
        ((" Image_Path ", "alt_text"), ("image", "caption")),
        (("name", "title"), ("name", "title")),
    ],
)
def test_names_of_published_tables_become_ours_and_ours_win(names: tuple[str, ...], standard: tuple[str, ...]) -> None:
    assert standard_names(names) == standard
    assert names_captions(standard) == (standard[0] in ("url", "image"))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([["http://a/1", "a cat"]], ("url", "caption")),
        ([["a cat", "http://a/1"], ["a dog", "http://a/2"]], ("caption", "url")),
        ([["a cat", "http://a/1"], ["http://a/2", "a dog"]], None),
        ([["http://a/1", "http://a/2"]], None),
        ([["a cat", "a dog"]], None),
        ([["7", "http://a/1", "a cat"]], None),
    ],
)
def test_most_rows_must_say_which_cell_is_the_address(rows: list[list[str]], columns: tuple[str, ...] | None) -> None:
    assert columns_of_cells(rows) == columns
