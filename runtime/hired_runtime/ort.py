"""The ONNX Runtime backend: on the CPU for graphs of every target, on an NVIDIA GPU for those that keep to ONNX.

Every large buffer is bound to memory allocated at loading. The cache's past and present are bound to the same address,
so a step writes it in place and copies nothing; on a GPU it never leaves the device. On the CPU a picture goes a tile
at a time and a long prompt in chunks, a row at a time, so that what lives between two operators grows with neither.
What ONNX Runtime's Python interface cannot do is copy a part of a device's tensor: there a picture's features cross
whole (LLaVA-NeXT: 24 MB).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hired_edge.bundle import Bundle
from hired_edge.errors import BundleError
from hired_edge.limits import Limits
from hired_edge.manifest import Manifest
from hired_edge.plan import PREFILL_CHUNK, TILES_AT_ONCE
from hired_runtime.backend import AttentionMaps, Backend, Floats, Ints
from hired_runtime.cache import KVCache
from hired_runtime.ort_errors import reported
from hired_runtime.ort_provider import CPU, CUDA, choose_provider, session_providers
from hired_runtime.room import available_bytes, check_room, room_told

WINDOW_SINCE = (1, 24)
WARNINGS_OFF = 3  # ONNX Runtime's severity: errors only


def load(bundle: Bundle, limits: Limits, threads: int | None = None, spinning: bool = True) -> Backend:
    """Loads both graphs of a verified bundle.

    Raises:
        BundleError: this ONNX Runtime cannot load them.
        OutOfMemoryError: there is less memory than they take.
    """
    _check_window(bundle.manifest)
    provider = choose_provider(bundle.manifest)
    available = available_bytes()
    if provider == CPU:
        check_room(bundle.manifest, limits, available)
    with room_told(bundle.manifest, limits, available):
        return _load(bundle, limits, threads, provider, spinning)


def _load(bundle: Bundle, limits: Limits, threads: int | None, provider: str, spinning: bool) -> Backend:
    vision = OrtVision(bundle, limits, threads, provider, spinning)
    language = OrtLanguage(bundle, limits, threads, provider, spinning)
    name = f"onnxruntime {ort.__version__} {provider}"
    return Backend(vision, language, name, bundle.manifest.cache_length(limits), _nothing)


def _nothing() -> None:
    """Sessions and arrays end with whoever holds them."""


def _check_window(manifest: Manifest) -> None:
    """Refuses a sliding window where GroupQueryAttention counts it wrongly.

    The graph's `local_window_size` is transformers' sliding_window, the query itself included. Measured on one bundle:
    onnxruntime 1.24.1 to 1.31.1 agree with transformers, 1.23.2 sees more keys.
    """
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    if manifest.text.sliding_window is not None and version < WINDOW_SINCE:
        raise BundleError(
            f"a model with a sliding window of {manifest.text.sliding_window} on onnxruntime {ort.__version__}",
            expected=f"onnxruntime {'.'.join(map(str, WINDOW_SINCE))} or newer, which counts windows as the model does",
            fix="upgrade it, or export with limits so small that no sequence outgrows the window",
        )


def session_options(threads: int | None, spinning: bool = True) -> ort.SessionOptions:
    """Of both graphs. `threads`: None = ONNX Runtime's own choice, as many as there are cores."""
    options = ort.SessionOptions()
    options.log_severity_level = WARNINGS_OFF
    # Where int4 DequantizeLinear and MatMul are fused, activations stay as they are, as on a GPU.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # The cache and the large activations are ours; an arena would only hold on to the peak of a prefill.
    options.enable_cpu_mem_arena = False
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _session(path: Path, threads: int | None, provider: str, spinning: bool) -> ort.InferenceSession:
    with reported(
        f"load {path.name}",
        expected="a version that runs this bundle's opset (1.23.2 or newer for --target cpu)",
        fix="upgrade onnxruntime, or export again with this version's hired-edge",
    ):
        options = session_options(threads, spinning)
        return ort.InferenceSession(str(path), options, providers=session_providers(provider))


def _bind(binding: Any, direction: str, name: str, array: NDArray) -> None:
    """Binds `array`'s memory as an input or an output. The caller keeps the array alive until the run."""
    assert array.flags.c_contiguous, name
    bind = binding.bind_input if direction == "input" else binding.bind_output
    with reported():
        bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


class OrtVision:
    """The vision graph. Features of every picture of a request are kept until the next one overwrites them."""

    def __init__(
        self, bundle: Bundle, limits: Limits, threads: int | None, provider: str = CPU, spinning: bool = True
    ) -> None:
        manifest = bundle.manifest
        self._session = _session(bundle.path(manifest.vision_graph.file), threads, provider, spinning)
        patches, width = manifest.vision.tiling.patches_per_tile, manifest.text.hidden_size
        self._dtype = np.dtype(manifest.text.activation_dtype)
        self._features = np.zeros((limits.images, limits.tiles, patches, width), self._dtype)
        self._maps = np.zeros((2, limits.images, limits.tiles, patches), np.float32)
        keys = manifest.vision.keys
        self._keys = None if keys is None else np.zeros((limits.images, limits.tiles, patches, keys), np.float32)
        self.chunk = TILES_AT_ONCE if provider == CPU else limits.tiles
        """Tiles that one run takes at most."""

    def encode(self, pixel_values: Floats, slot: int = 0) -> AttentionMaps:
        tiles = len(pixel_values)
        pixel_values = np.ascontiguousarray(pixel_values, self._dtype)
        for first in range(0, tiles, self.chunk):
            stop = min(first + self.chunk, tiles)
            maps = self._maps[:, slot, first:stop]
            keys = None if self._keys is None else self._keys[slot, first:stop]
            self._run(pixel_values[first:stop], self._features[slot, first:stop], maps, keys)
        keys = None if self._keys is None else self._keys[slot, :tiles]
        allocation, selection = self._maps[:, slot, :tiles]
        return AttentionMaps(allocation, selection, keys)

    def _run(self, pixel_values: Floats, features: NDArray, maps: Floats, keys: Floats | None) -> None:
        """One run of the graph over some of a picture's tiles, into `features`, `maps` (2, T, N) and `keys`."""
        binding = self._session.io_binding()
        _bind(binding, "input", "pixel_values", pixel_values)
        _bind(binding, "output", "image_features", features)
        _bind(binding, "output", "allocation_attention", maps[0])
        _bind(binding, "output", "selection_attention", maps[1])
        if keys is not None:
            _bind(binding, "output", "selection_keys", keys)
        with reported():
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

    def gather(self, rows: Ints, slot: int = 0) -> Floats:
        flat = self._features[slot].reshape(-1, self._features.shape[-1])
        return flat[rows].astype(np.float32, copy=False)


