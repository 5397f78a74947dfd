"""Random requests to every route, pages and API. No request may cause a server error.

`python -m tests.fuzz --requests 100000 --seed 1 --database postgresql`, or `make fuzz`. The routes and the fields of
forms and of JSON are taken from the application, so that new ones are included.
"""
