"""hired-edge build: TensorRT engines from a bundle's graphs, for the machine that runs them."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from hired_edge import strict
from hired_edge.budget import parse_budget
from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine
from hired_edge.engine_record import RECORD_NAME, EngineFile
from hired_edge.errors import BundleError, InputError
from hired_edge.limits import resolve_opening
from hired_edge.manifest import Graph, Manifest
from hired_runtime.commands import options
from hired_runtime.commands.sign import print_signed
from hired_runtime.trt import engines_folder
from hired_runtime.trust.hash_cache import cached_hashes
from hired_runtime.trust.keys import load_private_key
from hired_runtime.trust.signatures import trusted
from hired_runtime.user_cache import cache_folder

help = "build TensorRT engines from a bundle's graphs"

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument(
        "--visual-tokens", metavar="B|P%[,...]", help="budgets to build language engines for (default: all exported)"
    )
    parser.add_argument("--max-batch", type=int, metavar="N", help="rows at once (default: as exported)")
    parser.add_argument("--sm", type=int, metavar="SM", help="of the GPU that will run them (default: the one here)")
    parser.add_argument("--workspace", metavar="SIZE", help="scratch memory of a kernel, such as 2GiB (default: all)")
    parser.add_argument(
        "--timing-cache", metavar="FILE", help="measured kernels, reused and kept (default: in the user's cache folder)"
    )
    parser.add_argument("--force", action="store_true", help="replace engines that are there")
    parser.add_argument("--clean", action="store_true", help="remove every engine from the bundle, and build none")
    parser.add_argument("--sign-key", metavar="KEY", help="sign the engines with this Ed25519 private key (a board's)")
    parser.add_argument("--json", action="store_true", help="print engine.json as one line at the end")


def run(args: argparse.Namespace) -> None:
    keys = options.public_keys(args)
    sign_key = None if args.sign_key is None else load_private_key(args.sign_key)
    with cached_hashes() as hash_file:
        bundle = Bundle.open(
            args.bundle,
            on_bytes=options.verification_bar(args.bundle, keys),
            hash_file=hash_file,
            check=trusted(keys),
            engines=False,
        )
    from hired_runtime.trt import build_bundle, device, module, progress  # cheap: TensorRT comes with module.load

    if args.clean:
        with engines_folder.locked(bundle.root):
            print(f"removed {build_bundle.remove_engines(bundle) / 1e6:.1f} MB of engines from {bundle.root}")
        return
    manifest = bundle.manifest
    graphs = chosen_graphs(manifest, args.visual_tokens)
    batch = resolve_opening(
        manifest.limits, manifest.vision.tiling, batch=options.positive("--max-batch", args.max_batch)
    ).batch
    workspace = None if args.workspace is None else parse_size(args.workspace)
    library, gpu = module.load(), device.find_device()
    sm = module.choose_sm(library, args.sm, gpu)
    machine = Machine(library.name, library.version, sm)
    cache = cache_folder()
    timing_cache = Path(args.timing_cache) if args.timing_cache else cache / f"{machine.folder}.timing"
    log_file = cache / f"{machine.folder}.log"
    for path in (timing_cache, log_file):
        if path.resolve().is_relative_to(bundle.root.resolve()):
            raise InputError(f"{path} lies in the bundle", expected="a file outside it", fix="choose another place")
    told = build_bundle.BuildOptions(sm, gpu, workspace, timing_cache if library.timing_cache else None, log_file)
    plan = build_bundle.Plan(machine, graphs, batch, args.force)
    print(f"for      {machine}{f' ({gpu.name})' if gpu and gpu.sm == sm else ', which is not here'}")
    started = time.perf_counter()

    def on_built(engine: EngineFile) -> None:
        nonlocal started
        now = time.perf_counter()
        print(f"engine   {engine.file} {engine.bytes / 1e6:.1f} MB in {now - started:.1f} s", flush=True)
        started = now

    with engines_folder.locked(bundle.root):
        record = build_bundle.build_bundle(bundle, library, plan, told, progress.line, on_built)
        print(f"golden   {_outcome(record.check)}")
        print(f"engines  {plan.folder(bundle)}")
        if sign_key is not None and (record.check is None or record.check.result == "passed"):
            print_signed(plan.folder(bundle) / RECORD_NAME, strict.dumps(record).encode(), sign_key)
    print(f"log      {log_file}")
    if args.timing_cache and not library.timing_cache:
        print(f"note     {library.name} has no timing cache: {args.timing_cache} is neither read nor written")
    if args.json:
        options.print_json(strict.to_json(record))
    if record.check is not None and record.check.result == "failed":
        raise BundleError(
            f"the engines give wrong answers: {record.check.reason}",
            expected="the bundle's golden outputs; these engines will be refused",
            fix="build with another version of TensorRT, or export with another --precision",
        )


def chosen_graphs(manifest: Manifest, budgets: str | None) -> tuple[Graph, ...]:
    """The vision graph, and the language graphs that openings with these budgets take.

    Raises:
        InputError: the bundle is not for TensorRT, or a budget is none.
        LimitError: a budget over the exported one.
    """
    if any(graph.max_sequence_length is None for graph in manifest.language_graphs):
        raise InputError(
            f"a bundle that was exported with --target {manifest.target}",
            expected="graphs for TensorRT",
            fix="export it again with --target jp7, jp6 or cuda",
        )
    if budgets is None:
        return manifest.graphs
    limits, rules = manifest.limits, manifest.vision.tiling
    wanted = {
        manifest.language_graph(resolve_opening(limits, rules, visual=parse_budget(budget)))
        for budget in options.listed(budgets)
    }
    return (manifest.vision_graph, *(graph for graph in manifest.language_graphs if graph in wanted))


def parse_size(text: str) -> int:
    """ "2GiB", "512MiB" or bytes.

    Raises:
        InputError: anything else, or nothing at all.
    """
    match = re.fullmatch(r"([0-9]{1,15})(KiB|MiB|GiB|)", text)
    if match is None or int(match[1]) == 0:
        raise InputError(f"--workspace {text!r}", expected="a size", fix="write it as 2GiB or 512MiB")
    return int(match[1]) * _UNITS[match[2]]


def _outcome(check: object) -> str:
    from hired_edge.engine_record import GoldenCheck

    if not isinstance(check, GoldenCheck):
        return "not replayed: the GPU that the engines are for is not here"
    worst = ", ".join(
        f"{name} {error:.1e} of {check.tolerances[name]:.1e}" for name, error in check.largest_errors.items()
    )
    return f"{check.result}: {check.reason or worst}"
