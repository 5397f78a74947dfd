"""Benchmarks: the costs of Microblog as ratios to bare Celery or to a bare loop, and its recovery from faults.

`python -m bench` runs all of them.

Each benchmark is a module whose `run(servers)` yields the lines of a table. It measures both sides in one run, in turns
or side by side, so that a busy machine slows both, and the ratios do not depend on the speed of the machine.
"""
