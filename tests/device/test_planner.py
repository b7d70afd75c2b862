"""The planner's arithmetic, against published parameter counts and figures worked out here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.budget import parse_budget
from hired_edge.errors import InputError, LimitError
from hired_edge.plan import kv_cache_bytes
from hired_edge.planner.config import model_shape, read_config
from hired_edge.planner.devices import DEVICES
from hired_edge.planner.footprint import Request, footprint, largest_budget, text_model, vision_workspace
from hired_edge.planner.plan import plan
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.roofline import Work, roofline, tile_flops
from hired_edge.planner.shapes import ModelShape, Tensors
from hired_edge.planner.storage import stored

MIB = 2**20
NX = DEVICES["orin-nx-16gb"]
VICUNA = model_shape(read_config("llava-v1.6-vicuna-7b"))
MISTRAL = model_shape(read_config("llava-v1.6-mistral-7b"))


def elements(tensors: Tensors) -> int:
    return sum(math.prod(shape) for shape in tensors.values())


@pytest.mark.parametrize(
    ("name", "vocabulary", "parameters"),
    [
        # Parameter counts of Llama 2 7B, 13B and Mistral 7B, whose vocabularies are 32000.
        ("sharegpt4v-7b", 32000, 6_738_415_616),
        ("llava-1.5-7b", 32064, 6_738_415_616),
        ("llava-1.5-13b", 32064, 13_015_864_320),
        ("llava-v1.6-mistral-7b", 32064, 7_241_732_096),
    ],
)
def test_the_text_models_have_their_published_number_of_parameters(name: str, vocabulary: int, parameters: int) -> None:
    model = model_shape(read_config(name))
    assert model.text.vocab_size == vocabulary
    whole = replace(model, newline=False, text=replace(model.text, vocab_size=32000))
    assert elements(whole.language_tensors) + elements(whole.embedding_tensors) == parameters


@pytest.mark.parametrize(
    ("name", "vocabulary", "parameters"),
    [
        # Parameter counts of Yi 34B, Llama 3 8B, Qwen 1.5 72B and 110B.
        ("llava-v1.6-34b", 64000, 34_388_917_248),
        ("llama3-llava-next-8b", 128256, 8_030_261_248),
        ("llava-next-72b", 152064, 72_287_920_128),
        ("llava-next-110b", 152064, 111_209_914_368),
    ],
)
def test_larger_text_models_have_their_number_of_parameters(name: str, vocabulary: int, parameters: int) -> None:
    model = model_shape(read_config(name))
    whole = replace(model, newline=False, text=replace(model.text, vocab_size=vocabulary))
    assert elements(whole.language_tensors) + elements(whole.embedding_tensors) == parameters


def test_the_tower_has_its_published_number_of_parameters() -> None:
    """CLIP ViT-L/14-336's vision model has 303,507,456, its last layer and last norm included."""
    tower = replace(VICUNA.tower, feature_layer=VICUNA.tower.layers - 1)
    tensors = replace(VICUNA, tower=tower).vision_tensors
    vision = {name: shape for name, shape in tensors.items() if name.startswith("vision.")}
    assert elements(vision) + 2 * 1024 == 303_507_456


def test_weights_of_a_7b() -> None:
    """As the reference figures have it: float16 13.5 GB with its table, int4 about 3.9 GB with the table, CLIP 0.6."""
    assert stored(VICUNA, "jp7", "fp16").language == pytest.approx(13.2e9, rel=0.01)
    four = stored(VICUNA, "jp7", "int4")
    assert four.language + four.embedding == pytest.approx(3.9e9, rel=0.05)
    assert four.vision == pytest.approx(0.62e9, rel=0.02)


def test_a_quantised_matrix() -> None:
    model = replace(VICUNA, text=replace(VICUNA.text, layers=1))
    rest = stored(model, "jp7", "int8").language - stored(model, "jp7", "int8").matrices
    head, layer = 32064 * 4096, VICUNA.text.layer_elements
    assert stored(model, "jp7", "int4").matrices == layer // 2 + 2 * layer // 128 + head + 2 * 32064
    assert stored(model, "jp7", "int4", 64).matrices == layer // 2 + 2 * layer // 64 + head + 2 * 32064
    assert stored(model, "cpu", "int4", 64).matrices == layer // 2 + 4 * layer // 64 + head + 4 * head // 128
    assert stored(model, "jp7", "fp16").language == 2 * (layer + head) + rest


@pytest.mark.parametrize(("precision", "block"), [("fp32", None), ("int4", 32)])
def test_what_a_target_does_not_have(precision: str, block: int | None) -> None:
    with pytest.raises(InputError, match="with --target jp7"):
        stored(VICUNA, "jp7", precision, block)  # type: ignore[arg-type]


