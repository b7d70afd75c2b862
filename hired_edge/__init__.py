"""The contract between the workstation that exports a bundle and the device that runs it: numpy and stdlib only."""

import os

# Builds of ONNX Runtime for Linux send usage data to their maker and keep a number for it in the user's cache, unless
# they are told not to before they are first imported. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
