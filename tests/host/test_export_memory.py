"""Exporting never holds the model: peaks above the idle size, on checkpoints shaped like Llama 3.2 1B.

The exporter and its parity check run in processes of their own, as in use. VmHWM is of a process's own address space,
pages of mapped files included; `ru_maxrss` would begin with the parent's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.checkpoint import write_checkpoint as write_full_width
from hired_edge.tensorfile import TensorWriter
from hired_export import checkpoint, tensor, weights
from tests.tiny.checkpoints import write_checkpoint

MIB = 2**20
WIDTH, INTERMEDIATE, HEADS, KV_HEADS = 2048, 8192, 32, 8
HEAD_DIM = WIDTH // HEADS
VOCABULARY = 32000
LAYER = 4 * (2 * WIDTH * WIDTH + 2 * KV_HEADS * HEAD_DIM * WIDTH + 3 * INTERMEDIATE * WIDTH)
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16}

MEASURE = """
import json, sys
from pathlib import Path
from hired_edge.bundle import read_manifest
from hired_export import exporter, parity
from hired_export.families import AttentionChoice
from hired_export.targets import schemes

def high_water():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

what, checkpoint, bundle, target, precision = sys.argv[1:]
options = exporter.ExportOptions(
    target=target, precision=precision, visual_tokens=("20%",), max_text_tokens=64, max_new_tokens=64, progress=False
)
passed = parity.CheckOutcome((parity.Comparison("nothing", 0.0, 1.0, 1.0),), ())
idle = high_water()
if what == "export":
    exporter.export(Path(checkpoint), Path(bundle), options, check=lambda job: passed)
else:
    _, stored = schemes(target, precision, None)
    manifest = read_manifest(Path(bundle))
    graphs = manifest.vision_graph, manifest.language_graphs[0]
    job = parity.ParityJob(Path(checkpoint), Path(bundle), AttentionChoice(), stored, *graphs)
    parity.check(job).raise_if_failed()
print(json.dumps({"idle": idle, "peak": high_water()}))
"""

Record = Callable[[str, object], None]


def shapes(layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
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
    text |= {"embed_tokens.weight": (vocabulary, WIDTH), "norm.weight": (WIDTH,)}
    named = {f"language_model.model.{name}": shape for name, shape in text.items()}
    return named | {"language_model.lm_head.weight": (vocabulary, WIDTH)}


def write_large(folder: Path, layers: int, vocabulary: int = VOCABULARY, dtype: str = "F16", form: str = "st") -> Path:
    """A tiny checkpoint whose text model is replaced by a large one: one safetensors shard ("st") or several .bin."""
    write_checkpoint(folder, "llava_next", "llama", text_config={"num_hidden_layers": 1}, dtype="float16")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": WIDTH,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tower_width = config["vision_config"]["hidden_size"]
    large = shapes(layers, vocabulary) | {
        "multi_modal_projector.linear_1.weight": (WIDTH, tower_width),
        "multi_modal_projector.linear_1.bias": (WIDTH,),
        "multi_modal_projector.linear_2.weight": (WIDTH, WIDTH),
        "multi_modal_projector.linear_2.bias": (WIDTH,),
        "image_newline": (WIDTH,),
    }
    tower = {name: t for name, t in load_file(folder / "model.safetensors").items() if name.startswith("vision_tower.")}
    (folder / "model.safetensors").unlink()
    if form == "bin":
        index = write_pickled(folder, large, tower, dtype)
    else:
        with TensorWriter(folder / "large.safetensors", {name: (dtype, shape) for name, shape in large.items()}) as out:
            for name, shape in large.items():
                for rows in noise(name, shape, dtype):
                    out.write(name, rows)
        save_file(tower, folder / "tower.safetensors", metadata={"format": "pt"})
        index = dict.fromkeys(large, "large.safetensors") | dict.fromkeys(tower, "tower.safetensors")
    stem = "pytorch_model.bin" if form == "bin" else "model.safetensors"
    (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def write_pickled(
    folder: Path, large: dict[str, tuple[int, ...]], tower: dict[str, torch.Tensor], dtype: str
) -> dict[str, str]:
    """Shards of 20 tensors each, and the tower's; the index."""
    names = list(large)
    index = dict.fromkeys(tower, "tower.bin")
    torch.save(tower, folder / "tower.bin")
    for start in range(0, len(names), 20):
        some = names[start : start + 20]
        arrays = {name: np.concatenate(list(noise(name, large[name], dtype))) for name in some}
        bits = {name: torch.from_numpy(array.view(np.int16)) for name, array in arrays.items()}
        torch.save({name: tensor.view(TORCH[dtype]) for name, tensor in bits.items()}, folder / f"{start}.bin")
        index |= dict.fromkeys(some, f"{start}.bin")
    return index


