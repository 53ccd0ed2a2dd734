"""Growth: a wider and deeper model that computes what the given one does, to train on from there.

New widths, heads and FFN columns write nothing at first (zero rows out) and read at random, so they
learn from the first step on; new layers are copies whose outputs are zero, set between the old ones
(block expansion, as in LLaMA Pro, arXiv 2401.02415; widening in the manner of Net2Net,
arXiv 1511.05641).
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

_WRITERS = ("o_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class CloudSize:
    """Width and depth of a cloud model, at least those of the model that it grows from."""

    hidden: int
    layers: int


@torch.no_grad()
def grow(model: LlamaModel, size: CloudSize) -> LlamaModel:
    """Return a model of this size with the same hidden states, zeros behind them.

    Hidden states [B, T, D] of the model are the first D of the grown one's.

    Raises:
        ValueError: the size is smaller, or its width does not divide into heads as the model's.
    """
    old: LlamaConfig = model.config
    head = int(old.hidden_size) // int(old.num_attention_heads)
    if size.hidden < old.hidden_size or size.layers < old.num_hidden_layers:
        raise ValueError(f"{size} is smaller than the model that it should grow from")
    if size.hidden % head or old.num_key_value_heads != old.num_attention_heads:
        raise ValueError(f"a width of {size.hidden} does not divide into heads of {head}")
    config = copy.deepcopy(old)
    config.update(
        {
            "hidden_size": size.hidden,
            "intermediate_size": int(old.intermediate_size) * size.hidden // int(old.hidden_size),
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.hidden // head,
            "num_key_value_heads": size.hidden // head,
            "rms_norm_eps": float(old.rms_norm_eps) * int(old.hidden_size) / size.hidden,
        }
    )
    grown = LlamaModel(config)
    norm_scale = (int(old.hidden_size) / size.hidden) ** 0.5
    origins = _origins(int(old.num_hidden_layers), size.layers)
    sources = dict(model.named_parameters())
    for name, parameter in grown.named_parameters():
        source, is_new = _source(name, origins)
        if is_new and any(writer in name for writer in _WRITERS):
            nn.init.zeros_(parameter)
        else:
            _fill(parameter, sources[source], name, norm_scale)
    return grown


def _origins(old: int, new: int) -> list[tuple[int, bool]]:
    """Return, per new layer, the old one that it copies, and whether that is a second copy."""
    copies = [new // old + (layer < new % old) for layer in range(old)]
    return [(layer, number > 0) for layer in range(old) for number in range(copies[layer])]


def _source(name: str, origins: list[tuple[int, bool]]) -> tuple[str, bool]:
    parts = name.split(".")
    if parts[0] != "layers":
        return name, False
    layer, is_new = origins[int(parts[1])]
    return ".".join(["layers", str(layer), *parts[2:]]), is_new


def _fill(parameter: nn.Parameter, source: torch.Tensor, name: str, norm_scale: float) -> None:
    """Copy a parameter into the corner of a larger one; see the module for the rest of it."""
    if source.ndim == 1:  # a norm divides by the root mean square over more, empty, columns
        parameter.fill_(norm_scale)
        parameter[: len(source)] = source * norm_scale
        return
    if "embed_tokens" in name:
        nn.init.zeros_(parameter)
    else:
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    rows, columns = source.shape
    parameter[:rows, :columns] = source
    if any(writer in name for writer in _WRITERS):
        parameter[rows:] = 0
        parameter[:rows, columns:] = 0
