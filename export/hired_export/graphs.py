"""Torch modules of fake tensors -> standard ONNX graphs (opset 24) with named, weightless initialisers.

What comes out is an `onnx_ir.Model` whose weights are placeholders: `weights.py` streams the real ones to disk later.
Lowerings (one module each below `lowering/`) rewrite such a model for one target. Names are stable and part of the
bundle: inputs and outputs as in the design, `hidden_states.i` after layer i - 1, initialisers as in the checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.utils._pytree
from onnx_ir.passes import common
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from hired_edge import __version__
from hired_export.decoder import Decoder, DecoderShape
from hired_export.lowering.emit import constant
from hired_export.vision import VisionEncoder, VisionShape

OPSET = 24


def past_names(layers: int) -> list[str]:
    return [f"past_key_values.{i}.{part}" for i in range(layers) for part in ("key", "value")]


def present_names(layers: int) -> list[str]:
    return [f"present.{i}.{part}" for i in range(layers) for part in ("key", "value")]


def boundary_names(layers: int) -> list[str]:
    """Values between decoder layers: `hidden_states.i` is the output of layer i - 1 (the input has its own name)."""
    return [f"hidden_states.{i}" for i in range(1, layers + 1)]


def parameter_shapes(module: type[Decoder] | type[VisionEncoder], shape: Any) -> dict[str, tuple[int, ...]]:
    """Initialiser name -> shape, in the order in which weights are written."""
    with FakeTensorMode():
        return {name: tuple(parameter.shape) for name, parameter in module(shape).named_parameters()}


@contextlib.contextmanager
def activations(dtype: torch.dtype) -> Iterator[None]:
    """Weights, activations and the cache of what is traced inside are of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def language_graph(shape: DecoderShape, dtype: torch.dtype = torch.float32) -> ir.Model:
    """The decoder as one standard graph; B, S and M symbolic."""
    # Sizes of the example: no two alike, none 0 or 1, so that tracing cannot take one dimension for another.
    b, s, m = 2, 3, 64
    with FakeTensorMode(), activations(dtype):
        decoder = Decoder(shape)
        arguments = (
            torch.empty(b, s, shape.hidden_size),
            torch.empty(b, s, dtype=torch.int64),
            torch.empty(b, 1, s, m, dtype=torch.bool),
            torch.empty(b, dtype=torch.int64),
            torch.empty(b, dtype=torch.int64),
            [torch.empty(b, shape.kv_heads, m, shape.head_dim) for _ in range(2 * shape.layers)],
        )
    batch, sequence, cache = Dim("batch"), Dim("sequence"), Dim("max_sequence")
    dynamic = (
        {0: batch, 1: sequence},
        {0: batch, 1: sequence},
        {0: batch, 2: sequence, 3: cache},
        {0: batch},
        {0: batch},
        [{0: batch, 2: cache}] * (2 * shape.layers),
    )
    names = ["inputs_embeds", "position_ids", "attention_mask", "write_indices", "last_token"]
    model = _to_onnx(
        decoder,
        arguments,
        dynamic,
        inputs=names + past_names(shape.layers),
        outputs=["logits", *present_names(shape.layers), *boundary_names(shape.layers)],
    )
    # The boundaries were outputs only to be named: they are where a parity check cuts the graph.
    del model.graph.outputs[1 + 2 * shape.layers :]
    return model


def vision_outputs(shape: VisionShape) -> list[str]:
    names = ["image_features", "allocation_attention", "selection_attention"]
    return [*names, "selection_keys"] if shape.keys else names


def vision_graph(shape: VisionShape, dtype: torch.dtype = torch.float32) -> ir.Model:
    """Tower, CLS attention and projector as one standard graph; T symbolic."""
    with FakeTensorMode(), activations(dtype):
        encoder = shape.encoder(shape)
        pixels = torch.empty(2, 3, shape.image_size, shape.image_size)
    return _to_onnx(
        encoder,
        (pixels,),
        ({0: Dim("tiles")},),
        inputs=["pixel_values"],
        outputs=vision_outputs(shape),
    )


