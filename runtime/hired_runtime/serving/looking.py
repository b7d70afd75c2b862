"""The page's own routes: what it may ask for, a picture's attention maps, and which tokens a budget keeps of it.

A selection is numpy on maps that are kept here: it waits for no answer in progress, and takes milliseconds. Only the
tower's run, and the features that some policies look at, take a turn of the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hired_edge.budget import Budget
from hired_edge.limits import check_request
from hired_edge.packing import NEWLINES
from hired_edge.policies import POLICIES
from hired_edge.selection import Selection
from hired_edge.tiling import Tiling
from hired_runtime.backend import Floats
from hired_runtime.panels import Panels, panels
from hired_runtime.pictures import KnownPicture, read_picture
from hired_runtime.pipeline import Pipeline
from hired_runtime.request import Request as Question
from hired_runtime.serving import fields
from hired_runtime.serving.api_errors import ApiError
from hired_runtime.serving.chat_request import FIELDS
from hired_runtime.serving.disconnect import ClientGoneError, while_connected
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.json_body import read_json
from hired_runtime.serving.looked_pictures import Looked, LookedPictures, choose, features_and_keys, look
from hired_runtime.serving.media import checked_picture
from hired_runtime.serving.page_files import page_routes, read_files, samples
from hired_runtime.serving.policy_words import summary
from hired_runtime.serving.reading import Readers
from hired_runtime.serving.settings import ServerSettings

T = TypeVar("T")

_WAITING = 8
"""Selections that may wait: a page asks for the next one when it has the last."""

# Read as in a question, with the picture's name in place of the picture.
_FIELDS = {
    "picture": fields.text,
    **{name: FIELDS[name] for name in ("visual_tokens", "policy", "alpha", "newlines")},
}


def routes(engine: Engine, settings: ServerSettings, readers: Readers) -> list[BaseRoute]:
    """`/`, `/page/...`, `/api/settings`, `/api/pictures` and `/api/selections`."""
    files = read_files()
    looking = _Looking(engine, settings, readers, samples(files))
    return [
        *page_routes(files),
        Route("/api/settings", looking.settings),
        Route("/api/pictures", looking.picture, methods=["POST"]),
        Route("/api/selections", looking.selection, methods=["POST"]),
    ]


class _Looking:
    def __init__(
        self, engine: Engine, settings: ServerSettings, readers: Readers, samples: list[dict[str, Any]]
    ) -> None:
        self._engine, self._settings, self._readers, self._samples = engine, settings, readers, samples
        self._pictures = LookedPictures()
        # One at a time: looking is to fill neither the processors nor, by features of 50 MB, the memory.
        self._selecting = anyio.Lock()

    async def settings(self, request: Request) -> Response:
        """What the server was opened with, and what the page may offer."""
        model, media = self._engine.model, self._settings.media
        manifest, limits = model.pipeline.manifest, model.limits
        vision = manifest.vision
        offered = [each for each in POLICIES.values() if vision.keys is not None or "keys" not in each.needs]
        return JSONResponse(
            {
                "model": self._settings.model_name,
                "family": manifest.family,
                "engine": model.pipeline.backend.name,
                "cache_bytes": model.cache_bytes,
                "limits": {
                    "visual_tokens": limits.visual_tokens,
                    "text_tokens": limits.text_tokens,
                    "new_tokens": limits.new_tokens,
                    "images": limits.images,
                    "batch": limits.batch,
                    "picture_bytes": media.max_picture_bytes,
                    "pixels": media.max_pixels,
                    "body_bytes": self._settings.max_body_bytes,
                },
                "layers": {"allocation": vision.allocation_layer, "selection": vision.selection_layer},
                "policy": self._settings.policy,
                "policies": [
                    {"name": each.name, "summary": summary(each.name), "stock": each.stock} for each in offered
                ],
                "tiles": limits.tiles,
                "newlines": list(NEWLINES) if vision.tiling.geometry.newlines else ["none"],
                "samples": self._samples,
            }
        )

    async def picture(self, request: Request) -> Response:
        """A picture file -> its name here, where its patches lie, and how much attention each of them gets."""
        body = await request.body()
        looked = await while_connected(request.receive, self._look(body))
        manifest, limit = self._engine.model.pipeline.manifest, self._engine.model.limits.visual_tokens
        plan = panels(looked.tiling, manifest.vision.preprocess)
        return JSONResponse(
            {
                "picture": looked.name,
                "pixels": [looked.tiling.width, looked.tiling.height],
                "patches": looked.tiling.patches,
                "eligible": looked.tiling.eligible.sum(axis=1).tolist(),
                "percents": _percents(looked.tiling, limit),
                **_panels(plan),
                "maps": {"allocation": _short(looked.allocation), "selection": _short(looked.selection)},
            }
        )

    async def selection(self, request: Request) -> Response:
        """{"picture", "visual_tokens", "policy", "alpha", "newlines"} -> which of its patches would be kept."""
        started = time.perf_counter()
        body = await request.body()
        return JSONResponse(await while_connected(request.receive, self._selected(body, started)))

    async def _look(self, body: bytes) -> Looked:
        picture = await self._readers(self._picture, body)
        looked = self._pictures.get(picture.digest.hex())
        if looked is None:
            looked = await self._call(lambda pipeline: look(pipeline, picture))
            self._pictures.add(looked)
        return looked

    def _picture(self, body: bytes) -> KnownPicture:
        return read_picture(checked_picture(body, self._settings.media, "picture").data)

    async def _selected(self, body: bytes, started: float) -> dict[str, Any]:
        asked = await self._readers(self._read, body)
        looked = self._pictures.get(asked.pop("picture", ""))
        if looked is None:
            raise ApiError(404, "no such picture; send it again to api/pictures", param="picture", code="no_picture")
        wanted = Question((), (), **{"policy": self._settings.policy, **asked})
        budget = wanted.budget
        if budget is None:
            raise ApiError(400, 'no visual_tokens; expected "20%" or a number of tokens', param="visual_tokens")
        visual = budget.tokens([looked.tiling])
        check_request(self._engine.model.limits, visual=visual, text=0, new=0)
        chosen = await self._select(looked, wanted, budget)
        return {
            "indices": [indices.tolist() for indices in chosen.indices],
            "counts": chosen.counts,
            "newlines": chosen.newlines,
            "budget": chosen.budget,
            "visual_tokens": chosen.visual_tokens,
            "milliseconds": round(1e3 * (time.perf_counter() - started), 2),
        }

    def _read(self, body: bytes) -> dict[str, Any]:
        values = read_json(body)
        for key in values:
            if key not in _FIELDS:
                fields.unknown(key, key, _FIELDS)
        return {key: _FIELDS[key](value, key) for key, value in values.items() if value is not None}

    async def _select(self, looked: Looked, wanted: Question, budget: Budget) -> Selection:
        policy, fetched = POLICIES[wanted.policy], None
        if (waiting := self._selecting.statistics().tasks_waiting) >= _WAITING:
            message = f"{waiting} selections waiting; expected fewer; try again later"
            raise ApiError(503, message, type="server_error", code="busy", retry_after_s=1)
        async with self._selecting:
            if policy.needs or policy.merge is not None:
                fetched = await self._call(lambda pipeline: features_and_keys(pipeline, looked.picture))
            return await run_in_threadpool(choose, looked, wanted, budget, fetched)

    async def _call(self, work: Callable[[Pipeline], T]) -> T:
        """On the engine's thread, if the client is still there when its turn comes."""
        gone = False

        def wanted(pipeline: Pipeline) -> T:
            if gone:
                raise ClientGoneError
            return work(pipeline)

        try:
            return await self._engine.call(wanted)
        finally:
            gone = True


def _percents(tiling: Tiling, limit: int) -> list[tuple[int, int]]:
    """(percent, visual positions) of the whole percentages that a picture may be asked about with: `limit` or less."""
    tokens = ((percent, Budget(percent=Fraction(percent)).tokens([tiling])) for percent in range(1, 101))
    return [each for each in tokens if each[1] <= limit]


def _panels(plan: Panels) -> dict[str, Any]:
    """Edges are shares of a panel's axis, boxes its px, the frame the picture's px: see `hired_runtime.panels`."""
    return {
        "size": [plan.width, plan.height],
        "frame": plan.frame,
        "padding": plan.padding,
        "panels": [
            {
                "name": layout.name,
                "rows": layout.rows.edges().tolist(),
                "columns": layout.columns.edges().tolist(),
                "index": layout.index.tolist(),
                "parts": [part._asdict() for part in layout.parts],
            }
            for layout in plan.layouts
        ],
    }


def _short(attention: Floats) -> list[list[float]]:
    """Four digits are enough for a colour."""
    return [[float(f"{value:.4g}") for value in tile] for tile in attention.tolist()]
