"""GPT: the chain rule, the causal mask, decoding that is fast and says the same, and what callers do wrong."""

import functools
import itertools
import json
import math
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
)
from transformers.generation import (
    BaseStreamer,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pipelines.language.decoders import AnyDecoder, GPT2Decoder, LlamaDecoder, decoder_for
from pipelines.language.pipeline_gpt import GPTPipeline
from tests.contract import Instance, damages
from training.data.tokens import train_tokenizer

LETTERS = "abcdefg \n"
CONTEXT = 24


def network(kind: str, tokenizer, begins: bool = False):
    """A network with weights large enough that what it says depends on all it has read."""
    mark = tokenizer.eos_token_id if begins else None
    common = {"vocab_size": len(tokenizer), "bos_token_id": mark, "eos_token_id": mark, "tie_word_embeddings": True}
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=4, **common))
    elif kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=CONTEXT, **common)
        )  # fmt: skip
    else:
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                          max_position_embeddings=CONTEXT, **common)
        )  # fmt: skip
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


KINDS = {"gpt2": GPT2Decoder, "llama": LlamaDecoder, "neox": AnyDecoder}


@pytest.fixture(scope="module")
def letters():
    return train_tokenizer([LETTERS], "characters", 0, CONTEXT)


@pytest.fixture(scope="module", params=KINDS)
def pipe(request, letters):
    pipeline = GPTPipeline(model=network(request.param, letters), tokenizer=letters, device="cpu")
    assert decoder_for(pipeline.model) is KINDS[request.param]
    return pipeline


@pytest.fixture(scope="module")
def small(letters):
    return GPTPipeline(model=network("gpt2", letters), tokenizer=letters, device="cpu")


@pytest.fixture(scope="module")
def ending(letters):
    """A model whose texts begin with the end-of-text token and end with it."""
    return GPTPipeline(model=network("gpt2", letters, begins=True), tokenizer=letters, device="cpu")


@pytest.mark.parametrize("kind", ("gpt2", "llama"))
def test_a_damaged_network_is_refused_in_one_line(kind, letters, tmp_path):
    network(kind, letters).save_pretrained(tmp_path)
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, said = file.read_bytes(), json.loads(config.read_text())

    def load():
        return GPTPipeline(model=AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer=letters, device="cpu")

    assert load().score("abc").log_prob < 0
    for what, tensors in damages(load_file(file)).items():
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises((ValueError, RuntimeError)) as caught:
            load()
        if what != "reshaped":  # transformers says so itself
            assert str(caught.value).startswith("model: ") and "\n" not in str(caught.value), (what, caught.value)
    file.write_bytes(whole)
    layers = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    for changed, message in (
        ({layers: None}, f"config.json lacks '{layers}'"), ({layers: 1}, "holds .*, which the model does not have"),
        ({layers: 3}, "lacks .*, which the model has"), ({"tie_word_embeddings": False}, r"lacks lm_head.weight"),
        ({"eos_token_id": 999}, "eos_token_id is 999; it must be a token of the model, 0 to"),
    ):  # fmt: skip
        config.write_text(json.dumps({k: v for k, v in {**said, **changed}.items() if v is not None or k != layers}))
        with pytest.raises(ValueError, match=message):
            load()
    config.write_text(json.dumps(said))
    more = train_tokenizer([LETTERS + "#"], "characters", 0, CONTEXT)
    with pytest.raises(ValueError, match=r"tokenizer has tokens up to .*; the model knows 0 to"):
        GPTPipeline(model=network(kind, letters), tokenizer=more, device="cpu")


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def drawn(pipe, prompts: list[str], numbers: list[int], count: int = 10) -> list[tuple[list[int], list[float]]]:
    """Of each prompt and seed the tokens, and by how much each of them won: the share of its lead in p / Exp(1).

    `torch.multinomial` draws so: the token with the largest p / Exp(1) has probability p.
    """
    module, steps = sys.modules[type(pipe).__module__], []
    draw_tokens = module.draw_tokens

    def recorded(probs, generators):
        if isinstance(generators, list):
            copies = [torch.Generator().set_state(g.get_state()) for g in generators]
            race = [p / torch.empty_like(p).exponential_(generator=g) for p, g in zip(probs, copies, strict=True)]
            (first, second), winner = torch.stack(race).topk(2).values.unbind(1), torch.stack(race).argmax(1)
            steps.append((1 - second / first).tolist())
            tokens = draw_tokens(probs, generators)
            assert ((tokens[:, 0] == winner) | (second > 0.99999 * first)).all()
            return tokens
        return draw_tokens(probs, generators)

    with mock.patch.object(module, "draw_tokens", recorded):
        rows = pipe(prompts, count, generator=[seeded(n) for n in numbers])
    margins = zip(*steps, strict=True)
    return [(row["token_ids"], list(margin)) for row, margin in zip(rows, margins, strict=True)]


