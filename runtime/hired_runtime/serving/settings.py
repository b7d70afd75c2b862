"""What a server was told when it was started, in one place. Nothing here changes while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hired_runtime.serving.media import MediaLimits

MIB = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """How requests are taken.

    Args:
        model_name: what clients call the model.
        created: when the bundle was exported, seconds since 1970.
        policy: how visual tokens are chosen where a request does not say.
        api_key: what clients must show; None only on a loopback address.
        media: what a picture may be.
        max_body_bytes: of a request.
        max_header_bytes: names and values of a request's headers together.
        header_timeout_s: from the first byte of a request (or from connecting) to the end of its headers.
        body_timeout_s: for the body.
        write_timeout_s: for a client that does not read what it asked for.
        max_connections: at a time.
    """

    model_name: str
    created: int = 0
    policy: str = "hired"
    api_key: str | None = field(default=None, repr=False)
    media: MediaLimits = field(default_factory=MediaLimits)
    max_body_bytes: int = 20 * MIB
    max_header_bytes: int = 16 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_connections: int = 256
