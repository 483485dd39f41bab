"""Evaluation: zero-shot segmentation, benchmarks, metrics, report."""
