"""The other end of a worker: questions come as lines of JSON, answers go back as lines of JSON.

Only the standard library: it also runs in the peers' environment, which has nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(open_it: Callable[[], Mapping[str, Callable[..., Any]]]) -> None:
    """Loads by `open_it`, says so, and answers until the input ends.

    Args:
        open_it: gives the functions that can be asked for, by name; what they return must be JSON.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    known = open_it()
    say({"answer": "ready"})
    for line in sys.stdin:
        asked = json.loads(line)
        say({"answer": known[asked.pop("ask")](**asked)})