def up_to_a_tie(tokens: list[int], margins: list[float]) -> list[int]:
    return tokens[: next((place for place, margin in enumerate(margins) if margin < 1e-5), len(tokens))]


def assert_the_likeliest(found: dict, other: dict) -> None:
    """Greedy tokens are the same, up to a place where two are equally likely."""
    places = zip(found["token_ids"], other["token_ids"], found["log_probs"], other["log_probs"], strict=True)
    for token, other_token, log_prob, other_log_prob in places:
        assert log_prob == pytest.approx(other_log_prob, abs=1e-4)
        if token != other_token:
            return


def instance(kind: str) -> Instance:
    def make():
        letters = train_tokenizer([LETTERS], "characters", 0, CONTEXT)
        return GPTPipeline(model=network(kind, letters), tokenizer=letters, device="cpu")

    def loss(pipe, x, labels):
        ids = torch.tensor([pipe.encode(LETTERS)])
        return pipe.model(input_ids=ids, labels=ids).loss

    def draw(pipe, numbers):
        return drawn(pipe, [LETTERS[n % 5 : n % 5 + 2] for n in numbers], numbers)

    calls = {"sample", "stream", "next_token", "log_prob", "score", "tree", "build_prompt"}
    return Instance(GPTPipeline, make, "exact", calls, loss=loss, draw=draw)


INSTANCES = {f"gpt {kind}": instance(kind) for kind in KINDS}


# Probabilities


def test_continuations_of_two_tokens_sum_to_one_and_are_products_of_conditionals(pipe):
    vocabulary = range(pipe.model.config.vocab_size)
    prompt, total = pipe.encode("ab"), 0.0
    first = pipe.next_token("ab")
    log_p = dict(zip(first.token_ids.tolist(), first.log_probs.double().tolist(), strict=True))
    for a in vocabulary:
        rows = torch.stack([pipe.token_log_probs([*prompt, a, b], CONTEXT)[-2:] for b in vocabulary]).double()
        assert torch.allclose(rows[:, 0], torch.tensor(log_p[a], dtype=torch.float64), atol=1e-5)
        total += rows.sum(1).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-5)


def test_log_prob_is_a_sum_of_next_token_probabilities(ending):
    text, expected = "dad", 0.0
    for i in range(len(text)):
        found = ending.next_token(text[:i])
        place = found.token_ids.tolist().index(ending.tokenizer(text[i])["input_ids"][0])
        expected += found.log_probs[place].item()
    assert ending.log_prob(text).item() == pytest.approx(expected, abs=1e-4)
    assert ending.log_prob(["dad", "a"]).shape == (2,)
    both = ending.log_prob("da").item() + ending.log_prob("d", prompt="da").item()
    assert both == pytest.approx(expected, abs=1e-4)


def test_all_texts_with_their_ends_share_one(ending):
    """Texts of one token with their end, and all that are longer: a sum over a partition is 1."""
    end = ending.score("", end_of_text=True).log_prob
    letters = [math.exp(ending.log_prob(c).item()) for c in LETTERS]
    assert math.exp(end) + sum(letters) == pytest.approx(1, abs=1e-5)