def test_a_footprint_adds_up() -> None:
    limits = Request(256, 128, batch=2).limits(VICUNA, parse_budget("20%"))
    weights = stored(VICUNA, "jp7", "int4")
    taken = footprint(VICUNA, "jp7", weights, limits, 7 * MIB)
    assert taken.kv_cache == 2 * 960 * MIB // 2
    assert taken.weights_and_cache == weights.weights + taken.kv_cache
    workspace = taken.vision_workspace + taken.language_workspace
    assert taken.peak == 7 * MIB + taken.weights_and_cache + taken.buffers + workspace
    row = 576 + 256
    assert taken.language_workspace == 2 * row * (2 * (5 * 11008 + 3 * 4096) + 4 * 4096)
    assert taken.vision_workspace == vision_workspace(VICUNA, "jp7", 5) == 5 * 2 * 577 * (5 * 4096 + 4 * 1024)
    assert vision_workspace(VICUNA, "cpu", 5) == vision_workspace(VICUNA, "cpu", 1) == int(1.2 * 4 * 577 * 24576)


def test_attention_that_is_not_fused_writes_its_scores() -> None:
    limits = Request(256, 128).limits(VICUNA, parse_budget("100%"))
    fused, split = (footprint(VICUNA, target, stored(VICUNA, target, "int4"), limits, 0) for target in ("jp7", "jp6"))
    row = 2928 + 256
    pairs = row * (limits.max_sequence_length + row)
    assert split.language_workspace == 2 * 2 * 32 * pairs + 4 * pairs + 4 * row * 4096
    assert split.language_workspace > fused.language_workspace
    assert split.buffers == fused.buffers + row * MIB // 2  # the new keys and values of a whole prefill


def test_a_small_request_is_bounded_by_loading() -> None:
    tiny = replace(VICUNA, tower=replace(VICUNA.tower, intermediate_size=1, hidden_size=16), tiling=LLAVA_SMALL.tiling)
    limits = Request(1, 1).limits(tiny, parse_budget("0"))
    weights = stored(tiny, "cpu", "fp32")
    taken = footprint(tiny, "cpu", weights, limits, 0)
    assert taken.peak == weights.weights + weights.largest_matrix


LLAVA_SMALL = model_shape({"model_type": "llava", "vision_config": {"image_size": 28, "patch_size": 14}})


@settings(deadline=None, max_examples=60)
@given(
    available=st.integers(4 * 2**30, 12 * 2**30),
    text=st.integers(1, 512),
    new=st.integers(1, 256),
    batch=st.integers(1, 3),
    target=st.sampled_from(["jp7", "jp6"]),
    model=st.sampled_from([VICUNA, MISTRAL]),
)
def test_the_largest_budget_fits_and_one_more_does_not(
    available: int, text: int, new: int, batch: int, target: str, model: ModelShape
) -> None:
    request, weights = Request(text, new, batch), stored(model, target, "int4")  # type: ignore[arg-type]
    most = largest_budget(model, target, weights, request, available=available, process_bytes=MIB)  # type: ignore[arg-type]

    def fits(visual: int) -> bool:
        try:
            limits = request.limits(model, parse_budget(visual))
        except LimitError:
            return False
        return footprint(model, target, weights, limits, MIB).peak <= available  # type: ignore[arg-type]

    if most is None:
        assert not fits(0)
    else:
        assert fits(most)
        assert most == model.tiling.max_stock_tokens or not fits(most + 1)


def test_work_takes_the_longer_of_arithmetic_and_memory() -> None:
    device = replace(NX, bandwidth_gb_s=100.0, fp16_tflops=10.0)
    assert Work(flops=2e12, bytes=1e9).seconds(device) == 0.2
    assert Work(flops=2e12, bytes=1e9).bound(device) == "compute"
    assert Work(flops=2e11, bytes=4e9).seconds(device) == 0.04
    assert Work(flops=2e11, bytes=4e9).bound(device) == "memory"


