"""Hostile files: damaged copies of small files go through the commands, each in a process that is watched.

    seeds ──a file of every kind──▶ mutators ──a mutant──▶ doors ──commands──▶ children ──end, memory, output──▶ judge

``python -m fuzz --mutants 1000 --seed 0`` (in ``tests/``) prints a table and how each failure is replayed.
"""
