"""What becomes of a checkpoint's own 4 bits: the block size that keeps them, and what an export says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hired_edge.errors import CheckpointError
from hired_export.tensor import Tensor


def own_block(tensors: Mapping[str, Tensor], block_sizes: Sequence[int]) -> int | None:
    """The largest of a target's block sizes that divides the checkpoint's groups; None where it has none of these."""
    groups = {tensor.packed.group for tensor in tensors.values() if tensor.packed is not None}
    return max((size for size in block_sizes if groups and not any(group % size for group in groups)), default=None)


def refuse_unread_biases(tensors: Mapping[str, Tensor], read: Collection[str]) -> None:
    """AutoGPTQ once wrote a bias for every matrix: zeros, for a text model that has none.

    Args:
        tensors: by canonical names.
        read: names of those that the text model reads.

    Raises:
        CheckpointError: one that is not read is not 0.
    """
    for name, tensor in tensors.items():
        bias = name.removesuffix("weight") + "bias"
        unread = tensor.packed is not None and name.startswith(("text.", "lm_head.")) and bias not in read
        if unread and bias in tensors and any(rows.any() for rows in tensors[bias].chunks()):
            raise CheckpointError(
                f"{bias} holds numbers that this text model does not add",
                expected="zeros, or a config.json with that bias",
                fix="use a config.json and weights that belong together",
            )


def summary(tensors: Mapping[str, Tensor], errors: Mapping[str, float]) -> str | None:
    """One line about the matrices that were stored in 4 bits; None where there are none.

    Args:
        tensors: what was written, by its name in the graph.
        errors: of those that were quantised: rms(w' - w) / rms(w), of what the checkpoint stores.
    """
    packed = {name: tensor.packed for name, tensor in tensors.items() if tensor.packed is not None}
    if not packed:
        return None
    first = next(iter(packed.values()))
    matrices = f"{len(packed)} matrices of the checkpoint are in 4 bits ({first.form.name}, groups of {first.group})"
    changed = {name: errors[name] for name in packed if errors.get(name)}
    if not any(name in errors for name in packed):
        return f"{matrices}: dequantised"
    kept = len(packed) - len(changed)
    if not changed:
        return f"{matrices}: kept as they are"
    worst = max(changed, key=lambda name: changed[name])
    return (
        f"{matrices}: {kept} kept as they are, {len(changed)} quantised again with a relative error of"
        f" {sum(changed.values()) / len(changed):.3g} on average and {changed[worst]:.3g} at worst ({worst})"
    )