def test_log_likelihood_is_the_loss_of_transformers(pipe):
    ids = torch.tensor([pipe.encode("abc gfe\nabd")])
    loss = pipe.model(input_ids=ids, labels=ids).loss.item()
    score = pipe.score("abc gfe\nabd")
    assert score.given == "a" and len(score.log_probs) == 10
    assert -score.log_prob / 10 == pytest.approx(loss, abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert score.bits_per_byte == pytest.approx(loss / math.log(2), abs=1e-5)  # ten bytes, ten tokens


def test_no_token_sees_what_follows_it(pipe):
    model, table = pipe.model, pipe.model.get_input_embeddings().weight.detach()
    x = table[torch.tensor([pipe.encode("abcdef")])].requires_grad_(True)
    for place in range(6):
        logits = model(inputs_embeds=x).logits[0, place]
        (slope,) = torch.autograd.grad(logits.square().sum(), x)
        reached = slope[0].abs().sum(-1)
        assert (reached[: place + 1] > 1e-6).all() and (reached[place + 1 :] == 0).all()


def test_a_long_text_is_scored_once_each_with_the_context_that_the_stride_leaves(pipe):
    generator = seeded(0)
    text = "".join(LETTERS[i] for i in torch.randint(len(LETTERS), (70,), generator=generator).tolist())
    ids = pipe.encode(text)
    with torch.inference_mode():
        for stride in (1, 5, CONTEXT):
            found, done = pipe.score(text, stride=stride).log_probs, 0
            assert len(found) == 69
            last = 69 - CONTEXT
            for begin in [*range(0, last, stride), last]:
                window = torch.tensor([ids[begin : begin + CONTEXT + 1]])
                logits = pipe.model(input_ids=window[:, :-1]).logits.log_softmax(-1)
                expected = logits.gather(2, window[:, 1:, None])[0, :, 0]
                torch.testing.assert_close(found[done : begin + CONTEXT], expected[done - begin :], atol=1e-4, rtol=0)
                done = begin + CONTEXT


def test_filters_are_those_of_transformers(small):
    ids = torch.tensor([small.encode("abcabc")])
    logits = small.model(input_ids=ids).logits[:, -1].detach()
    for given, processors in (
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"top_k": 3}, [TopKLogitsWarper(3)]),
        ({"top_p": 0.6}, [TopPLogitsWarper(0.6)]),
        ({"min_p": 0.2}, [MinPLogitsWarper(0.2)]),
        ({"temperature": 2.0, "top_k": 5, "top_p": 0.8},
         [TemperatureLogitsWarper(2.0), TopKLogitsWarper(5), TopPLogitsWarper(0.8)]),
    ):  # fmt: skip
        found = small.next_token("abcabc", **given)
        expected = LogitsProcessorList(processors)(ids, logits.clone()).softmax(-1)[0]
        torch.testing.assert_close(found.probs, expected[found.token_ids], atol=1e-6, rtol=0)
        assert found.probs.sum().item() == pytest.approx(1, abs=1e-5)
        assert (found.log_probs.diff() <= 0).all()
    assert small.next_token("abc", temperature=0).probs.tolist()[:2] == [1, 0]
    cold = small.next_token("abc", temperature=np.float32(1e-38))  # as cold, and nothing overflows
    assert cold.probs.tolist()[:2] == [1, 0]


def test_a_tree_multiplies_along_its_branches(pipe):
    roots = pipe.tree("ab", depth=3, width=2)
    found = pipe.next_token("ab")
    assert [b.token_id for b in roots] == found.token_ids[:2].tolist()
    for a, b, c in itertools.product(range(2), repeat=3):
        first, second = roots[a], roots[a].children[b]
        third = second.children[c]
        path = [*pipe.encode("ab"), first.token_id, second.token_id, third.token_id]
        expected = pipe.token_log_probs(path, CONTEXT)[-3:]
        assert third.total == pytest.approx(expected.sum().item(), abs=1e-4)
        assert third.log_prob == pytest.approx(expected[-1].item(), abs=1e-4)
    assert not third.children


def test_nothing_follows_an_end(ending):
    """Where the likeliest token is the end, its branch stays bare."""
    width = ending.model.config.vocab_size
    (end,) = (b for b in ending.tree("", depth=2, width=width) if b.token_id in ending.eos_token_ids)
    assert not end.children


