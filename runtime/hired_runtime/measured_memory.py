"""What a bundle really takes on this machine: high-water marks of processes of their own, to hold a plan against.

One process runs almost empty graphs, a tokenizer, a template and a picture of a few bytes: what Python and the
libraries take by themselves. Another opens a bundle and answers a request whose picture has as many tiles as the bundle
allows. Linux's VmHWM counts what was resident, mapped files included, but no page of the cache that the request did not
reach. It knows ONNX Runtime on a CPU alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hired_edge import child
from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import read_manifest
from hired_edge.errors import BundleError, HiredEdgeError
from hired_edge.planner.footprint import Footprint, Request, footprint
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import stored_in
from hired_edge.tiling import TilingRules
from hired_runtime.board import onnx_graph
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

PROMPT = "What is shown in this picture?"
NEW_TOKENS = 2


@dataclass(frozen=True)
class Job:
    """What to do in the other process; `visual_tokens` None = the largest budget exported."""

    bundle: str
    visual_tokens: str | None = None
    public_keys: tuple[PublicKey, ...] | None = None
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """Bytes, and the request that they are of."""

    weights: int
    """Both graphs' files."""
    cache: int
    """As allocated."""
    peak: int
    """The process's high-water mark."""
    visual_budget: int
    """Visual tokens that the bundle was opened for."""
    visual_tokens: int
    """Of the request, as are the next two."""
    text_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Comparison:
    """What the planner says of a bundle, and what it takes here. Bytes."""

    planned_weights_and_cache: int
    """By the model's sizes alone; the cache at the opening's limits."""
    planned_peak: int
    """By the request that was measured, from `idle` on."""
    idle: int
    measured: Measured

    @property
    def weights_and_cache(self) -> int:
        return self.measured.weights + self.measured.cache


def compare(model: ModelShape, job: Job, idle: int) -> Comparison:
    """Measures a bundle and plans the same.

    Args:
        model: the sizes, from the checkpoint's config.json.
        idle: what `idle_bytes` gave.

    Raises:
        BundleError, LimitError, InputError: the bundle cannot be opened, or not with that budget.
    """
    manifest = read_manifest(Path(job.bundle), trusted(job.public_keys))
    exported = manifest.limits
    weights = stored_in(model, manifest)
    got = measure(job)

    def planned(text_tokens: int, new_tokens: int, visual_tokens: int) -> Footprint:
        limits = Request(text_tokens, new_tokens).limits(model, Budget(visual_tokens))
        return footprint(model, manifest.target, weights, limits, idle)

    opened = planned(exported.text_tokens, exported.new_tokens, got.visual_budget)
    asked = planned(got.text_tokens, got.new_tokens, got.visual_tokens)
    return Comparison(opened.weights_and_cache, asked.peak, idle, got)


def idle_bytes() -> int:
    """The high-water mark of a process in which every library has done something, and no model is open."""
    return child.call(_idle, None, died=_died)


def measure(job: Job) -> Measured:
    """Opens the bundle, asks once, and tells what was seen.

    Raises:
        BundleError, LimitError, InputError: the bundle cannot be opened, or not with that budget.
    """
    return child.call(_answer, job, died=_died)


def largest_picture(rules: TilingRules) -> Image.Image:
    """Noise of the size that is cut into the most tiles, none of them padding."""
    canvases = rules.pinpoints or ((rules.image_size, rules.image_size),)
    height, width = max(canvases, key=lambda canvas: canvas[0] * canvas[1])
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def _died(status: int) -> HiredEdgeError:
    return BundleError(
        f"the measuring process ended with status {status}",
        expected="memory for the bundle and one request",
        fix="measure a smaller --visual-tokens, or on a machine with more memory",
    )


def _idle(_: None) -> int:
    import onnxruntime
    from tokenizers import Tokenizer, models

    from hired_runtime.chat_template import ChatTemplate
    from hired_runtime.model import Model  # with all that it imports
    from hired_runtime.profiling.memory import process_high_water_bytes
    from hired_runtime.prompt import IMAGE_TOKEN, question

    assert Model
    for _graph in ("vision", "language"):
        session = onnxruntime.InferenceSession(onnx_graph.matmul(), providers=["CPUExecutionProvider"])
        session.run(None, {"a": np.ones((2, 3), np.float32), "b": np.ones((3, 2), np.float32)})
    template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    messages = [{**message, "content": list(message["content"])} for message in question(PROMPT)]
    text = ChatTemplate(template, {}, IMAGE_TOKEN).render(messages, add_generation_prompt=True)
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(sorted(set(text)))}, []))
    tokenizer.decode(tokenizer.encode(text).ids)
    np.asarray(largest_picture(TilingRules("single", 56, 14)).resize((28, 28), Image.Resampling.BICUBIC))
    return process_high_water_bytes()


def _answer(job: Job) -> Measured:
    from hired_runtime import request
    from hired_runtime.model import open as open_bundle
    from hired_runtime.ort import OrtLanguage
    from hired_runtime.profiling.fixed_request import ask
    from hired_runtime.profiling.memory import process_high_water_bytes
    from hired_runtime.prompt import question

    model = open_bundle(
        job.bundle,
        visual_tokens=job.visual_tokens,
        images=1,
        threads=job.threads,
        backend="onnxruntime",
        public_keys=job.public_keys,
    )
    manifest, limits = model.pipeline.manifest, model.limits
    language = model.pipeline.backend.language
    assert isinstance(language, OrtLanguage)
    budget = Budget(limits.visual_tokens) if job.visual_tokens is None else parse_budget(job.visual_tokens)
    new_tokens = min(NEW_TOKENS, limits.new_tokens)
    asked = request.Request(question(PROMPT), [largest_picture(manifest.vision.tiling)])
    done = ask(model.pipeline, asked, budget, batch=1, new_tokens=new_tokens)
    graphs = (manifest.vision_graph, manifest.language_graph(limits))
    files = {name for graph in graphs for name in (graph.file, *graph.data)}
    return Measured(
        weights=sum(manifest.files[name].bytes for name in files),
        cache=language.cache.nbytes,
        peak=process_high_water_bytes(),
        visual_budget=limits.visual_tokens,
        visual_tokens=sum(selection.visual_tokens for selection in done.selections),
        text_tokens=done.text_tokens,
        new_tokens=new_tokens,
    )
