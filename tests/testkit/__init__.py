"""Rigs for tests and benchmarks: brokers, daemons as processes, faults, made-up data. Nothing of it is part of the daemon.

pyproject.toml puts its folder on pytest's import path, benchmarks/parts/__init__.py on that of benchmarks. The repository's root has to be
on the path as well: otherwise `import daemon` finds the folder tests/daemon, and the same holds for the other packages.
"""
