"""Something to read and somebody to sign in as: `flask demo` (cli.py), of people (people.py) who write (posts.py)."""
