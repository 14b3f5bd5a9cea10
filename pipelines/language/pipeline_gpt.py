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

import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, Pipeline
from transformers.generation import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

LOGITS_AT_ONCE = 2**25  # that stay in memory together
OVERFLOWS = ("slide", "error")
Generators = torch.Generator | Sequence[torch.Generator] | None


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


# The lean step: what a decoder computes for its newest tokens, and nothing beside it


class _Step:
    """A network that reads tokens bit by bit: keys and values of what it has read lie in a cache of fixed size.

    Args:
        pads: (B,) how many of the first tokens of each row are padding.
        room: tokens that the cache holds.
    """

    def __init__(self, model, pads: list[int], room: int):
        self.model, self.config, self.room, self.read = model, model.config, room, 0
        self.device, self.dtype = model.device, model.dtype
        self.pads = torch.tensor(pads, device=self.device)[:, None] if any(pads) else None
        slots = torch.arange(room, device=self.device)
        # (B, 1, room): a key that is no padding; a padded query sees itself alone, so that it is a number
        self.seen = None if self.pads is None else (slots >= self.pads)[:, None]
        self.slots = slots

    def logits(self, tokens: Tensor) -> Tensor:
        """Read tokens (B, T); returns logits (B, V) of the token after the last, float32."""
        begin, end = self.read, self.read + tokens.shape[1]
        self.read = end
        positions = mask = None  # without padding both follow from begin and end
        if self.pads is not None:
            positions = (self.slots[begin:end] - self.pads).clamp(min=0)  # (B, T)
            own, keys = self.slots[begin:end, None], self.slots[None, :end]
            mask = ((keys <= own) & self.seen[:, :, :end] | (keys == own))[:, None]  # (B, 1, T, end)
        return self.forward(tokens, positions, mask, begin, end).float()


