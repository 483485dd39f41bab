"""Evaluation: zero-shot segmentation, benchmarks, metrics, report."""

from evaluation.benchmarks import BENCHMARKS, Benchmark
from evaluation.config import Protocol
from evaluation.metrics import ConfusionMatrix
from evaluation.segment import Segmenter

__all__ = ["BENCHMARKS", "Benchmark", "ConfusionMatrix", "Protocol", "Segmenter"]
