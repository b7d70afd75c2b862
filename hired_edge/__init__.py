"""The contract between the workstation that exports a bundle and the device that runs it: numpy and stdlib only."""

__version__ = "0.1.0"