class _GPT2(_Step):
    """GPT-2 as arithmetic on its weights."""

    def __init__(self, model, pads: list[int], room: int):
        super().__init__(model, pads, room)
        body, c = model.transformer, self.config
        self.heads, self.width, self.eps = c.n_head, c.n_embd, c.layer_norm_epsilon
        self.size = self.width // self.heads
        shape = (len(pads), self.heads, room, self.size)
        # looked up once: of a small network, finding its weights would take as long as using them
        self.embed, self.place = body.wte.weight, body.wpe.weight
        self.last = (body.ln_f.weight, body.ln_f.bias, model.lm_head.weight)
        self.layers = []
        for block in body.h:
            attention, mlp = block.attn, block.mlp
            parts = (block.ln_1, attention.c_attn, attention.c_proj, block.ln_2, mlp.c_fc, mlp.c_proj)
            weights = [weight for part in parts for weight in (part.weight, part.bias)]
            cache = [torch.empty(shape, device=self.device, dtype=self.dtype) for _ in range(2)]
            self.layers.append((*weights, *cache))
        # transformers' gelu_new is the second of these, written out in six operations
        kinds = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
        kind = kinds.get(c.activation_function)
        self.act = body.h[0].mlp.act if kind is None else lambda x: F.gelu(x, approximate=kind)

    @staticmethod
    def takes(model) -> bool:
        if type(model).__name__ != "GPT2LMHeadModel":
            return False
        c = model.config
        return c.scale_attn_weights and not c.scale_attn_by_inverse_layer_idx and not c.add_cross_attention

    def forward(self, tokens, positions, mask, begin, end):
        (rows, count), width, eps, shape = tokens.shape, self.width, self.eps, (self.width,)
        # (T, width) for all rows, where none is padded
        places = self.place[begin:end] if positions is None else F.embedding(positions, self.place)
        x = (F.embedding(tokens, self.embed) + places).view(rows * count, width)
        for n1, m1, w_qkv, b_qkv, w_out, b_out, n2, m2, w_up, b_up, w_down, b_down, keys, values in self.layers:
            h = torch.addmm(b_qkv, torch.layer_norm(x, shape, n1, m1, eps), w_qkv)
            if count == 1:  # the order of the axes is one already
                q, k, v = h.view(rows, 3, self.heads, 1, self.size).unbind(1)
            else:
                q, k, v = h.view(rows, count, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind()
            keys.narrow(2, begin, count).copy_(k)  # (B, heads, T, width of a head)
            values.narrow(2, begin, count).copy_(v)
            h = _attention(q, keys.narrow(2, 0, end), values.narrow(2, 0, end), mask)
            h = h.reshape(rows, width) if count == 1 else h.transpose(1, 2).reshape(rows * count, width)
            x = torch.addmm(b_out, h, w_out).add_(x)
            h = torch.addmm(b_up, torch.layer_norm(x, shape, n2, m2, eps), w_up)
            x = torch.addmm(b_down, self.act(h), w_down).add_(x)
        norm, shift, head = self.last
        x = x if count == 1 else x.view(rows, count, width)[:, -1]
        return F.linear(torch.layer_norm(x, shape, norm, shift, eps), head)


class _Llama(_Step):
    """Llama: rotary positions, RMS norm, a gated linear unit, heads that may share keys and values."""

    def __init__(self, model, pads: list[int], room: int):
        super().__init__(model, pads, room)
        c = self.config
        self.width, self.size = c.hidden_size, c.head_dim
        shape = (len(pads), c.num_key_value_heads, room, self.size)
        self.cache = [
            (torch.empty(shape, device=self.device, dtype=self.dtype),
             torch.empty(shape, device=self.device, dtype=self.dtype))
            for _ in model.model.layers
        ]  # fmt: skip
        probe = torch.empty(1, device=self.device, dtype=self.dtype)
        self.cos, self.sin = (t[0] for t in model.model.rotary_emb(probe, self.slots[None]))  # (room, size)

    @staticmethod
    def takes(model) -> bool:
        if type(model).__name__ != "LlamaForCausalLM" or model.config.hidden_act != "silu":
            return False
        # the others turn by angles that depend on how long the text has become
        rope = getattr(model.config, "rope_parameters", None) or {}
        return rope.get("rope_type", "default") in ("default", "linear", "llama3")

    def forward(self, tokens, positions, mask, begin, end):
        rows, count = tokens.shape
        # (T, size), or (B, 1, T, size)
        cos, sin = (t[begin:end] if positions is None else t[positions][:, None] for t in (self.cos, self.sin))
        half = self.size // 2

        def heads(h: Tensor) -> Tensor:
            return h.view(rows, count, -1, self.size).transpose(1, 2)

        def turned(h: Tensor) -> Tensor:
            return h * cos + torch.cat([-h[..., half:], h[..., :half]], -1) * sin

        x, body = F.embedding(tokens, self.model.model.embed_tokens.weight), self.model.model
        for layer, (keys, values) in zip(body.layers, self.cache, strict=True):
            h, a = _rms(x, layer.input_layernorm), layer.self_attn
            q, k = turned(heads(a.q_proj(h))), turned(heads(a.k_proj(h)))
            keys.narrow(2, begin, count).copy_(k)
            values.narrow(2, begin, count).copy_(heads(a.v_proj(h)))
            h = _attention(q, keys.narrow(2, 0, end), values.narrow(2, 0, end), mask, enable_gqa=True)
            x = x + a.o_proj(h.transpose(1, 2).reshape(rows, count, -1))
            h, m = _rms(x, layer.post_attention_layernorm), layer.mlp
            x = x + m.down_proj(F.silu(m.gate_proj(h)).mul_(m.up_proj(h)))
        return self.model.lm_head(_rms(x[:, -1], body.norm))


class _Any(_Step):
    """Any other decoder, through its own `forward`."""

    def __init__(self, model, pads: list[int], room: int):
        super().__init__(model, pads, room)
        self.cache = DynamicCache(config=self.config)

    def forward(self, tokens, positions, mask, begin, end):
        seen = None if self.seen is None else self.seen[:, 0, :end].long()
        if positions is None:
            positions = self.slots[begin:end].expand(len(tokens), -1)
        return _last_logits(
            self.model, input_ids=tokens, position_ids=positions, attention_mask=seen, past_key_values=self.cache,
            use_cache=True,
        )  # fmt: skip


def _last_logits(model, **inputs) -> Tensor:
    """Logits (B, V) after the last token; those of the others are not computed where the network can do without."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = 1
    return model(**inputs).logits[:, -1]


def _attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **more) -> Tensor:
    """Several new tokens without padding are only ever the first ones, so the plain causal mask is theirs."""
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=mask, is_causal=mask is None and q.shape[2] > 1, **more
    )


def _rms(x: Tensor, norm) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _step_for(model) -> type[_Step]:
    """The lean step reads weights and calls no module: it is for networks of plain modules, without adapters or hooks."""
    plain = all(
        type(m).__module__.startswith(("torch.nn.", "transformers.")) and not (m._forward_hooks or m._forward_pre_hooks)
        for m in model.modules()
    )
    return next((kind for kind in (_GPT2, _Llama) if plain and kind.takes(model)), _Any)


# The pipeline


class GPTPipeline(Pipeline):
    """A causal language model and its tokenizer. Probabilities of tokens are exact.

    Where the model's config has a `bos_token_id`, texts begin with it: then a prompt may be empty, and a text's first
    token has a probability. Where it has none, the first token is taken as given.
    """

    _load_tokenizer = True
    likelihood = "exact"

    def __init__(self, model, tokenizer=None, **kwargs):
        if tokenizer is None:
            raise ValueError("tokenizer is missing; pass one, or load from a folder that holds it")
        super().__init__(model=model, tokenizer=tokenizer, **kwargs)
        self.model.eval()

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

    # Text and tokens

    def encode(self, text: str, name: str = "prompt") -> list[int]:
        """A text's tokens, the beginning-of-text token before them where the model has one.

        Raises:
            ValueError: not a text, nothing to begin with, or a character that the vocabulary lacks.
        """
        if not isinstance(text, str):
            raise ValueError(f"{name} is a {type(text).__name__}; it must be a text")
        ids = self._ids(text, name)
        if self.bos_token_id is not None:
            return [self.bos_token_id, *ids]
        if not ids:
            raise ValueError(f"{name} is empty; this model has no token that begins a text, so give at least one")
        return ids

    def _ids(self, text: str, name: str) -> list[int]:
        def encoded(part: str) -> list[int] | None:
            """None where the vocabulary lacks something: then tokenizers raises its own kind, or puts "unknown"."""
            try:
                # a text that spells a special token out is no special token
                ids = self.tokenizer(part, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                    "input_ids"
                ]
            except Exception as error:
                if "[UNK]" not in str(error):
                    raise
                return None
            return None if self.tokenizer.unk_token_id in ids else ids

        ids = encoded(text)
        if ids is None:
            letter = next((c for c in text if encoded(c) is None), text)
            raise ValueError(
                f"{name} holds {letter!r}, which is not in this model's vocabulary of {len(self.tokenizer)} tokens"
            )
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def token_text(self, token_id: int) -> str:
        """A token as a person reads it: its text, or the bytes of a part of a character as <E2>."""
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        if "\ufffd" not in text:
            return text
        raw = self._bytes(token_id)
        return text if None in raw else "".join(f"<{byte:02X}>" for byte in raw)

    def _bytes(self, token_id: int) -> list[int | None]:
        """Of a token of a byte-level tokenizer."""
        letters = _byte_letters()
        return [letters.get(c) for c in self.tokenizer.convert_ids_to_tokens(token_id)]

    def _num_bytes(self, token_id: int) -> int:
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return len(self._bytes(token_id)) if "\ufffd" in text else len(text.encode())

    def writes(self, token_id: int) -> bool:
        """Whether a token is text by itself: neither a mark nor a part of a character."""
        return token_id not in self.tokenizer.all_special_ids and "\ufffd" not in self.tokenizer.decode([token_id])

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
        warp = _warper(temperature, top_k, top_p, min_p)
        ids = self.encode(prompt)
        self._check_overflow(len(ids), 0, overflow)
        ids = ids[-self.context_length :]
        given = torch.tensor([ids], device=self.device)
        logits = _last_logits(self.model, input_ids=given, use_cache=False).float()
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
        if not isinstance(stride, int) or not 1 <= stride <= self.context_length:
            raise ValueError(f"stride is {stride}; it must be an integer from 1 to {self.context_length}")
        if not isinstance(text, str):
            raise ValueError(f"text is a {type(text).__name__}; it must be a text")
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
        depth, width = _whole("depth", depth, 1), _whole("width", width, 1)
        width = min(width, self.model.config.vocab_size)
        if width**depth > 4_096:
            raise ValueError(f"width is {width} and depth {depth}; width to the power of depth must be at most 4096")
        ids = self.encode(prompt)
        roots: list[Branch] = []
        level: list[tuple[list[int], list[Branch], float]] = [(ids, roots, 0.0)]  # path, its children, its log p
        for _ in range(depth):
            paths = torch.tensor([path[-self.context_length :] for path, _, _ in level], device=self.device)
            parts = paths.split(max(1, LOGITS_AT_ONCE // paths.shape[1] // self.model.config.vocab_size))
            logits = torch.cat([_last_logits(self.model, input_ids=p, use_cache=False).float().cpu() for p in parts])
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
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("prompts is empty; give at least one")
        max_new_tokens = _whole("max_new_tokens", max_new_tokens, 1)
        warp = _warper(temperature, top_k, top_p, min_p)  # also what greedy decoding does not use is checked
        generators = list(generator) if isinstance(generator, Sequence) else generator
        for one in generators if isinstance(generators, list) else [generators]:
            if one is not None and not isinstance(one, torch.Generator):
                raise ValueError(f"generator is {one!r}; it must be a torch.Generator, or a list of them")
        if isinstance(generators, list) and len(generators) != len(prompts):
            raise ValueError(f"generator is a list of {len(generators)}; there are {len(prompts)} prompts")
        stops = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings or [])
        if "" in stops:
            raise ValueError("stop_strings holds an empty text; every text ends with it")
        rows = [self.encode(p) for p in prompts]
        self._check_overflow(max(map(len, rows)), max_new_tokens, overflow)
        return self._stream(rows, max_new_tokens, None if temperature == 0 else warp, generators, stops)

    def _stream(self, rows, max_new_tokens: int, warp, generators, stops: list[str]) -> Iterator[TokenStep]:
        written: list[list[int]] = [[] for _ in rows]
        ended: list[str | None] = [None] * len(rows)
        context, ends, kind = self.context_length, self.eos_token_ids, _step_for(self.model)
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
                new = logits.argmax(-1, keepdim=True) if warp is None else _draw(warp(logits), generators)
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

    def __call__(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        num_beams: int = 1,
        generator: Generators = None,
        stop_strings: str | Sequence[str] | None = None,
        overflow: str = "slide",
        callback_on_step_end: Callable | None = None,
    ) -> dict | list[dict]:
        """Continue one or several prompts, as `stream` does.

        Args:
            num_beams: above 1, transformers' beam search: the likeliest text it finds, nothing drawn. It must fit into the
                context: beams do not slide.
            callback_on_step_end: called as (pipe, step, TokenStep).

        Returns:
            For each prompt a dict, several as a list:
                generated_text: the prompt and what follows;
                continuation: what follows;
                token_ids, log_probs: of it, nats;
                finish_reason: "length", "end_of_text" or "stop_string".

        Raises:
            ValueError: as `stream`; beams together with what only sampling knows.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts:
            raise ValueError("prompts is empty; give at least one")
        if _whole("num_beams", num_beams, 1) > 1:
            for name, value, unused in (
                ("temperature", temperature, 1.0), ("top_k", top_k, None), ("top_p", top_p, None),
                ("min_p", min_p, None), ("generator", generator, None), ("stop_strings", stop_strings, None),
                ("callback_on_step_end", callback_on_step_end, None),
            ):  # fmt: skip
                if value != unused:
                    raise ValueError(f"{name} is {value}; with num_beams above 1 nothing is drawn or streamed")
            self._check_overflow(0, 0, overflow)
            found = [self._beam(text, _whole("max_new_tokens", max_new_tokens, 1), num_beams) for text in texts]
        else:
            log_probs: list[list[float]] = [[] for _ in texts]
            for last in self.stream(
                texts, max_new_tokens, temperature, top_k, top_p, min_p, generator, stop_strings, overflow
            ):
                for row, value in zip(log_probs, last.log_probs, strict=True):
                    row.append(value)
                if callback_on_step_end is not None:
                    callback_on_step_end(self, last.step, last)
            found = [
                (ids, row[: len(ids)], why or "length")
                for ids, row, why in zip(last._written, log_probs, last.ended, strict=True)
            ]
        results = []
        for text, (ids, values, why) in zip(texts, found, strict=True):
            more = self.decode(ids)
            results.append({
                "generated_text": text + more, "continuation": more, "token_ids": ids, "log_probs": values,
                "finish_reason": why,
            })  # fmt: skip
        return results[0] if isinstance(prompts, str) else results

    def _beam(self, prompt: str, max_new_tokens: int, num_beams: int) -> tuple[list[int], list[float], str]:
        ids = self.encode(prompt)
        if len(ids) + max_new_tokens > self.context_length:
            raise ValueError(
                f"the text has {len(ids)} tokens and {max_new_tokens} more are asked for; beams do not slide, and this "
                f"model sees {self.context_length} at once"
            )
        given = torch.tensor([ids], device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), num_beams=num_beams, do_sample=False,
                length_penalty=0.0,  # probabilities of texts of different lengths are compared as they are
                max_new_tokens=max_new_tokens, max_length=None, pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=self.bos_token_id, eos_token_id=list(self.eos_token_ids) or None,
            )[0].tolist()  # fmt: skip
        new = out[len(ids) :]
        end = next((i for i, token in enumerate(new) if token in self.eos_token_ids), None)
        new = new if end is None else new[: end + 1]  # what follows is padding
        values = self.token_log_probs([*ids, *new], self.context_length)[len(ids) - 1 :].tolist()
        return new, values, "length" if end is None else "end_of_text"

    def _check_overflow(self, length: int, more: int, overflow: str) -> None:
        """Refuse a text of this length, and so many tokens more, that neither fits into the context nor may slide."""
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow is {overflow!r}; it must be one of {', '.join(OVERFLOWS)}")
        if overflow == "error" and length + more > self.context_length:
            added = f" and {more} more are asked for" if more else ""
            raise ValueError(
                f"the text has {length} tokens{added}; this model sees {self.context_length} at once: "
                "shorten it, or let overflow be 'slide'"
            )

    # Prompts

    @staticmethod
    def build_prompt(
        question: str,
        examples: Sequence[tuple[str, ...]] = (),
        instruction: str = "",
        step_by_step: bool = False,
        template: tuple[str, str] = ("Q: ", "A: "),
    ) -> str:
        """A prompt that ends where the answer begins.

        No example makes it zero-shot, one one-shot, several few-shot (Brown et al., arXiv 2005.14165). An example of
        three parts (question, reasoning, answer) shows a chain of thought (Wei et al., arXiv 2201.11903);
        `step_by_step` asks for one without showing any (Kojima et al., arXiv 2205.11916).

        Args:
            examples: (question, answer) or (question, reasoning, answer).
            template: what stands before a question and before an answer.

        Raises:
            ValueError: an example of another length.
        """
        asks, answers = template
        blocks = [instruction] if instruction else []
        for example in examples:
            if len(example) not in (2, 3):
                raise ValueError(
                    f"examples holds {example!r}; each is (question, answer) or (question, reasoning, answer)"
                )
            reasoning = f"{example[1]} The answer is " if len(example) == 3 else ""
            stop = "." if reasoning else ""
            blocks.append(f"{asks}{example[0]}\n{answers}{reasoning}{example[-1]}{stop}")
        thought = "Let's think step by step." if step_by_step else ""
        blocks.append(f"{asks}{question}\n{answers}{thought}".rstrip(" "))
        return "\n\n".join(blocks)

    # What transformers asks of a pipeline

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


