"""Rigs for tests and benchmarks: brokers, daemons as processes, faults, made-up data. Nothing of it is part of the daemon.

On the import path by pyproject.toml (pytest) and benchmarks/parts/__init__.py. The repository's root has to be on that path as well: the
folders tests/daemon, tests/drift, ... would otherwise be found by the names of our packages.
"""
