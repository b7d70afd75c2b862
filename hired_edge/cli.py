"""The `hired-edge` command: finds the sub-commands that the wings have registered and runs the chosen one.

A sub-command is an entry point of the group `hired_edge.commands` that names a module with three attributes: `help`
(a string literal of one line), `add_arguments(parser)` and `run(args)`, which returns an exit status or None for 0.
Only the chosen module is imported; for `--help` the others are read as text, so that listing the commands needs no
engine and no torch. This file knows no sub-command by name and imports neither wing.
"""

from __future__ import annotations

import argparse
import ast
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn, Protocol, cast

from hired_edge import __version__
from hired_edge.errors import HiredEdgeError, InputError, MissingExtraError

GROUP = "hired_edge.commands"
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

# The extra that installs an optional module.
EXTRAS = {
    "bcrypt": "sign",
    "cryptography": "sign",
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "cuda": "tensorrt",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "prometheus_client": "serve",
    "pyarrow": "ray",
    "ray": "ray",
    "safetensors": "export",
    "starlette": "serve",
    "torch": "export",
    "tqdm": "export",
    "transformers": "export",
    "uvicorn": "serve",
}


class Command(Protocol):
    """What a sub-command's module provides."""

    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int | None: ...


class Parser(argparse.ArgumentParser):
    """Its errors are an InputError, on one line like every other; argparse itself would print the usage first."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, expected=f"arguments of {self.prog}", fix=f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hired-edge argv...` and returns its exit status: 0, 2 for a user's error, 130 for Ctrl-C.

    The only place that catches a HiredEdgeError. Any other exception is a bug and keeps its traceback.
    """
    unraisable, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer may hold what a terminal cannot show
    try:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        finally:
            _flush()  # here, so that a reader that has gone away (`| head`) is noticed before the exit
    except HiredEdgeError as error:
        print("hired-edge: error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt as interrupt:  # which may say what it has left behind, in a line
        print(": ".join(["hired-edge: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        # Commands turn errors of their files into their own: what names no file is stdout.
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Python flushes stdout once more at exit; let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return EXIT_BROKEN_PIPE
        print("hired-edge: error: the disk is full; expected room for stdout; free some space", file=sys.stderr)
        return EXIT_ERROR
    finally:
        sys.unraisablehook = unraisable


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """A Ctrl-C that comes inside a destructor cannot leave it, and would be lost: it is sent again a moment later."""
    if unraisable.exc_type is KeyboardInterrupt:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


def _flush() -> None:
    if sys.stdout is not None:  # it is None where the shell has closed it (`>&-`)
        sys.stdout.flush()


def _run(argv: list[str]) -> int:
    commands = {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}
    if not commands:
        raise HiredEdgeError(
            "no sub-commands are registered",
            expected="hired-edge to be installed, not only importable",
            fix="run: pip install -e '.[cpu]' in its source tree",
        )
    parser = Parser(
        prog="hired-edge", description="Vision-language models within a visual-token budget.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hired-edge {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = argv[0] if argv else None
    try:
        command, chosen_parser = None, parser
        for name, entry in commands.items():
            summary = _summary(entry)
            subparser = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
            if name == chosen:
                command, chosen_parser = cast(Command, entry.load()), subparser
                command.add_arguments(subparser)
        args, unknown = parser.parse_known_args(argv)
        if command is None or unknown:
            chosen_parser.error(f"unrecognized arguments: {' '.join(unknown or argv)}")
        return command.run(args) or 0
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        extra = EXTRAS[module]
        raise MissingExtraError(
            f"no module named {module}",
            expected=f"the {extra!r} extra",
            fix=f"run: pip install 'hired-edge[{extra}]'",
        ) from error


def _summary(entry: EntryPoint) -> str | None:
    """The literal assigned to `help` in an entry point's module, found without importing the module or its parents."""
    spec, path = None, None
    for part in entry.module.split("."):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        return None
    for node in ast.parse(spec.loader.get_data(spec.loader.path)).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="help")], value=ast.Constant(value=str(text)))
                | ast.AnnAssign(target=ast.Name(id="help"), value=ast.Constant(value=str(text)))
            ):
                return text.replace("%", "%%")  # argparse formats help texts with %
            case _:
                pass
    return None
