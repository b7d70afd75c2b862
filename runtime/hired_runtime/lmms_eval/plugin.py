"""What lmms-eval loads: the manifest that names the model `hired_edge`, and the model's class.

The class has to derive from lmms-eval's own, which imports torch; and every module of the device's wing has to import
where neither is installed (tests/device/test_boundary.py). So the class is made when lmms-eval asks this module for it
by name (PEP 562), which is the first moment at which both are sure to be there.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from typing import Any

from hired_edge.errors import InputError
from hired_runtime.lmms_eval.adapter import Adapter, Query
from hired_runtime.lmms_eval.answer_options import answer_options

MODEL = "hired_edge"
_CLASS = "HiredEdge"


def manifest() -> Any:
    """An `lmms_eval.models.registry_v2.ModelManifest`: what the entry point gives."""
    registry = importlib.import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=MODEL, simple_class_path=f"{__name__}.{_CLASS}")


def __getattr__(name: str) -> Any:
    if name == _CLASS:
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _model_class() -> type:
    base = importlib.import_module("lmms_eval.api.model").lmms
    logger = importlib.import_module("loguru").logger  # lmms-eval's

    class HiredEdge(base):
        """`--model hired_edge --model_args bundle=FOLDER,visual_tokens=20%,...`: see `Adapter` for the arguments.

        lmms-eval adds its own --batch_size (rows at once), --device and --max_batch_size.
        """

        def __init__(
            self,
            bundle: object = None,
            batch_size: object = 1,
            max_batch_size: object = None,
            device: object = None,
            **options: Any,
        ) -> None:
            super().__init__()
            _check_command(device, max_batch_size)
            self._adapter = Adapter(bundle, batch=batch_size, say=logger.warning, **options)

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            queries = [self._query(*request.args) for request in requests]
            tqdm = importlib.import_module("tqdm").tqdm
            with tqdm(total=len(queries), desc="Model Responding") as bar:
                return self._adapter.answers(queries, on_answers=bar.update)

        def _query(
            self, context: str, kwargs: dict[str, Any], doc_to_visual: Any, doc_id: int, task: str, split: str
        ) -> Query:
            def pictures() -> Sequence[Any]:
                return doc_to_visual(self.task_dict[task][split][doc_id]) or ()

            return Query(f"{task}/{split}/{doc_id}", context, pictures, answer_options(kwargs))

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise _unsupported("log-likelihoods", requests)

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise _unsupported("several rounds", requests)

        def generate_visual_cot(self, requests: Sequence[Any]) -> list[str]:
            raise _unsupported("pictures as answers", requests)

        def clean(self) -> None:
            """Called by lmms-eval behind the last answer."""
            self._adapter.close()
            super().clean()

    HiredEdge.__module__, HiredEdge.__qualname__ = __name__, _CLASS
    return HiredEdge


def _check_command(device: object, max_batch_size: object) -> None:
    """Raises InputError for what lmms-eval's command offers and a bundle cannot do."""
    if device is not None:
        raise InputError(
            f"--device {device}", expected="no --device", fix="leave it out, or pass backend= in --model_args"
        )
    if max_batch_size is not None:
        raise InputError(f"--max_batch_size {max_batch_size}", expected="--batch_size N alone", fix="leave it out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"{os.environ['WORLD_SIZE']} processes",
            expected="one",
            fix="start lmms-eval without accelerate or torchrun",
        )


def _unsupported(what: str, requests: Sequence[Any]) -> InputError:
    tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
    return InputError(
        f"{tasks}: a task that asks for {what}",
        expected="tasks with output_type generate_until",
        fix="choose other --tasks",
    )
