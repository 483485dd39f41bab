"""The GPU benchmark runs where a GPU machine has only torch's packages, and each of its lines can be computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = ("ray", "prefect", "spacy", "pydantic", "img2dataset", "faiss", "gradio", "psutil", "nltk")
RUN = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules.update(dict.fromkeys({WITHOUT!r}))
sys.argv = ["gpu", "--device", "cpu", "--tiny"]
runpy.run_module("tests.benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_gpu_benchmark_runs_without_what_a_gpu_machine_lacks() -> None:
    shown = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")][2:]
    found = {row[0] for row in rows}
    assert any(name.startswith("parity with the release, bfloat16") for name in found)
    for size in ("ViT-S", "ViT-B"):
        for phase in (1, 2):
            for mode in ("paper, float32", "default, bfloat16, compiled"):
                assert f"{size}, phase {phase}, batch 8, {mode}" in found
        assert f"{size}, evaluation at 64 px, float32" in found
    assert {"loader, augmentation deit", "loss after 2 steps, default, float32"} <= found
    assert not [row for row in rows if "NOT WITHIN" in row]
