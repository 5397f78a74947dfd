"""The installation of packages by `make`: progress, complete errors, and one sentence if offline."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from microblog.development.process_manager import ManagedProcess
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port, wait_for

# Of pip: neither the configuration nor the cache of this machine.
ENVIRONMENT = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
COMMAND = [sys.executable, "microblog/development/install.py"]

pytestmark = pytest.mark.exhaustive


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT
    )


def test_packages_are_installed_and_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    folder = tmp_path / "installed"

    outcome = install("--no-index", "--find-links", str(tmp_path), "--target", str(folder), "tiny")

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1] == "Installed 1 package."
    assert (folder / "tiny.py").exists()


def test_error_of_pip_is_printed_completely() -> None:
    outcome = install("--no-index", "no-such-package")

    assert outcome.returncode == 1
    assert outcome.stderr == (
        "ERROR: Could not find a version that satisfies the requirement no-such-package (from versions: none)\n"
        "ERROR: No matching distribution found for no-such-package\n"
    )


def test_unreachable_index_is_one_sentence() -> None:
    outcome = install("--retries", "1", "--index-url", f"http://127.0.0.1:{free_port()}/simple", "no-such-package")

    assert outcome.returncode == 1
    assert outcome.stderr == (
        "The package index cannot be reached (Connection refused): check the network, or set PIP_INDEX_URL.\n"
    )


def test_progress_continues_while_pip_waits(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, but does not answer
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        installer = ManagedProcess(
            [*COMMAND, "--index-url", index, "no-such-package"], ENVIRONMENT, stdout=output, folder=ROOT
        )
        try:
            wait_for(lambda: len(re.findall(r"^ +\d+ s: 0 packages found; ", output.read_text(), re.MULTILINE)) >= 2)
            [pip] = installer.children()

            installer.send_signal(signal.SIGTERM)

            assert installer.wait(TIMEOUT) != 0
            assert not Path(f"/proc/{pip}").exists()
            assert "Traceback" not in output.read_text()
        finally:
            installer.kill()
