"""What a checkpoint's config says, as data; and what differs from one model family to another, a file each."""

from hired_export.families.family import AttentionChoice, Family, ReferenceTower
from hired_export.families.reading import ModelSpec, read_spec
from hired_export.families.registry import FAMILIES
from hired_export.families.text import rotary_tables

__all__ = ["FAMILIES", "AttentionChoice", "Family", "ModelSpec", "ReferenceTower", "read_spec", "rotary_tables"]
