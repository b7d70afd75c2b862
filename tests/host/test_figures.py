"""The tables of the pages are those of the committed reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.tables import PAGES, TABLES, filled


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_pages_figures_are_the_reports(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- figures: " in text
    assert filled(text) == text


def test_every_table_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"<!-- figures: {name} -->" in text for name in TABLES)