def noise(name: str, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray]:
    """Normal, deviation 0.02, a chunk of rows at a time; BF16 as its bits.

    No two tensors are alike: ONNX Runtime holds equal ones once, which would hide what a session takes.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = torch.from_numpy(0.02 * random.standard_normal(2**20, np.float32))
    drawn = values.to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16 if dtype == "BF16" else np.float16)
    for start in range(0, shape[0], 512):
        yield np.resize(drawn, (min(512, shape[0] - start), *shape[1:]))


def memory(what: str, checkpoint: Path, bundle: Path, target: str, precision: str) -> dict[str, int]:
    """Bytes, "idle" after the imports and at the "peak", of an "export" or a "check" in a process of its own."""
    root = Path(__file__).parents[2]
    places = os.pathsep.join(str(root / folder) for folder in (".", "export", "runtime"))
    command = [sys.executable, "-c", MEASURE, what, str(checkpoint), str(bundle), target, precision]
    environment = {**os.environ, "PYTHONPATH": places}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


def peak_above_idle(what: str, checkpoint: Path, bundle: Path, target: str, precision: str) -> int:
    figures = memory(what, checkpoint, bundle, target, precision)
    return figures["peak"] - figures["idle"]


def export_peak(folder: Path, layers: int, target: str, precision: str, record: Record, **stored: str | int) -> int:
    source, bundle = write_large(folder / "checkpoint", layers, **stored), folder / "bundle"  # type: ignore[arg-type]
    peak = peak_above_idle("export", source, bundle, target, precision)
    size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    name, figures = (
        f"{target} {precision}, {stored}, {layers} layers",
        f"{peak / MIB:.0f} MiB above idle, bundle {size / MIB:.0f}",
    )
    record(name, figures)
    print(name, figures)
    shutil.rmtree(folder)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision", "vocabulary", "dtype", "form"),
    [
        ("cpu", "int4", VOCABULARY, "F16", "st"),
        ("cpu", "int8", VOCABULARY, "F16", "st"),
        ("cpu", "fp32", VOCABULARY, "F16", "st"),
        ("cpu", "fp32", 64000, "BF16", "st"),
        ("cpu", "fp32", VOCABULARY, "F16", "bin"),
        ("cpu", "int4", VOCABULARY, "BF16", "bin"),
        ("jp7", "int4", VOCABULARY, "F16", "st"),
        ("jp7", "fp16", VOCABULARY, "F16", "st"),
    ],
)
def test_memory_is_bounded_whatever_the_number_of_layers(
    target: str, precision: str, vocabulary: int, dtype: str, form: str, tmp_path: Path, record_property: Record
) -> None:
    few, many = (
        export_peak(
            *(tmp_path / f"{layers}", layers, target, precision, record_property),
            vocabulary=vocabulary,
            dtype=dtype,
            form=form,
        )
        for layers in (2, 6)
    )
    largest = 2 * vocabulary * WIDTH  # the LM head as it is stored
    assert many < largest + 512 * MIB
    assert many - few < 64 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "jp7"])
def test_one_layer_of_seven_billion_parameters(target: str, tmp_path: Path, record_property: Record) -> None:
    """What is held is a matrix, and more layers hold no more: all of it in 2 GiB, the libraries included."""
    source, bundle = tmp_path / "checkpoint", tmp_path / "bundle"
    write_full_width("llava-v1.6-mistral-7b", source, 1, 0, words=False)
    figures = memory("export", source, bundle, target, "int4")
    record_property(f"{target}, one layer of 7B", f"{figures['peak'] / MIB:.0f} MiB, idle {figures['idle'] / MIB:.0f}")
    print(target, figures)
    assert figures["peak"] < 2048 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "jp7"])
def test_the_parity_check_is_bounded(target: str, tmp_path: Path, record_property: Record) -> None:
    """By one piece in float32, and by the shipped weights, which the golden run loads whole."""
    source, bundle = write_large(tmp_path / "checkpoint", 16), tmp_path / "bundle"
    peaks = {what: peak_above_idle(what, source, bundle, target, "int4") for what in ("export", "check")}
    figures = ", ".join(f"{what} {peak / MIB:.0f} MiB" for what, peak in peaks.items())
    record_property(f"{target} int4, 16 layers", figures)
    print(target, figures)
    assert peaks["check"] < 4 * max(LAYER, 4 * VOCABULARY * WIDTH) + 1536 * MIB


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_chunks_and_slices_are_the_tensor(
    dtype: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((19, 11), np.float32))
    stored = {name: values.add(i).to(getattr(torch, dtype)) for i, name in enumerate(("lm_head.a", "lm_head.b"))}
    if form == "bin":
        torch.save(stored, tmp_path / "pytorch_model.bin")
    else:
        save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(tensor, "ROWS_PER_READ", 4)
    monkeypatch.setattr(weights, "SLICE_BYTES", 4 * 19 * 3)
    tensors = checkpoint.Checkpoint(tmp_path).tensors
    chunks = zip(*(tensors[name].chunks() for name in stored), strict=True)  # of both in turn, which closes each
    for expected, read in zip(stored.values(), zip(*chunks, strict=True), strict=True):
        assert [len(rows) for rows in read] == [4, 4, 4, 4, 3]
        np.testing.assert_array_equal(np.concatenate(read), expected.float().numpy())
    for name, expected in stored.items():
        slices = [part() for part in weights.transposed(tensors[name])]
        assert [len(rows) for rows in slices] == [3, 3, 3, 2]
        np.testing.assert_array_equal(np.concatenate(slices), expected.float().numpy().T)
