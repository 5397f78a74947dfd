"""Random requests to every route of the site, pages and API: whatever is sent, no answer is a fault of ours.

`python -m tests.fuzz --requests 100000 --seed 1 --database postgresql`, or `make fuzz`. The routes, the fields of forms
and those of JSON are found in the application itself, so that what is new is asked, too.
"""
