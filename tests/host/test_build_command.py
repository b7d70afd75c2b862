"""`hired-edge build` with NVIDIA's own parser and compiler: every target and precision, and no GPU (TensorRT-RTX)."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from demo.training import bundle as demo
from hired_edge import strict
from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine, check_engine_files, read_engines
from hired_edge.engine_record import EngineRecord
from hired_edge.errors import BundleError, InputError
from hired_edge.manifest import Precision, Target
from hired_export import parity
from hired_export.exporter import ExportOptions, export
from hired_export.operators import TENSORRT_10_3, TENSORRT_10_16, check_operators
from hired_runtime.commands.build import parse_size
from hired_runtime.trt import module
from tests.golden import make as golden
from tests.host.bundles import Bundles, marked
from tests.tiny import keys
from tests.tiny.commands import Capture, accepted, finish, refused, refused_in_the_end, start

RTX = module.load("tensorrt_rtx")
SM = ("--sm", 86)
MACHINE = Machine(RTX.name, RTX.version, 86)
TABLES = {"jp6": TENSORRT_10_3, "jp7": TENSORRT_10_16, "cuda": TENSORRT_10_16}
RECIPES = (
    *("jp7-fp16", "jp7-int8", "jp7-int4", "jp6-fp16", "jp6-int8", "jp6-int4"),
    *marked(("internvl-jp7-fp16", "internvl-jp7-int4", "internvl-jp6-fp16", "internvl-jp6-int4")),
    *marked(("phi3-jp7-int4", "phi3-jp6-int4")),
    pytest.param("jp6-window", marks=pytest.mark.slow),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs go here, not into the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/hired-edge"


@pytest.fixture
def bundle(bundles: Bundles, tmp_path: Path) -> Path:
    """A copy of a small bundle for JetPack 7."""
    return Path(shutil.copytree(bundles("jp7-int4").bundle, tmp_path / "bundle"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def built(bundle: Path) -> EngineRecord:
    """The record, everything in it checked as a backend does before it deserialises."""
    record = read_engines(bundle, Bundle.open(bundle).manifest.files, MACHINE)
    check_engine_files(bundle, MACHINE, record.engines)
    return record


def check_all_engines(bundle: Path) -> None:
    """One for each graph, profiles for every step within the limits, no operator that the target's list lacks."""
    manifest, record = Bundle.open(bundle).manifest, built(bundle)
    assert [engine.graph for engine in record.engines] == [graph.file for graph in manifest.graphs]
    assert record.check is None, "without a GPU nothing was replayed"
    for graph in manifest.graphs:
        check_operators(onnx.load(bundle / graph.file, load_external_data=False), TABLES[manifest.target])
        engine = record.engine(graph.file)
        assert engine is not None
        assert engine.max_sequence_length == graph.max_sequence_length
        assert all(profile.keys() == set(graph.inputs) for profile in engine.profiles)
    for engine in record.engines[1:]:
        *decode, prefill = engine.profiles
        assert len(decode) == (0 if manifest.quantisation.bits == 16 else 1), "two would store fp16 weights twice"
        assert all(profile["inputs_embeds"].max[:2] == (manifest.limits.batch, 1) for profile in decode)
        rows, tokens, _ = prefill["inputs_embeds"].max
        assert (rows, tokens) >= (manifest.limits.batch, 2)
        assert prefill["inputs_embeds"].min[:2] == (1, 1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_target_and_precision_builds(recipe: str, bundles: Bundles, tmp_path: Path, capsys: Capture) -> None:
    bundle = Path(shutil.copytree(bundles(recipe).bundle, tmp_path / "bundle"))
    before = (bundle / "manifest.json").read_bytes()
    printed = accepted(capsys, "build", bundle, *SM)
    assert f"for      {MACHINE}, which is not here\n" in printed
    check_all_engines(bundle)
    assert (bundle / "manifest.json").read_bytes() == before
    Bundle.open(bundle)


JP7 = pytest.param("jp7", "fp16", id="jp7-fp16")
JP6 = pytest.param("jp6", "int8", id="jp6-int8")


def slow(case: Any) -> Any:
    """The same case, in `make test-all` alone. `make test` exports and builds the golden model for one target."""
    return pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)


@pytest.mark.parametrize(("target", "precision"), [slow(JP7), slow(JP6)])
def test_the_golden_model_builds(target: Target, precision: Precision, tmp_path: Path, capsys: Capture) -> None:
    golden.write(tmp_path / "checkpoint")
    options = ExportOptions(target=target, precision=precision, progress=False, **golden.LIMITS)
    export(tmp_path / "checkpoint", tmp_path / "bundle", options, check=parity.check)
    accepted(capsys, "build", tmp_path / "bundle", *SM)
    check_all_engines(tmp_path / "bundle")


