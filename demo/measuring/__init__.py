"""`make accuracy`: every figure of docs/accuracy.md, README.md and demo/README.md, from pictures to pages.

`runs.py` says what is measured, `__main__.py` measures it and goes on where it was interrupted, `across.py` compares
bundles, `cost.py` measures times, `tables.py` and `plots.py` turn reports into tables and pictures.
"""