def _to_onnx(module: nn.Module, arguments: Any, dynamic: Any, *, inputs: list[str], outputs: list[str]) -> ir.Model:
    with _quiet_torch():
        exported = torch.export.export(module.eval(), arguments, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    model = program.model
    _drop_identities(model.graph)
    _share_constants(model.graph)
    _name_dimensions(model.graph, dynamic)
    _strip_metadata(model)
    common.RemoveUnusedNodesPass()(model)
    for name, _ in module.named_parameters():
        if name in model.graph.initializers:  # so that the graph can be stored, and checked, before there are weights
            _forget_contents(model.graph.initializers[name])
    missing = {*inputs, *outputs} - {v.name for v in (*model.graph.inputs, *model.graph.outputs)}
    assert not missing, f"torch renamed or dropped {sorted(missing)}"
    return model


def _forget_contents(value: ir.Value) -> None:
    assert value.dtype is not None
    assert value.shape is not None
    value.const_value = ir.ExternalTensor("", 0, 0, value.dtype, shape=value.shape, name=str(value.name))


@contextlib.contextmanager
def _quiet_torch():
    """The exporter reports to stdout, stderr and the log about things that are not the user's to mend."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _drop_identities(graph: ir.Graph) -> None:
    """Torch's clones come out as Identity nodes: each reader takes the source instead."""
    for node in [n for n in graph if n.op_type == "Identity"]:
        source, copy = node.inputs[0], node.outputs[0]
        assert source is not None
        if copy.is_graph_output():
            continue
        replace_uses(copy, source)
        graph.remove(node, safe=True)


def replace_uses(old: ir.Value, new: ir.Value) -> None:
    for user, index in tuple(old.uses()):
        user.replace_input_with(index, new)


def drop_unused_inputs(graph: ir.Graph) -> None:
    for value in list(graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)


def fix_dimension(model: ir.Model, name: str, size: int) -> None:
    """A symbolic dimension becomes a number wherever it stands alone: in inputs, outputs and intermediate values."""
    graph = model.graph
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        if value.shape is not None:
            value.shape = ir.Shape([size if str(d) == name else d for d in value.shape])


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node, outputs: list[tuple[ir.Value, ir.Value]]) -> None:
    """Puts `new` in the place of `old`, which stays until its caller removes it.

    Each (was, now) of `outputs` keeps its name, type, shape and its place among the graph's outputs.
    """
    graph.insert_before(old, new)
    for was, now in outputs:
        now.shape, now.type = was.shape, was.type
        replace_uses(was, now)
        for i, value in enumerate(graph.outputs):
            if value is was:
                graph.outputs[i] = now
        name, was.name = was.name, f"{was.name}.replaced"
        now.name = name


def _share_constants(graph: ir.Graph) -> None:
    """Shape targets, axes and scalars become initialisers, one a value; weights are left alone."""
    for name, value in list(graph.initializers.items()):
        if "lifted_tensor" in name:
            assert value.const_value is not None
            replace_uses(value, constant(graph, value.const_value.numpy()))
            del graph.initializers[name]
    for node in [n for n in graph if n.op_type == "Constant"]:
        replace_uses(node.outputs[0], constant(graph, _constant(node).numpy()))
        graph.remove(node, safe=True)


def _constant(node: ir.Node) -> ir.TensorProtocol:
    (attribute,) = node.attributes.values()
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor()
    dtype = np.int64 if attribute.name.startswith("value_int") else np.float32
    return ir.tensor(np.asarray(attribute.value, dtype=dtype))


def _name_dimensions(graph: ir.Graph, dynamic: Any) -> None:
    """Torch's symbols (s10, s29) become the names they were given (batch, sequence), wherever they stand alone."""
    given = list(torch.utils._pytree.tree_leaves(dynamic, is_leaf=lambda x: isinstance(x, dict)))
    names: dict[str, str] = {}
    for value, dims in zip(graph.inputs, given, strict=True):
        assert value.shape is not None
        names.update({str(value.shape[axis]): dim.__name__ for axis, dim in dims.items()})
    values = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else names.get(str(d), str(d)) for d in value.shape])


def _strip_metadata(model: ir.Model) -> None:
    """Traces name files of the machine that exported, and would make equal exports differ."""
    model.producer_name, model.producer_version = "hired-edge", __version__
    model.graph.name = "hired_edge"
    nodes = list(model.graph)
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for node in nodes for v in node.outputs)]
    for item in (model, model.graph, *nodes, *values):
        item.doc_string = None
        item.metadata_props.clear()
