"""The device wing: opens a bundle and answers questions about pictures, with numpy, Pillow, tokenizers and one engine.

import hired_runtime

model = hired_runtime.open("bundle", visual_tokens="20%")
answer = model.ask("What is on the table?", images=["table.jpg"])
print(answer.text, answer.timings_ms["ttft"])
"""

from __future__ import annotations

from hired_runtime.model import Model, open
from hired_runtime.pipeline import Answer, Generation, Request
from hired_runtime.sampling import SamplingOptions
from hired_runtime.session import Session

__all__ = ["Answer", "Generation", "Model", "Request", "SamplingOptions", "Session", "open"]
