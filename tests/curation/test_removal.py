from __future__ import annotations

from pathlib import Path

import pytest

from curation.removal import Removal


def removal(tmp_path: Path, *lines: str) -> Removal:
    (tmp_path / "removed.txt").write_text("\n".join(lines))
    return Removal(tmp_path / "removed.txt")


@pytest.mark.parametrize(
    ("entry", "address", "is_taken"),
    [
        ("http://a.example/1.jpg", "http://a.example/1.jpg", True),
        ("http://a.example/1.jpg", "http://a.example/12.jpg", False),
        ("example.com", "https://cdn.Example.com:8080/1.jpg?x=y", True),
        ("Example.COM", "https://example.com/1.jpg", True),
        ("example.com", "https://notexample.com/1.jpg", False),
        ("example.com", "https://other.org/example.com", False),
        ("cdn.example.com", "https://example.com/1.jpg", False),
        ("17", "http://a/1", True),
        ("171", "http://a/1", False),
        ("in/1.jpg", "in/1.jpg", True),
        ("example.com", "http://[broken/1", False),
    ],
)
def test_an_entry_takes_its_address_its_domain_or_its_key(
    tmp_path: Path, entry: str, address: str, is_taken: bool
) -> None:
    entry_of = removal(tmp_path, entry).entry_of(address, 17)
    assert (entry_of is not None) == is_taken


def test_comments_and_blank_lines_are_no_entries(tmp_path: Path) -> None:
    assert list(removal(tmp_path, "# asked in May", "", " a.example ", "a.example").entries) == ["a.example"]


def test_a_line_with_two_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"removed\.txt line 2: found 'b c'; expected one address, domain or key"):
        removal(tmp_path, "a.example", "b c")
