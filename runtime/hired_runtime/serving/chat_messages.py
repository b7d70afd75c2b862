"""OpenAI's messages -> the prompt's messages and the pictures in them, in order.

Texts are data: nothing in them is looked for here, and a special token written by a client stays text (`prompt.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hired_edge.limits import Limits, check_request
from hired_runtime.serving import fields
from hired_runtime.serving.api_errors import ApiError, about
from hired_runtime.serving.media import MediaLimits, RequestPictures

#: As a client writes it -> as chat templates know it.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

# What OpenAI's own client puts into a message that it has received comes back with the history: null, or empty.
_MESSAGE: dict[str, fields.Reader[Any]] = {
    "role": fields.text,
    "content": lambda value, param: value,  # read below: it needs to know whose it is
    "name": fields.ignored,
    "refusal": fields.only(),
    "annotations": fields.only([]),
    "audio": fields.only(),
    "tool_calls": fields.only([]),
    "function_call": fields.only(),
}
_IMAGE: dict[str, fields.Reader[Any]] = {
    "url": fields.text,
    "detail": fields.only("auto", "high"),
}
_TEXT_PART: dict[str, fields.Reader[Any]] = {"type": fields.text, "text": fields.text}
_IMAGE_PART: dict[str, fields.Reader[Any]] = {
    "type": fields.text,
    "image_url": lambda value, param: fields.record(value, param, _IMAGE),
}


class Conversation:
    """Messages as they are read.

    Args:
        limits: what the model was opened with: what cannot fit is refused before it is decoded.
        most_characters: of all texts together.

    Attributes:
        messages: {"role", "content": parts}, as `PromptTemplate.render` takes them.
        pictures: the bytes of a picture file for each image part.

    Raises:
        ApiError: 400, about the field that is wrong.
    """

    def __init__(self, value: Any, media: MediaLimits, limits: Limits, most_characters: int) -> None:
        self._pictures, self._limits, self._most_characters = RequestPictures(media), limits, most_characters
        self._characters, self._parts = 0, 0
        self.messages: list[dict[str, Any]] = []
        if not isinstance(value, list) or not value:
            fields.refuse(value, "messages", "a list of at least one message", "invalid_type")
        if len(value) > limits.text_tokens:
            raise self._too_long(f"{len(value)} messages")
        for index, message in enumerate(value):
            self._message(message, f"messages[{index}]")

    @property
    def pictures(self) -> list[bytes]:
        return self._pictures.read

    def _message(self, value: Any, param: str) -> None:
        message = fields.record(value, param, _MESSAGE)
        role = ROLES.get(message.get("role", ""))
        if role is None:
            fields.refuse(message.get("role"), f"{param}.role", f"one of {', '.join(ROLES)}")
        content, param = message.get("content"), f"{param}.content"
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            fields.refuse(content, param, "a string or a list of at least one part", "invalid_type")
        parts = [self._part(part, f"{param}[{index}]", role) for index, part in enumerate(content)]
        self.messages.append({"role": role, "content": parts})

    def _part(self, value: Any, param: str, role: str) -> dict[str, str]:
        self._parts += 1
        if self._parts > self._limits.text_tokens + self._limits.images:
            raise self._too_long(f"more than {self._parts - 1} parts")
        kind = value.get("type") if isinstance(value, dict) else None
        read = _PARTS.get(kind) if isinstance(kind, str) else None
        if read is None:
            fields.refuse(kind, f"{param}.type", f"one of {', '.join(_PARTS)}")
        return read(self, value, param, role)

    def _text(self, value: dict[str, Any], param: str, role: str) -> dict[str, str]:
        text = fields.record(value, param, _TEXT_PART).get("text")
        if text is None:
            fields.refuse(None, f"{param}.text", "a string", "invalid_type")
        self._characters += len(text)
        if self._characters > self._most_characters:
            raise self._too_long(f"more than {self._most_characters} characters")
        return {"type": "text", "text": text}

    def _too_long(self, got: str) -> ApiError:
        """Of what cannot fit, and would take long to encode."""
        built = f"at most {self._limits.text_tokens} text tokens, which the bundle was opened with"
        message = f"messages of {got}; expected {built}; ask for less"
        return ApiError(400, message, param="messages", code="context_length_exceeded")

    def _image(self, value: dict[str, Any], param: str, role: str) -> dict[str, str]:
        if role != "user":
            raise ApiError(
                400,
                f"{param} is a picture in a message of the {role}; expected it in one of the user",
                param=param,
                code="invalid_value",
            )
        image = fields.record(value, param, _IMAGE_PART).get("image_url", {})
        if "url" not in image:
            fields.refuse(None, f"{param}.image_url.url", "a string", "invalid_type")
        with about("messages"):
            check_request(self._limits, visual=0, text=0, new=0, images=len(self.pictures) + 1)
        self._pictures.add(image["url"], f"{param}.image_url.url")
        return {"type": "image"}


_PARTS: dict[str, Callable[[Conversation, dict[str, Any], str, str], dict[str, str]]] = {
    "text": Conversation._text,
    "image_url": Conversation._image,
}
