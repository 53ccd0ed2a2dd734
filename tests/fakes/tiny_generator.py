"""A tiny real generator with seeded random weights, for tests that need no checkpoint."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModel

from loragen.method.generator import GeneratorSpec, save_generator
from loragen.method.reader import Reader
from loragen.method.router import RouterSpec
from loragen.recipe import Level
from tests.fakes.tiny import EXPERTS, LAYERS, LINEARS, WIDTH, TinyEdge

CONTEXT = 256


def make_generator(folder: Path, *, seed: int = 0) -> Path:
    """Write `edge`, `cloud-tiny` and `generator` below a folder; return the generator's."""
    edge = TinyEdge.make(folder, seed=seed)
    cloud = folder / "cloud-tiny"
    shutil.copytree(edge.model, cloud)
    router = RouterSpec(
        level=Level.DENSE,
        cloud_hidden=WIDTH,
        hidden=16,
        layers=LAYERS,
        linears=len(LINEARS),
        experts=EXPERTS,
    )
    spec = GeneratorSpec(
        cloud="../cloud-tiny",
        edge="../edge",
        context=CONTEXT,
        prefix="<|system|>",
        suffix="<|end|>",
        router=router,
    )
    torch.manual_seed(seed)
    reader = Reader(AutoModel.from_pretrained(cloud), router)
    save_generator(folder / "generator", reader, spec, edge.pool.spec, edge.pool.tensors)
    return folder / "generator"