@pytest.mark.parametrize(("target", "precision"), [slow(JP7), slow(JP6)])
def test_the_demonstration_model_builds(target: Target, precision: Precision, tmp_path: Path, capsys: Capture) -> None:
    options = ExportOptions(target=target, precision=precision, progress=False, **demo.LIMITS)
    export(demo.CHECKPOINT, tmp_path / "bundle", options, check=parity.check)
    accepted(capsys, "build", tmp_path / "bundle", *SM)
    check_all_engines(tmp_path / "bundle")


@pytest.mark.slow
def test_one_layer_of_a_7b_model_builds(tmp_path: Path, capsys: Capture) -> None:
    """Its widths and heads, one layer, a small vocabulary; int4 in blocks of 128."""
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 1}
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
    config = {
        "model_type": "llava",
        "image_token_index": 1023,
        "vision_feature_layer": -2,
        "text_config": {**text, "model_type": "llama", "vocab_size": 1024, "max_position_embeddings": 4096},
        "vision_config": {**tower, "model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = tmp_path / "bundle"
    asked = ("--synthetic", "--target", "jp7", "--precision", "int4", "--visual-tokens", "100%")
    accepted(capsys, "export", tmp_path / "config.json", out, *asked)
    accepted(capsys, "build", out, *SM)
    check_all_engines(out)
    weights = 4096 * (4 * 4096 + 3 * 11008) // 2
    assert weights < built(out).engines[1].bytes < 1.3 * weights + 2**25


def test_budgets_and_rows_that_are_asked_for_are_built_and_no_others(bundle: Path, capsys: Capture) -> None:
    record = json.loads(
        accepted(capsys, "build", bundle, *SM, "--visual-tokens", "20%", "--max-batch", 1, "--json").splitlines()[-1]
    )
    assert record == strict.to_json(built(bundle))
    graphs = Bundle.open(bundle).manifest.language_graphs
    assert len(graphs) == 2
    vision, language = built(bundle).engines
    assert (vision.piece, language.max_sequence_length) == ("vision", graphs[0].max_sequence_length)
    assert {profile["write_indices"].max for profile in language.profiles} == {(1,)}


def test_engines_that_are_there_are_replaced_by_force_alone(bundle: Path, capsys: Capture) -> None:
    accepted(capsys, "build", bundle, *SM, "--visual-tokens", "20%")
    line = refused_in_the_end(capsys, "build", bundle, *SM)
    command = f"hired-edge build {bundle} --sm 86 --force"
    assert line.endswith(f"run: {command}")
    before = built(bundle)
    accepted(capsys, *command.split()[1:])
    assert len(built(bundle).engines) == 3
    assert len(before.engines) == 2
    assert left(bundle / "engines") == [MACHINE.folder]


def test_an_engines_folder_that_is_a_link_is_refused_and_cleaned(bundle: Path, capsys: Capture, tmp_path: Path) -> None:
    """Engines behind a link would be refused when they are loaded."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    (bundle / "engines").symlink_to(elsewhere)
    line = refused_in_the_end(capsys, "build", bundle, *SM)
    command = f"hired-edge build {bundle} --clean"
    assert line.endswith(f"run: {command}")
    accepted(capsys, *command.split()[1:])
    assert left(bundle) == left_without_engines(bundle)
    assert left(elsewhere) == ["mine"]
    (bundle / "engines").touch()
    accepted(capsys, *command.split()[1:])
    assert left(bundle) == left_without_engines(bundle)


@pytest.mark.parametrize("way", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["a file", "a broken link"])
def test_what_stands_where_engines_go_is_replaced_by_force_alone(
    way: Callable[[Path], None], bundle: Path, capsys: Capture
) -> None:
    (bundle / "engines").mkdir()
    way(bundle / "engines" / MACHINE.folder)
    assert "is there already" in refused_in_the_end(capsys, "build", bundle, *SM, "--visual-tokens", "20%")
    accepted(capsys, "build", bundle, *SM, "--visual-tokens", "20%", "--force")
    assert len(built(bundle).engines) == 2
    assert left(bundle / "engines") == [MACHINE.folder]


def test_a_failed_build_leaves_the_engines_that_were_there(bundle: Path, capsys: Capture, cache: Path) -> None:
    line = refused_in_the_end(capsys, "build", bundle, *SM, "--workspace", "1KiB")
    assert "more in" in line
    assert str(cache) in line
    assert left(bundle) == left_without_engines(bundle)
    accepted(capsys, "build", bundle, *SM)
    before = built(bundle)
    refused_in_the_end(capsys, "build", bundle, *SM, "--workspace", "1KiB", "--force")
    assert built(bundle) == before
    assert left(bundle / "engines") == [MACHINE.folder]


def test_what_was_just_built_is_signed_by_a_boards_own_key(bundle: Path, capsys: Capture, tmp_path: Path) -> None:
    (vendor, vendor_public), (board, public) = keys.pem(tmp_path, "vendor"), keys.openssh(tmp_path, "board")
    asked = ("build", bundle, *SM, "--visual-tokens", "20%", "--require-signature", vendor_public)
    assert "manifest.json.sig is missing" in refused(capsys, *asked, "--sign-key", board)
    accepted(capsys, "sign", bundle, "--key", vendor)
    board.chmod(0o644)
    assert "is open to others" in refused(capsys, *asked, "--sign-key", board)
    board.chmod(0o600)
    assert not (bundle / "engines").exists(), "refused before anything was built"
    folder = bundle / "engines" / MACHINE.folder
    (folder.parent / f".{folder.name}.12.partial").mkdir(parents=True)  # of a build that was killed
    printed = accepted(capsys, *asked, "--sign-key", board)
    assert f"signed    {folder}/engine.json.sig by board (SHA256:" in printed
    assert left(folder.parent) == [folder.name]
    verify = ("verify", bundle, "--files-only", "--public-key", vendor_public, "--public-key")
    assert f"signed  {folder.name}/engine.json: by board.pub (" in accepted(capsys, *verify, public)
    accepted(capsys, *asked, "--force")
    assert "engine.json.sig" not in left(folder)
    assert f"signed  {folder.name}/engine.json: no signature" in accepted(capsys, *verify, public)


def left_without_engines(bundle: Path) -> list[str]:
    return sorted({name.partition("/")[0] for name in Bundle.open(bundle).manifest.files} | {"manifest.json"})


def test_clean_removes_every_engine_and_the_bundle_is_as_exported(bundle: Path, capsys: Capture) -> None:
    before = left(bundle)
    assert "removed 0.0 MB" in accepted(capsys, "build", bundle, "--clean")
    accepted(capsys, "build", bundle, *SM, "--visual-tokens", "20%")
    (bundle / "engines/sm87-tensorrt10.3.0").mkdir()
    printed = accepted(capsys, "build", bundle, "--clean")
    assert float(printed.split()[1]) > 1
    assert left(bundle) == before
    Bundle.open(bundle)


def test_engines_of_a_bundle_that_was_exported_again_are_refused(bundle: Path, capsys: Capture) -> None:
    accepted(capsys, "build", bundle, *SM, "--visual-tokens", "20%")
    files = dict(Bundle.open(bundle).manifest.files)
    files["language/model.onnx.data"] = files["manifest.json" if "manifest.json" in files else "tokenizer.json"]
    with pytest.raises(BundleError, match=r"built from another language/model\.onnx\.data .* --force"):
        read_engines(bundle, files, MACHINE)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ((), "one of 75, 80, 86"),
        (("--sm", 87), "build on the board"),
        ((*SM, "--visual-tokens", "20%,,"), "values between commas"),
        ((*SM, "--visual-tokens", "99999"), "larger --visual-tokens"),
        ((*SM, "--max-batch", 3), "larger --max-batch"),
        ((*SM, "--max-batch", 0), "1 or more"),
        ((*SM, "--workspace", "2 GB"), "2GiB"),
        ((*SM, "--workspace", "0"), "a size"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    argv: tuple[object, ...], why: str, bundle: Path, capsys: Capture, cache: Path
) -> None:
    before = left(bundle)
    assert why in refused(capsys, "build", bundle, *argv)
    assert left(bundle) == before
    assert not cache.exists()


def test_a_bundle_for_another_engine_is_refused(capsys: Capture) -> None:
    line = refused(capsys, "build", golden.HERE / "bundle", *SM)
    assert "--target cpu" in line
    assert "jp7" in line


def test_a_cache_inside_the_bundle_is_refused(bundle: Path, capsys: Capture) -> None:
    assert "lies in the bundle" in refused(capsys, "build", bundle, *SM, "--timing-cache", bundle / "timing")


@pytest.mark.parametrize("text", ["1GiB", "1048576KiB", "1024MiB", str(2**30)])
def test_sizes(text: str) -> None:
    assert parse_size(text) == 2**30


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1.5GiB", "1gib", "1 GiB", "1e9", "9" * 16])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


def test_ctrl_c_ends_the_command_and_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    """A real process and a real SIGINT, once the second engine is under way."""
    before = left(bundle)
    process = start("build", bundle, *SM)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[1].startswith("engine   vision.engine"), lines
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    status, _, stderr = finish(process)
    assert (status, stderr) == (130, "hired-edge: interrupted\n")
    assert left(bundle) == before
