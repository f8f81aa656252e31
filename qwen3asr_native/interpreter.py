"""Parts of this package that run in a Python process of their own."""

from __future__ import annotations

import json
import sys

_BEGIN = """
import sys
del sys.path[:1]
import json
sys.path[:] = json.loads(sys.argv.pop())
from {module} import main
main()
"""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that calls ``main()`` of a module, with the arguments in ``sys.argv``.

    Modules come from where this process has them, not from the folder that it stands in.
    """
    return [sys.executable, "-c", _BEGIN.format(module=module), *arguments, json.dumps(sys.path)]
