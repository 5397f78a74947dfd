"""How the tests are spread over the processes of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

BROWSER = "tests/browser/"
ON_THEIR_OWN = (f"{BROWSER}test_journey.py",)  # needs a browser, but not the site of the others


class FileOrBrowserScheduling(LoadFileScheduling):
    """Give each process a file after another; all tests in a browser go to one, which starts site and browser once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return BROWSER if file.startswith(BROWSER) and file not in ON_THEIR_OWN else file
