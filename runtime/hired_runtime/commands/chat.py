"""hired-edge chat: a conversation about pictures, on a terminal."""

from __future__ import annotations

import argparse

import hired_runtime
from hired_edge.cli import EXIT_ERROR
from hired_runtime.chatting.conversation import Conversation, read
from hired_runtime.chatting.loop import converse
from hired_runtime.chatting.terminal import Terminal
from hired_runtime.commands import options
from hired_runtime.request import Request

help = "talk about pictures on a terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    parser.add_argument(
        "--no-history",
        action="store_true",
        help="every question by itself, about the same pictures (default: each goes on from those before it)",
    )
    options.add_request(parser)


def run(args: argparse.Namespace) -> int:
    asked = options.request_options(args)
    Request((), **asked)  # refuses what is none, before anything is opened
    pictures, keys = tuple(map(read, args.image)), options.public_keys(args)
    model = hired_runtime.open(
        args.bundle,
        visual_tokens=args.visual_tokens,
        threads=options.positive("--threads", args.threads),
        backend=args.backend,
        public_keys=keys,
        on_bytes=options.verification_bar(args.bundle, keys),
    )
    try:
        talk = Conversation(model, asked, pictures, remember=not args.no_history)
        with Terminal() as terminal:
            if terminal.interactive:
                terminal.say(f"Ask; /help says what else there is. A budget of {talk.budget}.")
            good = converse(talk, terminal)
    finally:
        model.close()
    return 0 if good or terminal.interactive else EXIT_ERROR
