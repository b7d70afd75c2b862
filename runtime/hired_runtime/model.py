"""The Python API: `open` a bundle, `ask` it, or `stream` an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import Bundle
from hired_edge.hashing import file_record
from hired_edge.limits import Limits, resolve_opening
from hired_edge.plan import kv_cache_bytes
from hired_runtime import backends
from hired_runtime.pictures import PictureSource
from hired_runtime.pipeline import Answer, Generation, Pipeline, Request
from hired_runtime.prompt import question
from hired_runtime.sampling import SamplingOptions
from hired_runtime.session import Session
from hired_runtime.trust.hash_cache import cached_hashes
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted


def open(
    bundle: str | os.PathLike[str],
    *,
    visual_tokens: Budget | str | int | None = None,
    batch: int = 1,
    images: int | None = None,
    pictures: int | None = None,
    threads: int | None = None,
    spinning: bool = True,
    backend: str | None = None,
    public_keys: Sequence[PublicKey | str | os.PathLike[str]] | None = None,
    rehash: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Model:
    """Opens a bundle: verifies every file, loads the engines, allocates the cache.

    A file that was hashed before and has not changed since is not read again (`hired_runtime.trust.hash_cache`).

    Args:
        bundle: a folder that `hired-edge export` wrote.
        visual_tokens: the budget that the cache is sized by ("20%", 576); None = the largest one exported.
        batch: rows of the cache.
        images: pictures of a request, which a percentage is multiplied by; None = as many as exported.
        pictures: whose features stay in the engine for further questions; None = a request's. Each takes as much memory
            as its tiles have features: 47 MB for LLaVA-NeXT-7B in fp32.
        threads: of the engine, on the CPU; None = its own choice.
        spinning: whether they wait for each other by spinning: faster alone, slower where other threads need the cores.
        backend: "onnxruntime" or "tensorrt"; None = TensorRT where engines were built into the bundle and a GPU is
            present, else ONNX Runtime.
        public_keys: the bundle's manifest, and the record of engines that are used, must be signed by one of them
            (files, PEM or OpenSSH); None = no signature is asked for.
        rehash: read and hash every file, known or not.
        on_bytes: progress of the verification, in bytes.

    Raises:
        BundleError: corrupt, edited, not signed as asked, or not loadable here; engines that do not fit, with the
            command that rebuilds.
        InputError: a backend that is none, TensorRT without a GPU, or no public key in a file.
        LimitError: more than was exported.
        MissingExtraError: no engine is installed.
    """
    chosen = backends.choose(bundle, backend)  # before gigabytes are hashed
    check = trusted(public_keys)
    with nullcontext(file_record) if rehash else cached_hashes() as hash_file:
        verified = Bundle.open(bundle, on_bytes=on_bytes, hash_file=hash_file, check=check)
    manifest = verified.manifest
    asked = parse_budget(visual_tokens) if isinstance(visual_tokens, (str, int)) else visual_tokens
    rules = manifest.vision.tiling
    exported = [parse_budget(text) for text in manifest.limits.budgets]
    default = asked or max(exported, key=lambda budget: budget.max_tokens(rules, manifest.limits.images))
    limits = resolve_opening(manifest.limits, rules, visual=default, batch=batch, images=images)
    slots = max(limits.images, pictures or 0)
    engines = backends.load(chosen, verified, replace(limits, images=slots), threads, spinning)
    return Model(Pipeline(verified, limits, engines, default, slots))


class Model:
    """An opened bundle. One request at a time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def limits(self) -> Limits:
        """What it was opened with."""
        return self.pipeline.limits

    @property
    def cache_bytes(self) -> int:
        """Size of the key-value cache: fixed by the budget that the bundle was opened with."""
        return kv_cache_bytes(self.pipeline.manifest.text, self.pipeline.backend.slots, self.limits.batch)

    def close(self) -> None:
        """Gives back what the engines hold on a GPU; the model is of no use afterwards."""
        with self.pipeline.turns.lock:
            self.pipeline.backend.close()

    def ask(self, prompt: str, images: Sequence[PictureSource] = (), **options: Any) -> Answer:
        """Answers a question about pictures (paths, bytes or PIL images). `options` are those of `Request`."""
        return self.stream(prompt, images, **options).answer

    def stream(self, prompt: str, images: Sequence[PictureSource] = (), **options: Any) -> Generation:
        """As `ask`, but iterating over the result gives the text as it is made."""
        return self.pipeline.generate(Request(question(prompt, len(images)), images, **options))

    def chat(self, messages: Sequence[dict[str, Any]], images: Sequence[PictureSource] = (), **options: Any) -> Answer:
        """Answers a conversation: {"role", "content"} messages, a content being a string or text and image parts."""
        return self.pipeline.generate(Request(messages, images, **options)).answer

    def session(self, images: Sequence[PictureSource] = (), **options: Any) -> Session:
        """A conversation about pictures, whose follow-ups cost their own tokens alone.

        Args:
            images: shown with the first question.
            options: `system`, a system message, and those of `Request` for every question.
        """
        return Session(self.pipeline, images, **options)


__all__ = ["Model", "SamplingOptions", "open"]
