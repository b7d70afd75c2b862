"""A command's arguments, one a line: words are left out, doubled, and take others' values."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_WORDS = (
    *("--device", "--target", "--precision", "--visual-tokens", "--json", "--help", "--nonsense", "--", "-", "-h"),
    *("cpu", "jp6", "int4", "fp16", "orin-nx-16gb", "agx-orin-64gb", "20%", "100%", "0", "-1", "1e9%", "99999999999"),
    *(
        "20%,40%",
        ",",
        "",
        " ",
        "100%,,5%",
        "device.json",
        "config.json",
        "llava-1.5-7b",
        "/",
        ".",
        "x" * 5000,
        "\ud800",
    ),
    *("0.0000000000000000001%", "100.0000000000000000001%", "{}", "\0", "é", "1,2,3,4,5,6,7,8,9", "--visual-tokens=5"),
)


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    words = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(words))
        match random.randrange(5):
            case 0 if len(words) > 1:
                del words[at]
            case 1:
                words.insert(at, random.choice(_WORDS))
            case 2:
                words.insert(random.randrange(len(words) + 1), words[at])
            case _:
                words[at] = random.choice(_WORDS) if random.random() < 0.8 else words[at][: random.randrange(9)]
    return "\n".join(words).encode("utf-8", "surrogatepass")