def _whole(name: str, value, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return int(value)


def _warper(temperature, top_k, top_p, min_p) -> Callable[[Tensor], Tensor]:
    """Logits (B, V) -> probabilities (B, V), by transformers' own processors in transformers' order.

    Raises:
        ValueError: a value outside its range.
    """

    def number(name: str, value, right: str, good: Callable) -> float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not good(value):
            raise ValueError(f"{name} is {value!r}; it must {right}")
        return float(value)

    temperature = number("temperature", temperature, "be 0 (the likeliest token) or more", lambda v: v >= 0)
    processors = LogitsProcessorList()
    if temperature not in (0.0, 1.0):
        processors.append(TemperatureLogitsWarper(temperature))
    if top_k is not None:
        processors.append(TopKLogitsWarper(_whole("top_k", top_k, 1)))
    if top_p is not None:
        top_p = number("top_p", top_p, "lie in (0, 1]", lambda v: 0 < v <= 1)
        if top_p < 1:
            processors.append(TopPLogitsWarper(top_p))
    if min_p is not None:
        min_p = number("min_p", min_p, "lie in [0, 1]", lambda v: 0 <= v <= 1)
        if min_p > 0:
            processors.append(MinPLogitsWarper(min_p))

    def probabilities(logits: Tensor) -> Tensor:
        if temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        # the likeliest at 0: then no temperature, however low, makes anything infinite but the others' distance
        return processors(None, logits - logits.amax(-1, keepdim=True)).softmax(-1)

    return probabilities


def _draw(probs: Tensor, generators) -> Tensor:
    """One token of each row (B, V) -> (B, 1); generators may live on the CPU while probabilities do not."""
    if isinstance(generators, list):
        return torch.cat([_draw(row[None], g) for row, g in zip(probs, generators, strict=True)])
    if generators is not None and generators.device != probs.device:
        return torch.multinomial(probs.to(generators.device), 1, generator=generators).to(probs.device)
    return torch.multinomial(probs, 1, generator=generators)


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes (Radford et al., 2019): printable ones stand for
    themselves, the others for letters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
