"""Imports modules and prints their version: as metadata has it, and as the last of the modules says.

Arguments: distributions, separated by commas, that may have brought the module; then modules, imported in this order.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version


def main(distributions: list[str], names: list[str]) -> dict:
    report: dict = {"distributions": _versions(distributions), "installed": True, "version": None, "error": None}
    try:
        modules = [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        missing = error.name or ""
        itself = names[0] == missing or names[0].startswith(missing + ".")
        return {**report, "installed": not itself, "error": str(error)}
    except Exception as error:  # whatever a broken installation raises is what is reported
        return {**report, "error": f"{type(error).__name__}: {error}"}
    found = getattr(modules[-1], "__version__", None)
    return {**report, "version": None if found is None else str(found)}


def _versions(distributions: list[str]) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1].split(","), sys.argv[2:])))
