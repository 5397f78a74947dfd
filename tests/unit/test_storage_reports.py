"""The probe of a storage that hangs."""

from __future__ import annotations

import subprocess
import sys

from tests.support.programs import ROOT

HANGING_FOLDER = """
from gevent import monkey, spawn
monkey.patch_all()
import time
from pathlib import Path
from microblog.monitoring.storage_reports import _exists
from microblog.storage import FolderStorage

class HangingFolder(FolderStorage):
    def exists(self, path):
        monkey.get_original("time", "sleep")(2)
        return True

requests = []

def serve():
    for number in range(10):
        requests.append(number)
        time.sleep(0.01)

spawn(serve)
assert _exists(HangingFolder(Path()))
print(len(requests))
"""


def test_hanging_folder_stops_no_greenlet() -> None:
    result = subprocess.run([sys.executable, "-c", HANGING_FOLDER], cwd=ROOT, capture_output=True, text=True)

    assert (result.stdout, result.stderr) == ("10\n", "")
