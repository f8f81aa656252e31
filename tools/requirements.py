#!/usr/bin/env python3
"""Prints what the package needs, and what the named extras need beside it: lines for pip and for pip-audit.

python tools/requirements.py server hub
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomllib

with open(Path(__file__).resolve().parent.parent / "pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
unknown = set(sys.argv[1:]) - set(extras)
if unknown:
    sys.exit(
        f"requirements: no extra is named {', '.join(sorted(unknown))}: take {', '.join(sorted(extras))}"
    )
wanted = project["dependencies"] + [line for extra in sys.argv[1:] for line in extras[extra]]
print("\n".join(line for line in wanted if not line.startswith(project["name"])))
