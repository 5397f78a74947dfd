"""Something to read and somebody to sign in as: `flask demo` (cli.py).

That is a town (town.py) of people who talk (conversations.py) and write letters (letters.py).
"""
