"""Evaluation: zero-shot segmentation, benchmarks, metrics, report."""

from evaluation.benchmarks import BENCHMARKS, Benchmark
from evaluation.config import Protocol
from evaluation.image_files import read_image
from evaluation.metrics import ConfusionMatrix
from evaluation.segment import Segmenter
from evaluation.segment_images import label_image, word_segmenter

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "ConfusionMatrix",
    "Protocol",
    "Segmenter",
    "label_image",
    "read_image",
    "word_segmenter",
]
