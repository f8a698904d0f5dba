"""How a rank's engine comes to its controller: the address, and the folder that IPython wants.

On the controller's machine the engine starts beside it and waits for the file with its address. On
another machine it was handed the address, and no folder of the first one is there.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["arrive"]

_ADDRESS_TIMEOUT = 60.0
_ADDRESS = "IPP_CONNECTION_INFO"


def arrive(application: Any, arguments: Sequence[str]) -> None:
    """Run ipyparallel's engine until it ends.

    Args:
        application: the class of the engine.
        arguments: those of its command line.

    Raises:
        TimeoutError: the controller wrote no address.
    """
    engine = application.instance()
    if _ADDRESS in os.environ:
        # Nothing of the folder is needed once the engine is made, so a killed one leaves none.
        with tempfile.TemporaryDirectory(prefix="ifog-") as folder:
            os.environ["IPYTHONDIR"] = folder
            engine.initialize([*arguments, f"--profile-dir={folder}"])
    else:
        os.environ[_ADDRESS] = _address()
        engine.initialize(list(arguments))
    engine.start()


def _address() -> str:
    """Where the controller listens, once it has said so."""
    folder = Path(os.environ["IPP_PROFILE_DIR"]) / "security"
    path = folder / f"ipcontroller-{os.environ['IPP_CLUSTER_ID']}-engine.json"
    pause, deadline = threading.Event(), time.monotonic() + _ADDRESS_TIMEOUT
    while time.monotonic() < deadline:
        try:
            text = path.read_text()
            json.loads(text)
        except (OSError, ValueError):
            pause.wait(0.02)  # not written yet, or half
        else:
            return text
    raise TimeoutError(f"the controller wrote no address to {path}")
