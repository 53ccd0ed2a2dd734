"""What a result file says of where, when and how it was measured."""

import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any


def provenance(module: str) -> dict[str, Any]:
    """Return command, machine and date of this run of a module."""
    return {
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "load": os.getloadavg(),
        },
        "date": datetime.now(UTC).date().isoformat(),
    }
