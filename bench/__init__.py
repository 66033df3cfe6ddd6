"""Benchmarks: one module a subject, figures as ratios where there is something to compare with.

``python -m bench`` runs them, prints a table and writes ``bench/results.json``. Nothing here is part of the pipeline.
"""
