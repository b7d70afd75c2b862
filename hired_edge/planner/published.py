"""config.json of the models that the paper measures, of their larger relatives and of later families: sizes alone.

They are there to plan or to profile without a download. What a file leaves out is left out here as well: the defaults
are `config.py`'s. Each row names where its figures were looked up; the files themselves are on the Hub under the same
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One model.

    Args:
        source: where the figures come from.
        config: config.json, without what no size depends on.
    """

    source: str
    config: Mapping[str, Any]


_TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
_TOP = {
    "image_token_index": 32000,
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "vision_config": _TOWER,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
_NEXT = {
    **_TOP,
    "model_type": "llava_next",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "use_image_newline_parameter": True,
}
_VICUNA_7B = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064}
_VICUNA_13B = {
    **_VICUNA_7B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
}
_MISTRAL_7B = {
    "model_type": "mistral",
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "vocab_size": 32064,
}
_YI_34B = {
    "model_type": "llama",
    "eos_token_id": 7,
    "hidden_size": 7168,
    "intermediate_size": 20480,
    "max_position_embeddings": 4096,
    "num_attention_heads": 56,
    "num_hidden_layers": 60,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 5000000.0,
    "vocab_size": 64064,
}
_LLAMA_3_8B = {
    "model_type": "llama",
    "bos_token_id": 128000,
    "eos_token_id": 128009,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "vocab_size": 128320,
}
_QWEN_72B = {
    "model_type": "qwen2",
    "eos_token_id": 151645,
    "hidden_size": 8192,
    "intermediate_size": 24576,
    "max_position_embeddings": 32768,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 64,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
_QWEN_110B = {**_QWEN_72B, "intermediate_size": 49152, "num_key_value_heads": 8}
_PHI_3_MINI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "vocab_size": 32064,
}
_INTERN = {
    "model_type": "internvl",
    "downsample_ratio": 0.5,
    "image_seq_length": 256,
    "image_token_id": 151667,
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "vision_config": {
        "model_type": "internvl_vision",
        "attention_bias": True,
        "hidden_size": 1024,
        "image_size": [448, 448],
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-06,
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
        "use_qk_norm": False,
    },
}
_QWEN_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic"},
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "vocab_size": 151674,
}
_QWEN_15B = {
    **_QWEN_05B,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
}
_QWEN_7B = {
    **_QWEN_05B,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
}
_INTERN_SOURCE = "tower and vocabulary of OpenGVLab/InternVL3-1B-hf, config.json; text model of"
_CONVERSION = "transformers' convert_llava_next_weights_to_hf.py (vocabulary padded to a multiple of 64, as in 7b)"

PUBLISHED: dict[str, Published] = {
    "llava-1.5-7b": Published(
        "llava-hf/llava-1.5-7b-hf, config.json of revision 05ae2434cbb430be33edcba0c5203e7023f785b7",
        {**_TOP, "model_type": "llava", "text_config": _VICUNA_7B},
    ),
    "llava-1.5-13b": Published(
        "liuhaotian/llava-v1.5-13b, config.json; vocabulary of 32064 as in llava-hf/llava-1.5-7b-hf",
        {**_TOP, "model_type": "llava", "text_config": _VICUNA_13B},
    ),
    "llava-v1.6-vicuna-7b": Published(f"lmsys/vicuna-7b-v1.5 in {_CONVERSION}", {**_NEXT, "text_config": _VICUNA_7B}),
    "llava-v1.6-vicuna-13b": Published(
        f"lmsys/vicuna-13b-v1.5 in {_CONVERSION}", {**_NEXT, "text_config": _VICUNA_13B}
    ),
    "llava-v1.6-mistral-7b": Published(
        "llava-hf/llava-v1.6-mistral-7b-hf, config.json as TensorRT-LLM's tests quote it",
        {**_NEXT, "text_config": _MISTRAL_7B},
    ),
    "llava-v1.6-34b": Published(
        "NousResearch/Nous-Hermes-2-Yi-34B (01-ai/Yi-34B's sizes, as benchmarks of LLM runtimes list them); image token"
        " and vocabulary as in llava-hf/llava-v1.6-34b-hf",
        {**_NEXT, "image_token_index": 64000, "text_config": _YI_34B},
    ),
    "llama3-llava-next-8b": Published(
        "meta-llama/Meta-Llama-3-8B-Instruct; image token and vocabulary as in llava-hf/llama3-llava-next-8b-hf",
        {**_NEXT, "image_token_index": 128256, "text_config": _LLAMA_3_8B},
    ),
    "llava-next-72b": Published(
        "Qwen/Qwen1.5-72B-Chat (by its model card without grouped heads; 72.3 thousand million weights)",
        {**_NEXT, "image_token_index": 151646, "text_config": _QWEN_72B},
    ),
    "llava-next-110b": Published(
        "Qwen/Qwen1.5-110B-Chat (grouped heads; 111.2 thousand million weights)",
        {**_NEXT, "image_token_index": 151646, "text_config": _QWEN_110B},
    ),
    "sharegpt4v-7b": Published(
        "Lin-Chen/ShareGPT4V-7B: by its model card LLaVA-1.5-7B's config.json but for model_type and architectures;"
        " its tower's name as evaluations quote it",
        {
            "architectures": ["Share4VLlamaForCausalLM"],
            "model_type": "share4v",
            "hidden_act": "silu",
            "hidden_size": 4096,
            "image_aspect_ratio": "pad",
            "intermediate_size": 11008,
            "max_position_embeddings": 4096,
            "mm_hidden_size": 1024,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": -2,
            "mm_vision_tower": "Lin-Chen/ShareGPT4V-7B_Pretrained_vit-large336-l12",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "tie_word_embeddings": False,
            "vocab_size": 32000,
        },
    ),
    "llava-phi-3-mini": Published(
        "microsoft/Phi-3-mini-4k-instruct (transformers' Phi3Config); image token as in xtuner/llava-phi-3-mini-hf",
        {**_TOP, "model_type": "llava", "image_token_index": 32038, "text_config": _PHI_3_MINI},
    ),
    "internvl3-1b": Published(f"{_INTERN_SOURCE} Qwen/Qwen2.5-0.5B", {**_INTERN, "text_config": _QWEN_05B}),
    "internvl3-2b": Published(f"{_INTERN_SOURCE} Qwen/Qwen2.5-1.5B", {**_INTERN, "text_config": _QWEN_15B}),
    "internvl3-8b": Published(f"{_INTERN_SOURCE} Qwen/Qwen2.5-7B", {**_INTERN, "text_config": _QWEN_7B}),
}
