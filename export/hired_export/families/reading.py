"""config.json -> `ModelSpec`: the family, the decoder's and the tower's shapes, the geometry, as data.

`transformers` reads the config (of version 4 and 5, with its defaults); what is not supported is refused here, before
anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig
from transformers.utils import logging

from hired_edge.errors import CheckpointError
from hired_edge.planner.families import expected
from hired_edge.planner.families.family import MOST
from hired_edge.planner.original import hub_layout, is_original
from hired_edge.planner.text_models import TEXT_MODELS
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint
from hired_export.decoder import DecoderShape
from hired_export.families.family import AttentionChoice, Family, require
from hired_export.families.registry import FAMILIES
from hired_export.families.text import decoder_shape
from hired_export.vision import VisionShape
from hired_export.vision_tower import tower_config


@dataclass(frozen=True)
class ModelSpec:
    """Everything that an export needs to know about a checkpoint's architecture."""

    family: str
    facts: Family
    config: Any
    decoder: DecoderShape
    vision: VisionShape
    tiling: TilingRules
    text_type: str
    tied: bool
    vision_layers: int


def read_spec(checkpoint: Checkpoint, attention: AttentionChoice) -> ModelSpec:
    """Reads config.json.

    Raises:
        CheckpointError: a family, text model, tower or option that is not supported.
        InputError: a layer or head that the tower does not have.
    """
    given = checkpoint.config
    original = is_original(given)
    if original:
        given = dict(hub_layout(given, tower_config(checkpoint)))
    family = str(given.get("model_type"))
    require(family in FAMILIES, f"model_type {family!r}", expected(family))
    for section in (given, given.get("text_config"), given.get("vision_config")):
        _check_counts(section)
    config = _as_transformers_reads(checkpoint, family, given if original else None)
    text, tower, facts = config.text_config, config.vision_config, FAMILIES[family]
    require(text.model_type in TEXT_MODELS, f"text model {text.model_type!r}", " or ".join(TEXT_MODELS))
    require(tower.model_type == facts.tower, f"vision tower {tower.model_type!r}", facts.tower)
    return ModelSpec(
        family=family,
        facts=facts,
        config=config,
        decoder=decoder_shape(text),
        vision=facts.vision(config, attention),
        tiling=facts.tiling(config, checkpoint),
        text_type=text.model_type,
        tied=bool(config.tie_word_embeddings or text.tie_word_embeddings),
        vision_layers=tower.num_hidden_layers,
    )


def _check_counts(section: Any) -> None:
    """What transformers' config classes make a list of, however long, is refused before they do."""
    for name in ("num_hidden_layers", "num_labels") if isinstance(section, Mapping) else ():
        value, most = section.get(name), MOST["num_hidden_layers"]
        require(type(value) is not int or value <= most, f"{name} {str(value)[:40]}", f"at most {most}")


def _as_transformers_reads(checkpoint: Checkpoint, family: str, translated: dict[str, Any] | None) -> Any:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it warns of is refused, in one line
    try:
        if translated is not None:
            return CONFIG_MAPPING[family].from_dict(translated)
        return AutoConfig.from_pretrained(checkpoint.root, local_files_only=True)
    except Exception as error:  # transformers raises whatever a malformed config leads to
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{checkpoint.root / 'config.json'} cannot be read by transformers ({reason})",
            expected=f"a config.json of {' or '.join(FAMILIES)}",
            fix="download the checkpoint again",
        ) from None
    finally:
        logging.set_verbosity(verbosity)
