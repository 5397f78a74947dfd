"""What Microblog costs, as ratios to bare Celery or to the raw limit; `python -m bench` measures all of it.

Each benchmark is a module whose `run(house)` yields figures. It measures both sides in turns, in one run, so that a
busy machine slows both; no figure depends on how fast the machine is.
"""
