"""The package's logger: a library says what it has to say here, and only the command line prints."""

from __future__ import annotations

import logging

logger = logging.getLogger(__package__)
