"""From logits to tokens: temperature, top-k, top-p, min-p, and the draw."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pipelines.checks import check_count, check_number


def token_probabilities(temperature, top_k, top_p, min_p) -> Callable[[Tensor], Tensor]:
    """Logits (B, V) -> probabilities (B, V), by transformers' own processors in transformers' order.

    Raises:
        ValueError: a value outside its range.
    """

    temperature = check_number("temperature", temperature, right="be 0 (the likeliest token) or more")
    processors = LogitsProcessorList()
    if temperature not in (0.0, 1.0):
        processors.append(TemperatureLogitsWarper(temperature))
    if top_k is not None:
        processors.append(TopKLogitsWarper(check_count("top_k", top_k)))
    if top_p is not None:
        top_p = check_number("top_p", top_p, most=1, above_least=True, right="lie in (0, 1]")
        if top_p < 1:
            processors.append(TopPLogitsWarper(top_p))
    if min_p is not None:
        min_p = check_number("min_p", min_p, most=1, right="lie in [0, 1]")
        if min_p > 0:
            processors.append(MinPLogitsWarper(min_p))

    def probabilities(logits: Tensor) -> Tensor:
        if temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        # the likeliest at 0: then no temperature, however low, makes anything infinite but the others' distance
        return processors(None, logits - logits.amax(-1, keepdim=True)).softmax(-1)

    return probabilities


def draw_tokens(probs: Tensor, generators) -> Tensor:
    """One token of each row (B, V) -> (B, 1); generators may live on the CPU while probabilities do not."""
    if isinstance(generators, list):
        return torch.cat([draw_tokens(row[None], g) for row, g in zip(probs, generators, strict=True)])
    if generators is not None and generators.device != probs.device:
        return torch.multinomial(probs.to(generators.device), 1, generator=generators).to(probs.device)
    return torch.multinomial(probs, 1, generator=generators)
