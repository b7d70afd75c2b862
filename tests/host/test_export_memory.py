"""Exporting never holds the model: the exporter's peak above its idle size, on a checkpoint shaped like Llama 3.2 1B.

The parity check is left out (it runs in a process of its own and is bounded by one layer). VmHWM is of the process's
own address space; `ru_maxrss` would begin with the parent's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from hired_edge.tensorfile import TensorWriter
from tests.tiny.checkpoints import write_checkpoint

MIB = 2**20
WIDTH, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 2048, 8192, 32, 8, 32000
HEAD_DIM = WIDTH // HEADS

EXPORTER = """
import json, sys
from pathlib import Path
from hired_export import exporter
from hired_export.parity import CheckOutcome, Comparison

def high_water():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

passed = CheckOutcome((Comparison("nothing", 0.0, 1.0, 1.0),), ())
checkpoint, out, precision = sys.argv[1:]
options = exporter.ExportOptions(
    precision=precision, visual_tokens=("20%",), max_text_tokens=64, max_new_tokens=64, progress=False
)
idle = high_water()
exporter.export(Path(checkpoint), Path(out), options, check=lambda job: passed)
print(json.dumps({"idle": idle, "peak": high_water()}))
"""


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    keys = KV_HEADS * HEAD_DIM
    layer = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (keys, WIDTH),
        "self_attn.v_proj": (keys, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (INTERMEDIATE, WIDTH),
        "mlp.up_proj": (INTERMEDIATE, WIDTH),
        "mlp.down_proj": (WIDTH, INTERMEDIATE),
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
    }
    text = {f"layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in layer.items()}
    text |= {"embed_tokens.weight": (VOCABULARY, WIDTH), "norm.weight": (WIDTH,)}
    named = {f"language_model.model.{name}": shape for name, shape in text.items()}
    return named | {"language_model.lm_head.weight": (VOCABULARY, WIDTH)}


def write_large(folder: Path, layers: int) -> Path:
    """A tiny checkpoint whose text model is replaced by a large one, streamed to disk in a shard of its own."""
    write_checkpoint(folder, "llava_next", "llama", text_config={"num_hidden_layers": 1}, dtype="float16")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": WIDTH,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tower_width = config["vision_config"]["hidden_size"]
    large = shapes(layers) | {
        "multi_modal_projector.linear_1.weight": (WIDTH, tower_width),
        "multi_modal_projector.linear_1.bias": (WIDTH,),
        "multi_modal_projector.linear_2.weight": (WIDTH, WIDTH),
        "multi_modal_projector.linear_2.bias": (WIDTH,),
        "image_newline": (WIDTH,),
    }
    random = np.random.default_rng(0)
    noise = (0.02 * random.standard_normal(2**20)).astype(np.float16)
    with TensorWriter(folder / "large.safetensors", {name: ("F16", shape) for name, shape in large.items()}) as writer:
        for name, shape in large.items():
            for start in range(0, shape[0], 512):
                writer.write(name, np.resize(noise, (min(512, shape[0] - start), *shape[1:])))
    tower = {name: t for name, t in load_file(folder / "model.safetensors").items() if name.startswith("vision_tower.")}
    (folder / "model.safetensors").unlink()
    save_file(tower, folder / "tower.safetensors", metadata={"format": "pt"})
    index = dict.fromkeys(large, "large.safetensors") | dict.fromkeys(tower, "tower.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def peak_above_idle(checkpoint: Path, out: Path, precision: str) -> int:
    """Bytes, of an exporter in a process of its own, after its imports."""
    root = Path(__file__).parents[2]
    places = os.pathsep.join(str(root / folder) for folder in (".", "export", "runtime"))
    command = [sys.executable, "-c", EXPORTER, str(checkpoint), str(out), precision]
    environment = {**os.environ, "PYTHONPATH": places}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert finished.returncode == 0, finished.stderr[-2000:]
    figures = json.loads(finished.stdout.splitlines()[-1])
    return figures["peak"] - figures["idle"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_memory_is_bounded_whatever_the_number_of_layers(
    precision: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    largest = 4 * VOCABULARY * WIDTH  # the embedding table in float32
    peaks = {}
    for layers in (4, 16):
        checkpoint = write_large(tmp_path / f"{layers}", layers)
        out = tmp_path / f"{layers}-{precision}"
        peaks[layers] = peak_above_idle(checkpoint, out, precision)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        figures = f"{peaks[layers] / MIB:.0f} MiB above idle for a bundle of {size / MIB:.0f} MiB"
        record_property(f"{precision}, {layers} layers", figures)
        print(precision, layers, figures)
        shutil.rmtree(checkpoint)
        shutil.rmtree(out)
    assert peaks[16] < 1024 * MIB + largest
    assert peaks[16] - peaks[4] < 64 * MIB