# Decoding


def greedy_by_transformers(pipe, prompt: str, count: int) -> list[int]:
    ids = torch.tensor([pipe.encode(prompt)])
    out = pipe.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
        pad_token_id=pipe.tokenizer.pad_token_id,
    )  # fmt: skip
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("prompt", ["a", "gfe abc"])
def test_greedy_tokens_are_those_of_generate(pipe, prompt):
    found = pipe(prompt, 15, temperature=0)
    assert found["token_ids"] == greedy_by_transformers(pipe, prompt, 15)
    assert len(set(found["token_ids"])) > 1  # no test of a model that repeats itself
    assert found["generated_text"] == prompt + found["continuation"] and found["finish_reason"] == "length"


def test_cached_decoding_is_uncached_decoding(pipe):
    ids = torch.tensor([pipe.encode("abc gfe\nab")])
    whole = pipe.model(input_ids=ids).logits[0].detach()
    with torch.inference_mode():
        network = decoder_for(pipe.model)(pipe.model, [0], CONTEXT)
        torch.testing.assert_close(network.logits(ids[:, :4])[0], whole[3], atol=1e-4, rtol=1e-4)
        for place in range(4, ids.shape[1]):
            step = network.logits(ids[:, place : place + 1])[0]
            torch.testing.assert_close(step, whole[place], atol=1e-4, rtol=1e-4)


def test_a_left_padded_batch_is_its_rows_one_by_one(pipe):
    prompts = ["a", "gfe abc", "dd\ne"]
    together = pipe(prompts, 12, temperature=0)
    for prompt, found in zip(prompts, together, strict=True):
        assert_the_likeliest(found, pipe(prompt, 12, temperature=0))
    for number, (prompt, row) in enumerate(zip(prompts, drawn(pipe, prompts, [0, 1, 2], 12), strict=True)):
        (alone,) = drawn(pipe, [prompt], [number], 12)
        expected = up_to_a_tie(*row)
        assert expected and alone[0][: len(expected)] == expected


def test_drawn_tokens_have_the_frequencies_of_the_distribution(small):
    count = 4_000
    rows = small(["ab"] * count, 1, temperature=0.8, top_k=6, generator=seeded(0))
    found = small.next_token("ab", temperature=0.8, top_k=6)
    seen = torch.bincount(torch.tensor([d["token_ids"][0] for d in rows]), minlength=small.model.config.vocab_size)
    expected = torch.zeros(len(seen)).scatter(0, found.token_ids, found.probs)
    error = (expected * (1 - expected) / count).sqrt()
    assert ((seen / count - expected).abs() <= 4 * error + 1e-9).all()


def test_the_log_probs_of_a_text_are_those_of_score(pipe):
    found = pipe("abc", 10, temperature=0.5, generator=seeded(1))
    torch.testing.assert_close(
        torch.tensor(found["log_probs"]), pipe.token_log_probs([*pipe.encode("abc"), *found["token_ids"]], CONTEXT)[2:],
        atol=1e-4, rtol=0,
    )  # fmt: skip


def test_a_full_context_slides_and_says_so_or_refuses(pipe):
    steps = list(pipe.stream("abc", 60, generator=seeded(0)))
    assert len(steps) == 60 and steps[0].num_steps == 60
    assert steps[0].forgotten == 0 and steps[-1].forgotten > 0
    # after a slide, the next token is given the newer half of the context
    place = next(i for i, s in enumerate(steps) if s.forgotten)
    read = [*pipe.encode("abc"), *(s.token_ids[0] for s in steps[:place])]
    seen = read[steps[place].forgotten :]
    assert len(seen) == CONTEXT // 2
    expected = pipe.token_log_probs([*seen, steps[place].token_ids[0]], CONTEXT)[-1].item()
    assert steps[place].log_probs[0] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="the text has 3 tokens and 60 more are asked for; this model sees 24 at once"):
        pipe.stream("abc", 60, overflow="error")
    long = "abcdefg" * 10
    assert pipe.next_token(long).probs.equal(pipe.next_token(long[-CONTEXT:]).probs)
    with pytest.raises(ValueError, match="the text has 70 tokens; this model sees 24"):
        pipe.next_token(long, overflow="error")
    first = next(iter(pipe.stream(long, 5, temperature=0)))
    assert first.forgotten == 70 - CONTEXT and first.token_ids[0] == int(pipe.next_token(long).token_ids[0])


