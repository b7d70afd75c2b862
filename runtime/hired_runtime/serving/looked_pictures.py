"""The latest pictures that were looked at: little enough to be kept, and all that most selections need.

Knows nothing of HTTP. The engine's own cache of maps is its thread's; these are copies for everybody else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import numpy as np

from hired_edge.budget import Budget
from hired_edge.errors import NumericalError
from hired_edge.finite import check_finite
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling
from hired_runtime.backend import Floats
from hired_runtime.pictures import KnownPicture
from hired_runtime.pipeline import Pipeline
from hired_runtime.request import Request
from hired_runtime.seen import all_features
from hired_runtime.timings import Timings

MOST = 8
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Looked:
    """A picture that the vision tower has seen.

    Args:
        picture: its file's contents.
        tiling: the picture, cut into T tiles of N patches.
        allocation, selection: the attention maps, (T, N) float32.
    """

    picture: KnownPicture
    tiling: Tiling
    allocation: Floats
    selection: Floats

    @property
    def name(self) -> str:
        """By its contents: the same picture always has the same one."""
        return self.picture.digest.hex()

    @property
    def bytes(self) -> int:
        assert isinstance(self.picture.source, bytes)
        return len(self.picture.source) + self.allocation.nbytes + self.selection.nbytes


class LookedPictures:
    """At most `most` of them, of at most `most_bytes` together unless the latest alone is larger."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._pictures: OrderedDict[str, Looked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pictures)

    def get(self, name: str) -> Looked | None:
        looked = self._pictures.get(name)
        if looked is not None:
            self._pictures.move_to_end(name)
        return looked

    def add(self, looked: Looked) -> None:
        self._pictures[looked.name] = looked
        self._pictures.move_to_end(looked.name)
        while len(self) > self._most or (len(self) > 1 and self.bytes > self._most_bytes):
            self._pictures.popitem(last=False)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self._pictures.values())


def look(pipeline: Pipeline, picture: KnownPicture) -> Looked:
    """Cuts a picture and gets its attention maps. On the engine's thread.

    Raises:
        InputError: a picture that cannot be read.
        BundleError: the engine fails.
    """
    seen, _ = pipeline.encoder_cache.see([picture], "all", _anything, Timings(), reuse=True)
    (tiling,), (maps,) = seen.tilings, seen.maps
    return Looked(picture, tiling, np.array(maps.allocation), np.array(maps.selection))


def features_and_keys(pipeline: Pipeline, picture: KnownPicture) -> tuple[Floats, Floats | None]:
    """What some policies look at beside the maps, (T, N, D) and (T, N, W), copies. On the engine's thread.

    The tower runs again where the engine does not hold them any more.

    Raises:
        NumericalError: they are not finite. The next who asks has them computed anew.
    """
    seen, _ = pipeline.encoder_cache.see([picture], "all", _anything, Timings(), reuse=True)
    features, keys = all_features(seen.tilings[0], seen.gather[0]), seen.maps[0].keys
    try:
        check_finite(features, "features of the vision engine")
        if keys is not None:
            check_finite(keys, "keys of the vision engine")
    except NumericalError:
        pipeline.encoder_cache.clear()
        raise
    return features, None if keys is None else np.array(keys)


def choose(looked: Looked, wanted: Request, budget: Budget, fetched: tuple[Floats, Floats | None] | None) -> Selection:
    """What a picture's share of a question would be. On any thread.

    Args:
        wanted: policy, alpha and newlines.
        fetched: what `features_and_keys` gave, for a policy that looks at them.

    Raises:
        InputError, LimitError: as `hired_edge.selection.select`.
    """
    features, keys = (None, None) if fetched is None else fetched
    (selection,) = select(
        [looked.tiling],
        [looked.allocation],
        [looked.selection],
        budget,
        wanted.policy,
        wanted.alpha,
        wanted.newlines,
        features=None if features is None else [partial(np.asarray, features)],
        keys=[keys],
    )
    return selection


def _anything(tilings: list[Tiling]) -> None:
    """No budget is asked for here, and no tiling is larger than the bundle's."""
