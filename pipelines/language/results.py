"""What a language model answers: distributions, scores, steps and trees of tokens."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class NextToken:
    """The distribution of the next token, the likeliest first.

    Attributes:
        token_ids: (V,) int64.
        log_probs: (V,) nats, as the network has it.
        probs: (V,), after temperature and filters; what a filter takes away has 0.
    """

    token_ids: Tensor
    log_probs: Tensor
    probs: Tensor


@dataclass
class TextScore:
    """How probable a text is, token by token.

    Attributes:
        given: what the first scored token is conditioned on, as text.
        tokens, token_ids: the scored tokens.
        log_probs: (N,) nats.
        num_bytes: of the scored text in UTF-8.
    """

    given: str
    tokens: list[str]
    token_ids: list[int]
    log_probs: Tensor
    num_bytes: int

    @property
    def log_prob(self) -> float:
        """Nats of the whole text."""
        return self.log_probs.double().sum().item()

    @property
    def perplexity(self) -> float:
        """exp of the mean of -log p: between so many equally likely tokens the model could not decide."""
        return math.exp(-self.log_probs.double().mean().item())

    @property
    def bits_per_byte(self) -> float:
        """-log2 p of the text for each byte of it, whatever its tokens are."""
        return -self.log_prob / math.log(2) / max(1, self.num_bytes)


@dataclass
class TokenStep:
    """One token for each prompt.

    Attributes:
        step, num_steps: from 0; the last may come before num_steps - 1 where all texts have ended.
        token_ids: (B,), of an ended text its last one again.
        ended: (B,), None while a text goes on, else "end_of_text" or "stop_string".
        forgotten: tokens at the beginning that the network does not see any more, the most of all texts.
    """

    step: int
    num_steps: int
    token_ids: list[int]
    ended: list[str | None]
    forgotten: int
    _logits: Tensor = field(repr=False)
    _written: list[list[int]] = field(repr=False)  # it grows, so the lengths are kept beside it
    _lengths: list[int] = field(repr=False)
    _decode: Callable = field(repr=False)

    @property
    def log_probs(self) -> list[float]:
        """(B,) nats of the tokens, as the network has them, before temperature and filters."""
        tokens = torch.tensor(self.token_ids, device=self._logits.device)[:, None]
        return self._logits.log_softmax(-1).gather(1, tokens)[:, 0].tolist()

    @property
    def texts(self) -> list[str]:
        """What has been written so far, without the prompts."""
        return [self._decode(ids[:n]) for ids, n in zip(self._written, self._lengths, strict=True)]


@dataclass
class Branch:
    """A token in a tree of continuations.

    Attributes:
        log_prob: nats of this token, given all before it.
        total: nats of the path from the prompt to here: the sum of `log_prob` along it.
    """

    token_id: int
    token: str
    log_prob: float
    total: float
    children: list["Branch"] = field(default_factory=list)
