"""The command line of `plan` and `inspect`, with the files that they are given."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from pathlib import Path

from hired_edge.cli import Parser
from hired_edge.planner import command as plan
from hired_edge.planner.devices import DEVICES
from hired_edge.planner.published import PUBLISHED
from hired_runtime.commands import inspect
from tests.fuzz.mutators import arguments, json_text, parts
from tests.fuzz.surface import ROOT, Feed, Surface

WORDS, CONFIG, DEVICE, BUNDLE = "arguments", "config.json", "device.json", "manifest.json"


def seeds() -> dict[str, bytes]:
    device = json.dumps(dataclasses.asdict(DEVICES["orin-nx-16gb"])).encode()
    config = json.dumps(PUBLISHED["llava-v1.6-mistral-7b"].config).encode()
    manifest = (ROOT / "demo/bundle/manifest.json").read_bytes()
    lines = {
        "name": ["plan", "llava-v1.6-vicuna-7b", "--device", "orin-nx-16gb", "--visual-tokens", "100%,576"],
        "files": ["plan", "config.json", "--device", "device.json", "--target", "jp6", "--precision", "fp16,int4"],
        "json": ["plan", "config.json", "--device", "device.json", "--json", "--batch", "4", "--images", "2"],
        "inspect": ["inspect", "."],
        "inspect-json": ["inspect", ".", "--json"],
    }
    files = {CONFIG: config, DEVICE: device, BUNDLE: manifest}
    return {name: parts.joined({WORDS: "\n".join(words).encode(), **files}) for name, words in lines.items()}


def opened(folder: Path) -> Feed:
    """`hired_edge.cli.main` without the commands that were not chosen: naming them all takes 20 ms."""
    os.chdir(folder)
    commands = {"plan": plan, "inspect": inspect}
    parsers = {name: Parser(prog=f"hired-edge {name}", allow_abbrev=False) for name in commands}
    for name, parser in parsers.items():
        commands[name].add_arguments(parser)

    def feed(data: bytes) -> None:
        files = parts.written(data, folder, (CONFIG, DEVICE, BUNDLE))
        words = files.get(WORDS, b"").decode("utf-8", "surrogateescape").split("\n")
        name = words[0] if words[0] in commands else "plan"
        words = [word for word in words[1:] if "\0" not in word]  # which no system passes on
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                args, unknown = parsers[name].parse_known_args(words)
            except SystemExit as ended:  # --help
                if ended.code != 0:
                    raise
                return
            if unknown:
                parsers[name].error(f"unrecognized arguments: {' '.join(unknown)}")
            commands[name].run(args)

    return feed


SURFACE = Surface(
    "arguments, config.json and a device file of `plan` and `inspect`",
    opened,
    seeds,
    parts.of({WORDS: arguments.mutated, CONFIG: json_text.of(), DEVICE: json_text.of(), BUNDLE: json_text.of()}),
)
