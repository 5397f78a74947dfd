"""Mutation tests: a line of code ensures each promise, and a test fails without that line.

`python -m tests.mutants` removes each of these lines in turn, in a copy of the tree, and requires that the tests
named for it fail. The list is in catalogue/, where each module has a few promises.
"""