def test_a_text_that_slides_does_not_depend_on_its_neighbours(pipe):
    prompts = ["abcdefg abcdefg", "gfe abcabcgfedcbaabc", "a"]
    greedy, rows = pipe(prompts, 40, temperature=0), drawn(pipe, prompts, [0, 1, 2], 40)
    for i, prompt in enumerate(prompts):
        assert_the_likeliest(greedy[i], pipe(prompt, 40, temperature=0))
        (alone,) = drawn(pipe, [prompt], [i], 40)
        expected = up_to_a_tie(*rows[i])
        assert expected and alone[0][: len(expected)] == expected


def test_a_text_ends_at_its_end_or_at_a_stop(ending, small):
    rows = ending(["a"] * 40, 100, generator=seeded(3))
    assert {r["finish_reason"] for r in rows} == {"end_of_text", "length"} or all(
        r["finish_reason"] == "end_of_text" for r in rows
    )
    for row in rows:
        ended = row["finish_reason"] == "end_of_text"
        assert (ending.eos_token_ids[0] in row["token_ids"]) == ended and len(row["log_probs"]) == len(row["token_ids"])
        assert not ended or row["token_ids"].index(ending.eos_token_ids[0]) == len(row["token_ids"]) - 1
    stopped = small("a", 200, generator=seeded(0), stop_strings=["\n", "xyz"])
    assert stopped["finish_reason"] == "stop_string" and stopped["continuation"].endswith("\n")
    assert stopped["continuation"].count("\n") == 1


def test_a_stream_that_is_closed_computes_no_more(small, monkeypatch):
    calls, forward = [], GPT2Decoder.forward
    monkeypatch.setattr(GPT2Decoder, "forward", lambda self, *inputs: calls.append(1) or forward(self, *inputs))
    stream = small.stream("a", 10_000)
    taken = [next(stream) for _ in range(3)]
    stream.close()
    assert [s.step for s in taken] == [0, 1, 2] and next(stream, None) is None and len(calls) == 3
    assert [len(s.texts[0]) for s in taken] == [1, 2, 3]  # what was handed out does not grow afterwards
    assert torch.is_inference_mode_enabled() is False


def test_beams_as_many_as_tokens_find_the_likeliest_text_of_two(ending):
    """So many beams are a search of all: texts of two tokens, and the end alone."""
    vocabulary = range(ending.model.config.vocab_size)
    prompt, (end,) = ending.encode("ab"), ending.eos_token_ids
    texts = [[a, b] for a in vocabulary for b in vocabulary if a != end] + [[end]]
    totals = [ending.token_log_probs([*prompt, *t], CONTEXT)[len(prompt) - 1 :].sum().item() for t in texts]
    found = ending("ab", 2, num_beams=len(vocabulary))
    assert found["token_ids"] == texts[totals.index(max(totals))]
    assert sum(found["log_probs"]) == pytest.approx(max(totals), abs=1e-4)


def test_beams_refuse_what_only_sampling_knows(small):
    for arguments, message in (
        ({"top_k": 3}, "top_k is 3; with num_beams above 1 nothing is drawn"),
        ({"overflow": "crash"}, "overflow is 'crash'"),
        ({"max_new_tokens": 30}, "the text has 2 tokens and 30 more are asked for; beams do not slide"),
    ):
        with pytest.raises(ValueError, match=message):
            small("ab", **{"max_new_tokens": 6, "num_beams": 2, **arguments})