class OrtLanguage:
    """The language graph and its cache."""

    def __init__(
        self, bundle: Bundle, limits: Limits, threads: int | None, provider: str = CPU, spinning: bool = True
    ) -> None:
        text, graph = bundle.manifest.text, bundle.manifest.language_graph(limits)
        self.use(_session(bundle.path(graph.file), threads, provider, spinning))
        self._inputs = set(graph.inputs)
        self._text = text
        slots = bundle.manifest.cache_length(limits)
        if provider == CUDA:
            from hired_runtime.ort_device_cache import DeviceCache

            self.cache: KVCache | DeviceCache = DeviceCache(text, limits.batch, slots)
        else:
            self.cache = KVCache(text, limits.batch, slots)
        self._logits = np.zeros((limits.batch, text.vocab_size), np.float32)
        self.chunk = PREFILL_CHUNK if provider == CPU else None
        """Positions of all rows together that one run takes at most; None for any number."""

    def use(self, session: ort.InferenceSession) -> None:
        """Runs are this session's from now on: of the same graph, with other options (a profile's)."""
        self.session, self._binding = session, session.io_binding()
        self._bound_rows = slice(0, 0)

    def step(
        self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None, first: int = 0
    ) -> Floats:
        batch, tokens, _ = inputs_embeds.shape
        self.cache.check_step(starts, tokens)
        assert first + batch <= len(self._logits), (first, batch)
        embeds = inputs_embeds.astype(self._text.activation_dtype, copy=False)
        if tokens == 1 or self.chunk is None or batch * tokens <= self.chunk:
            self._run(slice(first, first + batch), embeds, starts, last_token, positions)
        else:
            for row in range(batch):
                own = None if positions is None else positions[row]
                self._run_in_chunks(first + row, embeds[row, : last_token[row] + 1], starts[row], self.chunk, own)
        return self._logits[first : first + batch]

    def _run_in_chunks(self, row: int, embeds: NDArray, start: int, chunk: int, positions: Ints | None) -> None:
        """One row's tokens (S, D), without padding: GroupQueryAttention takes a past and more than one token of one
        row only. The logits are those of the last chunk."""
        count = -(-len(embeds) // chunk)
        bounds = [len(embeds) * i // count for i in range(count + 1)]
        for first, stop in pairwise(bounds):
            ends = np.array([stop - first - 1])
            own = None if positions is None else positions[None, first:stop]
            self._run(slice(row, row + 1), embeds[None, first:stop], np.array([start + first]), ends, own)

    def _run(self, rows: slice, embeds: NDArray, starts: Ints, last_token: Ints, positions: Ints | None) -> None:
        """One run of the graph over `rows` of the cache and the logits."""
        batch, tokens, _ = embeds.shape
        feeds = self.cache.step_inputs(embeds, starts, last_token, self._inputs, positions)
        feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        for name, array in feeds.items():
            _bind(self._binding, "input", name, array)
        if rows != self._bound_rows:
            self._bind_rows(rows)
        updates = self._bind_updates(batch, tokens) if self.cache.kind == "append" else []
        with reported():
            self._binding.synchronize_inputs()
            self.session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        for index, update in enumerate(updates):
            self.cache.append(index, update, starts, rows.start)

    def _bind_rows(self, rows: slice) -> None:
        """Binds these rows of the cache and of the logits; this holds for every run until they change."""
        _bind(self._binding, "output", "logits", self._logits[rows])
        places = self.cache.places(rows.stop - rows.start, rows.start)
        for past, present, place in zip(*self.cache.names, places, strict=True):
            with reported():
                self._binding.bind_input(past, *place)
                if self.cache.kind == "in_place":
                    self._binding.bind_output(present, *place)
        self._bound_rows = rows

    def _bind_updates(self, batch: int, tokens: int) -> list[NDArray]:
        """Outputs of an `append` graph: the new keys and values, to be written into the cache after the step."""
        shape = (batch, self._text.kv_heads, tokens, self._text.head_dim)
        updates = [np.empty(shape, self._text.cache_dtype) for _ in self.cache.names.present]
        for present, update in zip(self.cache.names.present, updates, strict=True):
            _bind(self._binding, "output", present, update)
        return updates

    def copy(self, source: int, target: int, tokens: int) -> bool:
        return self.cache.copy(source, target, tokens)

    def reset(self) -> None:
        self.cache.reset()

    def reset_row(self, row: int) -> bool:
        return self.cache.reset_row(row)
