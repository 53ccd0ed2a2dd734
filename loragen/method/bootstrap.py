"""Bootstrap pool: experts from an edge model's own weights, for models without a trained generator.

Expert i of a linear is the i-th singular pair of its weight W = U S V': A holds the right vectors,
B the left ones times their singular value. Its gate scales what the model already does in that
direction, so gates of a useful size are small numbers around zero.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from loragen.method.edge import linears_of
from loragen.method.pool import Experts


@torch.no_grad()
def bootstrap_experts(model: PreTrainedModel, linears: Sequence[str], columns: int) -> Experts:
    """Return rank-1 experts of every layer's linears, the largest singular values first.

    Args:
        model: a Llama-like causal LM.
        linears: names such as `gate`, `up`, `down`.
        columns: experts per linear, at most its smaller dimension.
    """
    experts = {}
    for (layer, linear), module in linears_of(model, linears).items():
        u_FK, s_K, v_KD = torch.linalg.svd(module.weight.float(), full_matrices=False)
        b_RF = (u_FK * s_K).mT[:columns]
        experts[layer, linear] = (v_KD[:columns].mT.contiguous(), b_RF.contiguous())
    return experts
