"""Pictures that were seen before are not seen again: what the vision tower made of the latest ones.

A picture is known by its contents. Of each the attention maps are kept, which are small; features stay in the engine,
which has a slot for each picture of a request, the longest unused first to be overwritten. So another question about
a picture, another budget or another policy costs no run of the tower while its features are there, and what needs maps
alone costs none after that either. Knows nothing of text.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from hired_edge.finite import check_finite
from hired_edge.manifest import Manifest
from hired_edge.tiling import Tiling, tile
from hired_runtime.backend import AttentionMaps, Floats, Ints, VisionEngine
from hired_runtime.pictures import KnownPicture, PictureSource, load_picture, read_picture
from hired_runtime.preprocess import pixel_values
from hired_runtime.seen import Seen
from hired_runtime.timings import Timings

MOST_MAPS = 16
"""Pictures whose maps are kept: 46 KB each for LLaVA-NeXT's largest."""


class Key(NamedTuple):
    """What a run of the tower is known by: the picture's contents, and which of its partitions went in."""

    digest: bytes
    partitions: str


@dataclass
class _Entry:
    """`tiling`: of the partitions that are seen."""

    tiling: Tiling
    maps: AttentionMaps | None = None


class EncoderCache:
    """Args:
    manifest: the bundle's.
    slots: pictures whose features the engine holds.
    vision: gives the engine.
    """

    def __init__(self, manifest: Manifest, slots: int, vision: Callable[[], VisionEngine]) -> None:
        self._rules, self._slots, self._vision = manifest.vision, slots, vision
        self._most = MOST_MAPS if manifest.vision.keys is None else slots  # keys are as large as features
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._resident: OrderedDict[Key, int] = OrderedDict()  # key -> the engine's slot

    def clear(self) -> None:
        """Forgets every picture."""
        self._entries.clear()
        self._resident.clear()

    def see(
        self,
        sources: Sequence[PictureSource],
        partitions: str,
        check: Callable[[list[Tiling]], None],
        timings: Timings,
        *,
        reuse: bool,
    ) -> tuple[Seen, list[Key]]:
        """What the tower makes of pictures: from the cache where `reuse`, else anew, and everything older is forgotten.

        Args:
            sources: at most as many as there are slots.
            partitions: "all", or "base" for the base pictures alone.
            check: called with the tilings before the tower runs; what it raises ends this.
            timings: gains "preprocess" and "vision".

        Returns:
            the pictures, seen, and what each is known by.

        Raises:
            InputError: a picture that cannot be read.
            NumericalError: maps that are not finite; that picture is not kept.
            BundleError: the engine fails.
        """
        with timings.stage("preprocess"):
            if not reuse:
                self.clear()
            known = [read_picture(source) if reuse else source for source in sources]
            digests = [each.digest if isinstance(each, KnownPicture) and reuse else os.urandom(16) for each in known]
            keys = [Key(digest, partitions) for digest in digests]
            found: dict[Key, tuple[_Entry, Floats | None]] = {}
            for key, source in zip(keys, known, strict=True):
                if key not in found:
                    found[key] = self._entry(key, source)
            entries = [found[key] for key in keys]
            check([entry.tiling for entry, _ in entries])
        for key in keys:  # so that no picture of this request takes the slot of another
            if key in self._resident:
                self._resident.move_to_end(key)
        for key, (entry, pixels) in zip(keys, entries, strict=True):
            if entry.maps is None and pixels is not None:
                entry.maps = self._encode(key, pixels, timings)
            self._entries[key] = entry
            self._entries.move_to_end(key)
        while len(self._entries) > max(self._most, len(keys)):
            self._entries.popitem(last=False)
        gather = [partial(self._gather, *each) for each in zip(keys, known, strict=True)]
        maps = [entry.maps for entry, _ in entries if entry.maps is not None]
        return Seen([entry.tiling for entry, _ in entries], maps, gather), keys

    def _entry(self, key: Key, source: PictureSource) -> tuple[_Entry, Floats | None]:
        """A picture's entry, and its tiles (T, 3, h, w) if it is a new one: a fraction of the decoded picture, which is
        not kept while others are decoded."""
        entry = self._entries.get(key)
        return (entry, None) if entry is not None else self._tiles(key, source)

    def _tiles(self, key: Key, source: PictureSource) -> tuple[_Entry, Floats]:
        picture = load_picture(source)
        whole = tile(picture.height, picture.width, self._rules.tiling)
        seen = whole.base_picture if key.partitions == "base" else whole
        return _Entry(seen), pixel_values(picture, whole, self._rules.preprocess)[: seen.tiles]

    def _encode(self, key: Key, pixels: Floats, timings: Timings) -> AttentionMaps:
        """Runs the tower into a slot. Copies of the maps: the engine's own are overwritten by the next picture."""
        slot = self._resident.pop(key, None)
        if slot is None and len(self._resident) < self._slots:
            slot = min(set(range(self._slots)) - set(self._resident.values()))
        elif slot is None:
            _, slot = self._resident.popitem(last=False)
        with timings.stage("vision"):
            maps = self._vision().encode(pixels, slot)
        for name, attention in (("allocation", maps.allocation), ("selection", maps.selection)):
            check_finite(attention, f"{name} attention of the vision engine")
        self._resident[key] = slot  # not before: an engine that fails leaves nothing whole
        keys = None if maps.keys is None else np.array(maps.keys)
        return AttentionMaps(np.array(maps.allocation), np.array(maps.selection), keys)

    def _gather(self, key: Key, source: PictureSource, rows: Ints) -> Floats:
        """Rows of a picture's features; the tower runs again where they have been overwritten."""
        if key not in self._resident:
            self._encode(key, self._tiles(key, source)[1], Timings())
        self._resident.move_to_end(key)
        return self._vision().gather(rows, self._resident[key])