def test_a_network_with_an_adapter_or_a_hook_is_asked_itself(letters):
    """The lean step reads weights; what is put around them would be passed over."""

    class Adapter(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.weight, self.bias = inner, inner.weight, inner.bias

        def forward(self, x):
            return 2 * self.inner(x)

    model = network("gpt2", letters)
    for block in model.transformer.h:
        block.attn.c_attn = Adapter(block.attn.c_attn)
    pipe = GPTPipeline(model=model, tokenizer=letters, device="cpu")
    assert decoder_for(model) is AnyDecoder
    assert pipe("gfe abc", 12, temperature=0)["token_ids"] == greedy_by_transformers(pipe, "gfe abc", 12)
    hooked = network("gpt2", letters)
    hooked.transformer.h[0].register_forward_hook(lambda module, inputs, output: None)
    assert decoder_for(hooked) is AnyDecoder


def test_call_and_callback_see_the_steps_of_the_stream(small):
    seen = []
    found = small("ab", 7, generator=seeded(5), callback_on_step_end=lambda pipe, step, state: seen.append(state))
    steps = list(small.stream("ab", 7, generator=seeded(5)))
    assert [s.token_ids for s in steps] == [s.token_ids for s in seen]
    assert steps[-1].texts == [found["continuation"]]


def test_the_arguments_of_transformers_are_taken(small):
    draw = functools.partial(small, "ab", 6)
    assert draw(do_sample=False)["token_ids"] == draw(temperature=0)["token_ids"]
    assert draw(do_sample=True, generator=seeded(1)) == draw(generator=seeded(1))
    more = draw(return_full_text=False, generator=seeded(1))
    assert more["generated_text"] == more["continuation"] == draw(generator=seeded(1))["continuation"]
    several = draw(num_return_sequences=3, generator=[seeded(n) for n in (1, 2, 3)])
    ids = [[row["token_ids"] for row in rows] for rows in (several, [draw(generator=seeded(n)) for n in (1, 2, 3)])]
    assert ids[0] == ids[1]
    assert [len(rows) for rows in small(["ab", "c"], 2, num_return_sequences=2)] == [2, 2]
    prompts, numbers = ["ab", "c", "abc"], (4, 5, 6)
    together = small(prompts, 6, generator=[seeded(n) for n in numbers])
    parts = small(prompts, 6, generator=[seeded(n) for n in numbers], batch_size=2)
    assert [row["token_ids"] for row in parts] == [row["token_ids"] for row in together]
    assert small(prompts, 2, num_beams=2, do_sample=False) == small(prompts, 2, num_beams=2)

    class Collected(BaseStreamer):
        def __init__(self):
            self.rows, self.ended = [], False

        def put(self, value):
            self.rows.append(value.flatten().tolist())

        def end(self):
            self.ended = True

    streamer = Collected()
    ids = draw(generator=seeded(1), streamer=streamer)["token_ids"]
    assert streamer.ended and streamer.rows == [small.encode("ab"), *([token] for token in ids)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_sample": "no"}, "do_sample is 'no'; it must be True or False"),
        ({"do_sample": True, "temperature": 0}, "do_sample is True, but temperature 0 takes the likeliest"),
        ({"do_sample": True, "num_beams": 2}, "do_sample is True, but num_beams 2 searches for the likeliest"),
        ({"do_sample": False, "temperature": 0.5}, "do_sample is False, but temperature is 0.5"),
        ({"return_full_text": None}, "return_full_text is None"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"streamer": print}, "streamer got a builtin_function_or_method; it must be one of transformers' streamers"),
        ({"generator": [seeded(1), seeded(2)]}, "generator holds 2 generators for 1 prompts"),
    ],
)
def test_a_wrong_argument_of_the_call_is_named(small, arguments, message):
    with pytest.raises(ValueError, match=message):
        small("ab", 2, **arguments)


def test_half_precision_stays_close(letters):
    model = network("gpt2", letters)
    reference = GPTPipeline(model=model, tokenizer=letters, device="cpu").log_prob("abcdefg").item()
    half = GPTPipeline(model=model.to(torch.bfloat16), tokenizer=letters, device="cpu")
    assert half.log_prob("abcdefg").item() == pytest.approx(reference, rel=0.05)
    assert len(half("ab", 5)["token_ids"]) == 5


