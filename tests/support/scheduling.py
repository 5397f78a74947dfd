"""Distribution of the tests over the processes of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

BROWSER = "tests/browser/"
SEPARATE_FILES = (f"{BROWSER}test_journey.py",)  # needs a browser, but not the shared site


class FileOrBrowserScheduling(LoadFileScheduling):
    """Distribute the tests by file. One process runs all browser tests, so that site and browser start once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return BROWSER if file.startswith(BROWSER) and file not in SEPARATE_FILES else file
