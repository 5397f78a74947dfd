"""The certificate of the tests' servers, for 127.0.0.1 and localhost, and that of the authority that has signed it."""

from __future__ import annotations

from pathlib import Path

CERTIFICATES = Path(__file__).parent
CA = CERTIFICATES / "ca.pem"
CERTIFICATE = CERTIFICATES / "server.pem"
KEY = CERTIFICATES / "server.key"
