"""Good inputs, and every input that ever broke something: nothing but the project's own errors comes out, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.surface import Feed, Surface, corpus, fed, names, surface
from tests.fuzz.worker import LIMIT_S


@pytest.mark.parametrize("name", names())
def test_the_corpus_comes_to_nothing_worse_than_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen, files = surface(name), tmp_path / "files"
    files.mkdir()
    feed, seeds = chosen.opened(files), chosen.seeds()
    taken = [seed for seed, data in seeds.items() if fed(chosen, feed, data) is None]
    assert taken, f"no good input among {', '.join(seeds)}"
    for kept, data in corpus(name).items():
        assert any(_seconds(chosen, feed, data) < LIMIT_S for _ in range(3)), kept


def _seconds(chosen: Surface, feed: Feed, data: bytes) -> float:
    begin = time.process_time()
    fed(chosen, feed, data)
    return time.process_time() - begin


def test_every_folder_of_the_corpus_is_a_surfaces() -> None:
    assert {path.name for path in (Path(__file__).parent / "corpus").iterdir()} <= set(names())