# Text


def test_bytes_go_there_and_back(letters):
    tokenizer = train_tokenizer(["the cat sat on the mat, the cat sat"] * 3, "bpe", 270, CONTEXT)
    pipe = GPTPipeline(model=network("gpt2", tokenizer, begins=True), tokenizer=tokenizer, device="cpu")
    for text in ("the cat", "naïve 🌳\n  x", "<|endoftext|> is text here"):
        ids = pipe.encode(text)
        assert ids[0] == pipe.bos_token_id and pipe.bos_token_id not in ids[1:]
        assert pipe.decode(ids) == text
    parts = [pipe.token_text(i) for i in pipe.encode("🌳")[1:]]
    assert parts == ["<F0>", "<9F>", "<8C>", "<B3>"]
    assert [pipe.writes(i) for i in (pipe.bos_token_id, pipe.encode("🌳")[1], pipe.encode("the")[1])] == [
        False,
        False,
        True,
    ]
    first = GPTPipeline(model=network("gpt2", tokenizer), tokenizer=tokenizer, device="cpu").score("🌳")
    assert first.num_bytes == len(first.log_probs) == 3  # the first byte is given
    assert pipe.score("é").num_bytes == 2 and len(pipe.score("é").log_probs) == 2


def test_prompts_show_none_one_or_several_examples():
    build = GPTPipeline.build_prompt
    assert build("2 + 2?") == "Q: 2 + 2?\nA:"
    assert build("2 + 2?", [("1 + 1?", "2")]) == "Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA:"
    chain = build("2 + 2?", [("1 + 1?", "One and one more are two.", "2")], "Add.")
    assert chain == "Add.\n\nQ: 1 + 1?\nA: One and one more are two. The answer is 2.\n\nQ: 2 + 2?\nA:"
    assert build("2 + 2?", step_by_step=True).endswith("A: Let's think step by step.")
    assert build("cat", [("dog", "dogs")], template=("", "→ ")) == "dog\n→ dogs\n\ncat\n→"
    with pytest.raises(ValueError, match=r"examples holds \('a',\)"):
        build("x", [("a",)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ""}, "prompt is empty; this model has no token that begins a text"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": 3}, "prompt is a int; it must be a text"),
        ({"prompts": "abcé"}, "prompt holds 'é', which is not in this model's vocabulary of 10 tokens"),
        ({"temperature": -1}, "temperature is -1; it must be 0 .* or more"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0; it must be an integer of at least 1"),
        ({"top_p": 0}, r"top_p is 0; it must lie in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p is 1.1"),
        ({"min_p": -0.1}, r"min_p is -0.1; it must lie in \[0, 1\]"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"overflow": "crash"}, "overflow is 'crash'; it must be 'slide' or 'error'"),
        ({"generator": [seeded(0), seeded(1)]}, "generator holds 2 generators for 1 prompts"),
        ({"stop_strings": [""]}, "stop_strings holds an empty text"),
        ({"generator": 0}, "generator is 0; it must be a torch.Generator"),
    ],
)
def test_calls_name_the_argument_that_is_wrong(small, arguments, message):
    values = {"prompts": "ab", **arguments}
    prompts = [values.pop("prompts")] if values["prompts"] == 3 else values.pop("prompts")
    with pytest.raises(ValueError, match=message):
        small(prompts, **values)


def test_scores_name_the_argument_that_is_wrong(small):
    for call, message in (
        (lambda: small.score("a"), "there is no token to score after the first"),
        (lambda: small.score(""), "there is no token to score"),
        (lambda: small.score("abc", stride=0), "stride is 0; it must be an integer from 1 to 24"),
        (lambda: small.score("abcX"), "text holds 'X'"),
        (lambda: small.score("a" * 40, overflow="error"), "the text has 39 tokens; this model sees 24"),
        (lambda: small.tree("a", 0, 2), "depth is 0"),
        (lambda: small.tree("a", 12, 9), "must be at most 4096"),
        (lambda: small.next_token("a", temperature=-0.5), "temperature is -0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="tokenizer is missing"):
        GPTPipeline(model=small.model)
