"""Seeded odd calls of every public function: clear errors, or an answer.

Run ``python -m tests.fuzz --calls 1000 --seed 1``.
"""
