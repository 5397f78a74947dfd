"""Mutation tests: each promise is kept by a line of code, and a test fails without that line.

`python -m tests.mutants` removes one line after the other, each in a copy of the tree, and requires that the tests
named for it fail. The list is in catalogue/, where each module has a few promises.
"""
