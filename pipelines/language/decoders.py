"""Fast decoding token by token: what a network computes for its newest tokens, and nothing beside it.

For a small network the Python around its arithmetic is most of the time. Two kinds of network are therefore written out
as arithmetic on their weights over a cache of fixed size; any other is called as it is. In float32 the numbers are the
network's own.
"""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache


class Decoder:
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


class GPT2Decoder(Decoder):
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


class LlamaDecoder(Decoder):
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


class AnyDecoder(Decoder):
    """Any other decoder, through its own `forward`."""

    def __init__(self, model, pads: list[int], room: int):
        super().__init__(model, pads, room)
        self.cache = DynamicCache(config=self.config)

    def forward(self, tokens, positions, mask, begin, end):
        seen = None if self.seen is None else self.seen[:, 0, :end].long()
        if positions is None:
            positions = self.slots[begin:end].expand(len(tokens), -1)
        return last_logits(
            self.model, input_ids=tokens, position_ids=positions, attention_mask=seen, past_key_values=self.cache,
            use_cache=True,
        )  # fmt: skip


def last_logits(model, **inputs) -> Tensor:
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


def decoder_for(model) -> type[Decoder]:
    """The first two read weights and call no module: they are for networks of plain modules, without adapters or hooks."""
    plain = all(
        type(m).__module__.startswith(("torch.nn.", "transformers.")) and not (m._forward_hooks or m._forward_pre_hooks)
        for m in model.modules()
    )
    return next((kind for kind in (GPT2Decoder, LlamaDecoder) if plain and kind.takes(model)), AnyDecoder)