def test_roofline_of_a_7b() -> None:
    limits = Request(256, 128).limits(MISTRAL, parse_budget("20%"))
    weights = stored(MISTRAL, "jp7", "int4")
    bounds = roofline(MISTRAL, "jp7", weights, limits)
    prompt, layers = 576 + 256, 32 * MISTRAL.text.layer_elements
    attention = 32 * sum(4 * 4096 * seen for seen in range(1, prompt + 1))
    assert bounds.prefill.flops == 2 * prompt * layers + 2 * 32064 * 4096 + attention
    assert bounds.decode.bytes == weights.matrices + (prompt + 64) * MIB // 8
    assert bounds.vision.flops == 5 * tile_flops(MISTRAL)
    # 577 tokens through 23 layers of 12 x 1024 x 1024 weights are nearly all of it.
    assert tile_flops(MISTRAL) == pytest.approx(23 * (2 * 577 * 12 * 1024**2 + 4 * 577**2 * 1024), rel=0.08)
    assert bounds.tokens_per_s(NX) == pytest.approx(102.4e9 / bounds.decode.bytes)
    assert 20 < bounds.tokens_per_s(NX) < 30


def test_a_window_bounds_what_attention_reads() -> None:
    windowed = replace(MISTRAL, text=replace(MISTRAL.text, sliding_window=100))
    limits = Request(256, 128).limits(MISTRAL, parse_budget("20%"))
    weights = stored(MISTRAL, "jp7", "int4")
    whole, part = (roofline(model, "jp7", weights, limits) for model in (MISTRAL, windowed))
    prompt = 576 + 256
    seen = sum(min(i, 100) for i in range(1, prompt + 1))
    assert whole.prefill.flops - part.prefill.flops == 32 * 4 * 4096 * (prompt * (prompt + 1) / 2 - seen)
    assert part.decode.bytes == weights.matrices + 100 * MIB // 8


def test_rows_share_the_weights_of_a_step() -> None:
    one, four = (
        roofline(
            VICUNA, "jp7", stored(VICUNA, "jp7", "int4"), Request(64, 64, batch).limits(VICUNA, parse_budget("5%"))
        )
        for batch in (1, 4)
    )
    assert 3 < four.tokens_per_s(NX) / one.tokens_per_s(NX) < 4
    assert four.vision.flops == 4 * one.vision.flops


@pytest.mark.parametrize(
    ("name", "sparse_int8_of_the_gpu"),
    [("orin-nx-16gb", 60), ("orin-nx-8gb", 50), ("orin-nano-8gb", 40), ("agx-orin-64gb", 170)],
)
def test_boards_have_their_published_throughput(name: str, sparse_int8_of_the_gpu: float) -> None:
    """NVIDIA's figures without the DLA's share (40, 20, 0 and 105 of 100, 70, 40 and 275)."""
    device = DEVICES[name]
    assert 2 * device.int8_tops == pytest.approx(sparse_int8_of_the_gpu, rel=0.03)
    assert 2 * device.fp16_tflops == pytest.approx(device.int8_tops, rel=0.01)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_published_model_can_be_planned(name: str) -> None:
    model = model_shape(read_config(name))
    made = plan(model, NX, "jp7", ["fp16", "int8", "int4"], [parse_budget("20%")], Request(256, 128))
    fp16, int8, int4 = (each.rows[0].fit for each in made.precisions)
    assert fp16.margin < int8.margin < int4.margin
    if name not in ("llava-phi-3-mini", "internvl3-1b", "internvl3-2b"):
        assert fp16.margin < 256 * MIB  # a 7B in float16 is not practical on 16 GB
    assert int4.fits == (elements(model.language_tensors) < 20e9)  # 34B and up are for larger boards
    row = made.precisions[2].rows[0]
    slots, text = row.limits.max_sequence_length, text_model(model, "jp7")
    assert int4.footprint.kv_cache == kv_cache_bytes(text, slots, 1)


def test_int4_on_8_gb_is_tight() -> None:
    made = plan(VICUNA, DEVICES["orin-nx-8gb"], "jp7", ["int4"], [parse_budget("100%")], Request(256, 128))
    assert not made.precisions[0].rows[0].fit.fits
    assert 0 < (made.precisions[0].largest or 0) < VICUNA.tiling.max_stock_tokens


def test_the_lm_head_of_a_jetpack_6_build() -> None:
    """The reference's figure: a float16 head of 32000 x 4096 is 250 MiB, and its tactics want half as much again."""
    made = plan(VICUNA, NX, "jp6", ["fp16", "int4"], [parse_budget("20%")], Request(256, 128))
    assert made.precisions[0].head_needs_contiguous == 3 * 32064 * 4096
    assert made.precisions[1].head_needs_contiguous is None
    modern = plan(VICUNA, NX, "jp7", ["fp16"], [parse_budget("20%")], Request(256, 128))
    assert modern.precisions[0].head_needs_contiguous is None


def test_a_budget_beyond_the_models_positions() -> None:
    with pytest.raises(LimitError, match="a maximum sequence length of 6272"):
        Request(256, 128, images=2).limits(VICUNA, parse_budget("100%"))
