"""What a Hugging Face model with a recipe's adapter in its weights answers."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from loragen.method.edge import linears_of
from loragen.recipe import Recipe
from tests.fakes.engine import Answer, Engine, Scores, lora_request
from tests.fakes.tiny import RANK, TinyEdge

MAX_ERROR = 1e-4


def base_model(tiny: TinyEdge) -> PreTrainedModel:
    """Return the edge model, with the attention that its paper has."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        tiny.model, dtype=torch.float32, attn_implementation="eager"
    )
    return model


def merged(base: PreTrainedModel, tiny: TinyEdge, recipe: Recipe | None) -> PreTrainedModel:
    """Return the edge model with W + A diag(g) B in place of W."""
    if recipe is None:
        return base
    model = copy.deepcopy(base)
    modules = linears_of(model, tiny.pool.spec.linears)
    for (layer, linear), (a_DR, b_RF) in tiny.pool.tensors.items():
        gates_R = gates_of(tiny, recipe, layer, linear)
        modules[layer, linear].weight.data += (a_DR @ (gates_R[:, None] * b_RF)).T
    return model


def gates_of(tiny: TinyEdge, recipe: Recipe, layer: int, linear: str) -> Tensor:
    """Return the gates [R] of one linear."""
    linears = tiny.pool.spec.linears
    expanded = recipe.expand(linears=len(linears), rank=RANK)
    return torch.tensor(expanded[layer, linears.index(linear)])


def reference(model: nn.Module, tokens: list[int]) -> Scores:
    """Return log-probabilities [n, vocabulary] after each token."""
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    scores: Scores = logits.log_softmax(-1).numpy()
    return scores


def assert_same(answer: Answer, prompt: list[int], model: nn.Module) -> None:
    """Teacher-force the answer: every greedy choice and every log-probability must agree."""
    scores = reference(model, prompt + answer.tokens)[len(prompt) - 1 : -1]
    assert scores.argmax(axis=1).tolist() == answer.tokens
    assert np.abs(scores - answer.scores).max() <= MAX_ERROR


def assert_prompt_logprobs(
    engine: Engine, base: PreTrainedModel, tiny: TinyEdge, prompt: list[int], recipe: Recipe
) -> None:
    """Ask for the log-probabilities of a prompt with the recipe and without, in one batch."""
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    outputs = engine.llm.generate(
        [{"prompt_token_ids": prompt}] * 2,
        params,
        lora_request=[lora_request(recipe), None],
        use_tqdm=False,
    )
    for output, model in zip(outputs, (merged(base, tiny, recipe), base), strict=True):
        expected = reference(model, prompt)[:-1]
        for token, step, scores in zip(
            prompt[1:], output.prompt_logprobs[1:], expected, strict=True
        ):
            assert abs(step[token].logprob - scores[token]) < MAX_ERROR
