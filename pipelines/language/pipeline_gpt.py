"""GPT: a text's probability is the product of each token's, given those before it.

    log P(x) = sum over l of log P(x_l | x_1 ... x_(l-1))

Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018) and "Language Models are
Unsupervised Multitask Learners" (2019). The network and the tokenizer are transformers' own and load without this file;
this file adds what the product is good for:

1. `next_token`: the distribution of the next token, and what temperature, top-k, top-p and min-p make of it.
2. `log_prob`, `score`: nats of a text, token by token, with perplexity and bits per byte.
3. `stream`, `__call__`: sampling token by token over a static cache, without the Python that transformers' `generate`
   runs for each token: for a small network that is most of the time. In float32 greedy tokens are the same.
4. `tree`: the likeliest tokens, after each the likeliest again, probabilities multiplied along the branches.
5. `build_prompt`: zero-shot, one-shot, few-shot and chain-of-thought prompts.

Probabilities are exact, of tokens. A text can be cut into tokens in several ways where these are pieces of words; the
tokenizer's own way is scored, and log P of the text is at least that.

Load it with `transformers.pipeline(model=REPO, trust_remote_code=True)`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Pipeline

from pipelines.checks import check_choice, check_count, check_generators
from pipelines.code import copy_code, is_remote, rewrite
from pipelines.language.continuations import Continuations, Generators
from pipelines.language.decoders import decoder_for, last_logits
from pipelines.language.fit import check_language_model
from pipelines.language.results import Branch, NextToken, TextScore, TokenStep
from pipelines.language.sampling import draw_tokens, token_probabilities
from pipelines.language.texts import Texts

LOGITS_AT_ONCE = 2**25  # that stay in memory together


class GPTPipeline(Texts, Continuations, Pipeline):
    """A causal language model and its tokenizer. Probabilities of tokens are exact.

    Where the model's config has a `bos_token_id`, texts begin with it: then a prompt may be empty, and a text's first
    token has a probability. Where it has none, the first token is taken as given.
    """

    _load_tokenizer = True
    likelihood = "exact"

    def __init__(self, model, tokenizer=None, **kwargs):
        if tokenizer is None:
            raise ValueError("tokenizer is missing; pass one, or load from a folder that holds it")
        check_language_model(model, tokenizer)
        super().__init__(model=model, tokenizer=tokenizer, **kwargs)
        self.model.eval()

    @property
    def calls(self) -> frozenset[str]:
        """What this pipeline answers: "sample" is the call itself."""
        return frozenset({"sample", "stream", "next_token", "log_prob", "score", "tree", "build_prompt"})

    @property
    def context_length(self) -> int:
        """Tokens that the network sees at once.

        Raises:
            ValueError: the model's config does not say.
        """
        length = getattr(self.model.config, "max_position_embeddings", None)
        if length is None:
            raise ValueError("this model's config names no max_position_embeddings, so its context length is not known")
        return length

    @property
    def bos_token_id(self) -> int | None:
        return self.model.config.bos_token_id

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """What ends a text: some models have several such tokens; none where texts have no end."""
        found = self.model.config.eos_token_id
        return () if found is None else tuple(found) if isinstance(found, list | tuple) else (found,)

    # Probabilities

    @torch.inference_mode()
    def next_token(
        self,
        prompt: str,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        overflow: str = "slide",
    ) -> NextToken:
        """The distribution of the token after `prompt`.

        Args:
            temperature: divides the logits; 0 puts all probability on the likeliest token.
            top_k: keep the k likeliest.
            top_p: keep the fewest likeliest whose probabilities reach this, in (0, 1].
            min_p: keep those of at least this share of the likeliest one's probability, in [0, 1].
            overflow: of a prompt longer than the context: "slide" looks at its end only, "error" refuses it.

        Raises:
            ValueError: a value outside its range, an empty prompt where the model needs one, an unknown character.
        """
        warp = token_probabilities(temperature, top_k, top_p, min_p)
        ids = self.encode(prompt)
        self._check_overflow(len(ids), 0, overflow)
        ids = ids[-self.context_length :]
        given = torch.tensor([ids], device=self.device)
        logits = last_logits(self.model, input_ids=given, use_cache=False).float()
        probs = warp(logits)[0].cpu()
        log_probs = logits.log_softmax(-1)[0].cpu()
        order = log_probs.argsort(descending=True, stable=True)
        return NextToken(order, log_probs[order], probs[order])

    def log_prob(self, texts: str | Sequence[str], prompt: str = "", stride: int | None = None) -> Tensor:
        """log P(text | prompt), nats, shape (B,): the sums of `score`, each of the text's tokens after the prompt's."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return torch.tensor([self.score(text, prompt, stride).log_prob for text in texts])

    def score(
        self,
        text: str,
        prompt: str = "",
        stride: int | None = None,
        overflow: str = "slide",
        end_of_text: bool = False,
    ) -> TextScore:
        """log P(x_l | prompt, x_<l) of each token of a text.

        The prompt is tokenized by itself, so its tokens do not depend on the text.

        Args:
            stride: a text longer than the context is read in windows that begin so many tokens apart; each token is
                scored once, in the first window that holds it. 1 gives every token all the context it can have, the
                context length is the cheapest. Half the context by default.
            overflow: "slide" as above, "error" refuses a longer text.
            end_of_text: also score the token that ends the text, where the model has one.

        Raises:
            ValueError: nothing to score, a stride outside 1 to the context length, an unknown character.
        """
        stride = max(1, self.context_length // 2) if stride is None else stride
        check_count("stride", stride, most=self.context_length)
        ids = self._ids(text, "text")
        before = self._ids(prompt, "prompt")
        if self.bos_token_id is not None:
            before = [self.bos_token_id, *before]
        elif not before:
            before, ids = ids[:1], ids[1:]
        if end_of_text:
            ids += self.eos_token_ids[:1]
        if not ids:
            after = " after the first, which is given" if text and not prompt else ""
            raise ValueError(f"text is {text!r}; there is no token to score{after}")
        self._check_overflow(len(before) + len(ids) - 1, 0, overflow)
        log_probs = self.token_log_probs([*before, *ids], stride)[-len(ids) :]
        skipped = 0 if prompt or self.bos_token_id is not None else self._num_bytes(before[0])
        num_bytes = len(text.encode()) - skipped
        return TextScore(self.decode(before), [self.token_text(i) for i in ids], ids, log_probs, num_bytes)

    @torch.inference_mode()
    def token_log_probs(self, token_ids: Sequence[int], stride: int) -> Tensor:
        """log P(x_l | what stands before it in its window), nats, of all tokens but the first: (N,) -> (N - 1,)."""
        ids, size = torch.tensor(token_ids), min(self.context_length, len(token_ids) - 1)
        last = len(ids) - 1 - size  # where the last window begins
        begins = [*range(0, last, stride), last]
        found = torch.empty(len(ids) - 1)
        done = 0  # tokens scored
        at_once = max(1, LOGITS_AT_ONCE // (size * self.model.config.vocab_size))
        for first in range(0, len(begins), at_once):
            rows = begins[first : first + at_once]
            windows = torch.stack([ids[b : b + size + 1] for b in rows]).to(self.device)
            logits = self.model(input_ids=windows[:, :-1], use_cache=False).logits
            log_probs = -F.cross_entropy(logits.float().transpose(1, 2), windows[:, 1:], reduction="none").cpu()
            for begin, row in zip(rows, log_probs, strict=True):
                found[done : begin + size] = row[done - begin :]
                done = begin + size
        return found

    @torch.inference_mode()
    def tree(self, prompt: str, depth: int = 3, width: int = 3) -> list[Branch]:
        """The `width` likeliest tokens after the prompt, after each of them the likeliest again, `depth` tokens deep.

        A likelier text of this length may begin with a token that is not among them.

        Raises:
            ValueError: depth or width below 1, or more than 4 096 branches.
        """
        depth, width = check_count("depth", depth), check_count("width", width)
        width = min(width, self.model.config.vocab_size)
        if width**depth > 4_096:
            raise ValueError(f"width is {width} and depth {depth}; width to the power of depth must be at most 4096")
        ids = self.encode(prompt)
        roots: list[Branch] = []
        level: list[tuple[list[int], list[Branch], float]] = [(ids, roots, 0.0)]  # path, its children, its log p
        for _ in range(depth):
            paths = torch.tensor([path[-self.context_length :] for path, _, _ in level], device=self.device)
            parts = paths.split(max(1, LOGITS_AT_ONCE // paths.shape[1] // self.model.config.vocab_size))
            logits = torch.cat([last_logits(self.model, input_ids=p, use_cache=False).float().cpu() for p in parts])
            values, tokens = logits.log_softmax(-1).topk(width)
            below = []
            for (path, children, total), row, likeliest in zip(level, values.tolist(), tokens.tolist(), strict=True):
                for log_prob, token in zip(row, likeliest, strict=True):
                    branch = Branch(token, self.token_text(token), log_prob, total + log_prob)
                    children.append(branch)
                    if token not in self.eos_token_ids:  # nothing follows an end
                        below.append(([*path, token], branch.children, branch.total))
            level = below
            if not level:
                break
        return roots

    # Sampling

    def stream(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        generator: Generators = None,
        stop_strings: str | Sequence[str] | None = None,
        overflow: str = "slide",
    ) -> Iterator[TokenStep]:
        """Continue prompts, one token of each at a time; ends when all texts have ended.

        Args:
            prompts: one or several; of several, shorter ones are padded on the left.
            temperature, top_k, top_p, min_p: as in `next_token`; temperature 0 takes the likeliest token.
            generator: one for all, or one for each prompt: then a text does not depend on its neighbours.
            stop_strings: a text ends when one of these has been written.
            overflow: when prompt and new tokens exceed the context, "slide" forgets the older half of what it has read
                of a text each time that text fills the context, "error" refuses before the first token.

        Raises:
            ValueError: a value outside its range, an empty prompt where the model needs one, an unknown character.
        """
        prompts = self._listed(prompts)
        max_new_tokens = check_count("max_new_tokens", max_new_tokens)
        warp = token_probabilities(
            temperature, top_k, top_p, min_p
        )  # also what greedy decoding does not use is checked
        generators = list(generator) if isinstance(generator, Sequence) else generator
        check_generators(generators, len(prompts), "prompts")
        stops = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings or [])
        if "" in stops:
            raise ValueError("stop_strings holds an empty text; every text ends with it")
        rows = [self.encode(p) for p in prompts]
        self._check_overflow(max(map(len, rows)), max_new_tokens, overflow)
        return self._stream(rows, max_new_tokens, None if temperature == 0 else warp, generators, stops)

    def _stream(self, rows, max_new_tokens: int, warp, generators, stops: list[str]) -> Iterator[TokenStep]:
        written: list[list[int]] = [[] for _ in rows]
        ended: list[str | None] = [None] * len(rows)
        context, ends, kind = self.context_length, self.eos_token_ids, decoder_for(self.model)
        # where in each text the network's view begins: its own length alone decides, so no text depends on another
        begins = [max(0, len(row) - context) for row in rows]
        network, new = None, None
        for step in range(max_new_tokens):
            # the mode holds while this computes, and not while whoever iterates does
            with torch.inference_mode():
                if network is None or network.read == network.room:
                    whole = [row + more for row, more in zip(rows, written, strict=True)]
                    if network is not None:
                        # the newest token is written and not read yet
                        full = [len(text) - begin > context for text, begin in zip(whole, begins, strict=True)]
                        half = max(1, context // 2)
                        begins = [len(t) - half if f else b for t, f, b in zip(whole, full, begins, strict=True)]
                    texts = [text[begin:] for text, begin in zip(whole, begins, strict=True)]
                    longest = max(map(len, texts))
                    pads = [longest - len(text) for text in texts]
                    network = kind(self.model, pads, min(context, longest + max_new_tokens - step))
                    padded = [[0] * pad + text for pad, text in zip(pads, texts, strict=True)]
                    new = torch.tensor(padded, device=self.device)
                logits = network.logits(new)
                new = logits.argmax(-1, keepdim=True) if warp is None else draw_tokens(warp(logits), generators)
                tokens = new[:, 0].tolist()
            for i, token in enumerate(tokens):
                if ended[i] is not None:
                    tokens[i] = written[i][-1]
                    continue
                written[i].append(token)
                if token in ends:
                    ended[i] = "end_of_text"
                elif stops and self._stopped(written[i], stops):
                    ended[i] = "stop_string"
            lengths = [len(ids) for ids in written]
            yield TokenStep(
                step, max_new_tokens, tokens, list(ended), max(begins), logits, written, lengths, self.decode
            )
            if all(ended):
                return

    def _stopped(self, written: list[int], stops: list[str]) -> bool:
        # a token is at least one byte, so a stop that ends here lies within so many tokens
        tail = self.decode(written[-max(len(s.encode()) for s in stops) - 3 :])
        return any(s in tail for s in stops)

    def _check_overflow(self, length: int, more: int, overflow: str) -> None:
        """Refuse a text of this length, and so many tokens more, that neither fits into the context nor may slide."""
        check_choice("overflow", overflow, "slide", "error")
        if overflow == "error" and length + more > self.context_length:
            added = f" and {more} more are asked for" if more else ""
            raise ValueError(
                f"the text has {length} tokens{added}; this model sees {self.context_length} at once: "
                "shorten it, or let overflow be 'slide'"
            )

    # What transformers asks of a pipeline

    def save_pretrained(self, save_directory, push_to_hub: bool = False, repo_id: str | None = None, **kwargs) -> None:
        """As of transformers, with the code of this pipeline where it is remote code.

        `push_to_hub` uploads model, tokenizer and code together, as `pipe.push_to_hub(repo_id)` does; the folder's name is
        the repository's where none is given.
        """
        folder = Path(save_directory)
        of_push = ("private", "token", "commit_message", "create_pr")
        of_push = {name: kwargs.pop(name) for name in of_push if name in kwargs} if push_to_hub else {}
        super().save_pretrained(save_directory, **kwargs)
        # transformers 4 knows the class by its older name, 5 by both
        kind = type(self.tokenizer).__name__
        kind = "PreTrainedTokenizerFast" if kind == "TokenizersBackend" else kind
        rewrite(folder / "tokenizer_config.json", tokenizer_class=kind)
        if is_remote(type(self)):
            impl = f"{copy_code(type(self), folder)}.{type(self).__name__}"
            tasks = {name: {**task, "impl": impl} for name, task in self.model.config.custom_pipelines.items()}
            rewrite(folder / "config.json", custom_pipelines=tasks)
        if push_to_hub:
            self.push_to_hub(repo_id or folder.name, **of_push)

    def _sanitize_parameters(self, **kwargs):
        if kwargs:
            raise ValueError(f"{next(iter(kwargs))}: give it with the call, not to the pipeline")
        return {}, {}, {}

    def preprocess(self, prompt: str) -> dict:
        return {"input_ids": torch.tensor([self.encode(prompt)], device=self.device)}

    def _forward(self, inputs: dict):
        return self.model(**inputs)

    def postprocess(self, outputs):
        return outputs.logits
