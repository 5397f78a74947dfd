"""The proof that each promise is held by a line of code, and that a test notices when the line is gone.

`python -m tests.mutants` takes out one line after the other, each in a copy of the tree, and demands that the tests
named for it fail. The list is in catalogue/, a module for each few promises.
"""
