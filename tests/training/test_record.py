import subprocess
from pathlib import Path

import pytest

from training import record


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.git_commit() is None
    (tmp_path / "record.py").write_text("one")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "record.py"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = record.git_commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "record.py").write_text("two")
    assert record.git_commit() == commit + "+"
