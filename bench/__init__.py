"""What Microblog costs, as ratios to bare Celery or to the raw limit, and how it recovers.

`python -m bench` measures all of it.

Each benchmark is a module whose `run(house)` yields the lines of a table. It measures both sides in one run, in turns
or side by side, so that a busy machine slows both; no ratio depends on how fast the machine is.
"""
