"""GET /v1/models: the one model that is served, and the limits that it was opened with."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hired_runtime.serving.api_errors import ApiError
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.settings import ServerSettings

_LIMITS = ("visual_tokens", "text_tokens", "new_tokens", "batch", "images")


class Models:
    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self._engine, self._settings = engine, settings

    async def all(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self._settings.model_name:
            raise unknown_model(name, self._settings.model_name)
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        limits = self._engine.model.limits
        return {
            "id": self._settings.model_name,
            "object": "model",
            "created": self._settings.created,
            "owned_by": "hired-edge",
            "hired_edge": {
                "limits": {name: getattr(limits, name) for name in _LIMITS},
                "budgets": list(limits.budgets),
                "policy": self._settings.policy,
                "cache_bytes": self._engine.model.cache_bytes,
            },
        }


def unknown_model(name: str, served: str) -> ApiError:
    message = f"the model {name[:100]!a} does not exist; expected {served!a}, the one that is served"
    return ApiError(404, message, param="model", code="model_not_found")
