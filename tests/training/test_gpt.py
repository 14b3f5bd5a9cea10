"""The language recipe: its corpora, tokenizers and windows, its loop, and what is published and measured of a run."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, pipeline

from tests.conftest import ROOT, run_here, run_module
from tests.training.test_hub import running_hub
from tests.training.test_publish import alone
from training.data import tokens
from training.data.batches import training_batches
from training.data.documents import TextOptions, load_documents
from training.data.text import held_out_texts, load_text, packed_positions
from training.data.tokens import TokenSplit
from training.language import gpt
from training.options import UsageError, parse

SHORT = ("--max_steps", "8", "--width", "16", "--num_layers", "1", "--num_heads", "2", "--context_length", "16",
         "--batch_size", "8", "--vocab_size", "300", "--architecture", "gpt2", "--log_every", "2", "--save_every", "4", "--eval_every", "4",
         "--sample_every", "8", "--lr_warmup_steps", "2")  # fmt: skip


def corpus(folder: Path, count: int = 2_000, name: str = "book.txt") -> Path:
    """A file of made-up words."""
    generator = torch.Generator().manual_seed(0)
    words = ["tree", "river", "stone", "bird", "sings", "falls", "grows", "the", "a", "old", "and", "slowly.\n"]
    file = folder / name
    file.write_text(" ".join(words[i] for i in torch.randint(len(words), (count,), generator=generator).tolist()))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run on a file of words."""
    folder = tmp_path_factory.mktemp("language")
    gpt.main(["--dataset", str(corpus(folder)), "--output_dir", str(folder / "tiny"), *SHORT])
    return folder / "tiny"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# Corpora


def test_python_docs_are_embedded_and_held_out_text_is_in_no_training_text():
    documents = load_documents(TextOptions())
    training = "\n\n".join(documents.train)
    assert len(training) > 100_000 and len(documents.test) == len(documents.train) > 10
    held_out = [p for t in documents.test for p in t.split("\n\n")[1:-1] if len(p) > 200]
    again = [p for p in held_out if p in training]
    assert len(held_out) > 20 and len(again) <= 0.02 * len(held_out), again


def test_shakespeare_is_cut_at_nine_tenths(tmp_path):
    place = corpus(tmp_path, name="input.txt")
    options = TextOptions(dataset="tiny_shakespeare", data_dir=str(tmp_path))
    documents = load_documents(options)
    assert documents.train[0] + documents.validation[0] == place.read_text()
    assert len(documents.train[0]) == int(0.9 * len(place.read_text())) and documents.test == documents.validation
    found = held_out_texts(options)
    assert (found.dataset_id, found.split, found.texts) == ("tiny Shakespeare", "validation", documents.validation)


def test_a_cut_document_ends_where_a_text_can_end(tmp_path):
    text = "\n\n".join(f"Paragraph {i} has a sentence. And another." for i in range(100))
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(text)
    documents = load_documents(TextOptions(dataset=str(tmp_path)))
    for train, validation, test in zip(documents.train, documents.validation, documents.test, strict=True):
        assert train + validation + test == text
        assert train.endswith("another.\n\n") and validation.endswith("another.\n\n")
        assert len(validation) == pytest.approx(0.1 * len(text), rel=0.2)
        assert len(test) == pytest.approx(0.1 * len(text), rel=0.3)
    docs = load_documents(TextOptions())
    assert all(piece[-1].isspace() for piece in docs.train + docs.validation)


def test_folders_of_text_keep_their_splits_and_a_readme_is_no_corpus(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(250):
            (tmp_path / split / f"{i}.txt").write_text(f"{split} document {i}")
    documents = load_documents(TextOptions(dataset=str(tmp_path)))
    assert len(documents.test) == 250 and all(t.startswith("test") for t in documents.test)
    assert documents.validation and all(t.startswith("train") for t in documents.train + documents.validation)
    (tmp_path / "tables").mkdir()
    rows = "\n".join(json.dumps({"text": f"row {i} of a table"}) for i in range(30))
    (tmp_path / "tables" / "corpus.jsonl").write_text(rows)
    (tmp_path / "tables" / "README.md").write_text("# About this set")
    for place in (tmp_path / "tables", tmp_path / "tables" / "corpus.jsonl"):
        documents = load_documents(TextOptions(dataset=str(place)))
        assert len(documents.train) == 30 and all(t.startswith("row") for t in documents.train)


def test_of_many_documents_whole_ones_are_held_out(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"document {i} " * 5)
    documents = load_documents(TextOptions(dataset=str(tmp_path)))
    parts = [set(documents.train), set(documents.validation), set(documents.test)]
    assert sum(map(len, parts)) == 300 == len(set.union(*parts)) and all(parts)
    assert 10 < len(parts[2]) < 60


def test_hub_sets_keep_the_splits_that_they_bring(tmp_path):
    from datasets import Dataset

    for split, count in (("train", 250), ("test", 7)):
        rows = {"text": [f"{split} number {i}, with words" for i in range(count)]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}-0.parquet")
    documents = load_documents(TextOptions(dataset=str(tmp_path)))
    assert len(documents.test) == 7 and all(t.startswith("test") for t in documents.test)
    assert documents.validation and len(documents.train) + len(documents.validation) == 250
    with pytest.raises(UsageError, match="--text_column is body; the set has text"):
        load_documents(TextOptions(dataset=str(tmp_path), text_column="body"))


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"caf\xe9 is not UTF-8", (), r"book.txt: byte 0xe9 at 3 is not UTF-8"),
        (b"   \n", (), "holds no text"),
        (b"too short", (), "--context_length is 128; the training text has"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, words, message):
    (tmp_path / "book.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_text(parse(gpt.GPTOptions, ["--dataset", str(tmp_path / "book.txt"), *words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--width", "30"), "--width is 30; it must be a multiple of --num_heads, 4"),
        (("--vocab_size", "100"), "--vocab_size is 100; it must be at least 257"),
        (("--dataset", "./nowhere"), "nowhere: there is no such file or folder"),
        (("--dataset", "nobody/nothing"), "--dataset nobody/nothing: cannot be read"),
        (("--data_dir", "x"), "--data_dir x: python_docs is embedded"),
        (("--streaming", "true"), "--streaming true: python_docs is embedded"),
        (("--architecture", "llama", "--dropout", "0.1"), "--dropout is 0.1; a llama has none"),
        (("--width", "6", "--num_heads", "2"), "--width is 6; for a llama it must be an even number times --num_heads"),
        (("--dataset", "tiny_shakespeare", "--data_dir", "pipelines"), "--data_dir pipelines: holds 0 text files"),
        (("--init_from", "nowhere/at-all"), "--init_from nowhere/at-all: neither a folder nor a repository on the Hub"),
        (("--packing", "tight"), "--packing"),
    ],
)
def test_bad_options_are_one_line(tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        gpt.main(["--output_dir", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()


def test_the_command_line_ends_with_2(tmp_path):
    done = run_module("training.language.gpt", "--output_dir", tmp_path / "run", "--width", "30")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: --width is 30; it must be a multiple of --num_heads, 4"]


# Tokens and windows


def test_tokenizers_give_back_every_text_and_are_the_same_in_every_process(tmp_path):
    texts = [corpus(tmp_path).read_text(), "naïve 🌳"]
    code = (
        "import sys, hashlib; from training.data.tokens import train_tokenizer as t; "
        "print(hashlib.sha256(t([open(sys.argv[1]).read()], 'bpe', 400, 16).backend_tokenizer.to_str().encode()).hexdigest())"
    )
    line = [sys.executable, "-c", code, tmp_path / "book.txt"]
    assert len({subprocess.run(line, cwd=ROOT, capture_output=True, check=True).stdout for _ in range(2)}) == 1
    for kind in ("bpe", "characters"):
        made = tokens.train_tokenizer(texts, kind, 400, 16)
        for one in texts:
            assert made.decode(tokens.encode(made, [one], False)) == one
        assert made.eos_token_id == len(made) - 1 and made.padding_side == "left"
    assert len(tokens.train_tokenizer(texts, "bpe", 300, 16)) == 300


def test_windows_hold_each_token_with_all_its_neighbours():
    tokens = torch.arange(50, dtype=torch.int32)
    train, held_out = TokenSplit(tokens, 8, 1), TokenSplit(tokens, 8, 8)
    assert len(train) == 42 and train.__getitems__([0, 41])["tokens"].tolist() == [list(range(9)), list(range(41, 50))]
    rows = held_out.__getitems__(range(len(held_out)))["tokens"]
    assert rows[:, 1:].flatten().tolist() == list(range(1, 49))  # each token predicted once
    assert len(TokenSplit(tokens[:8], 8, 1)) == 0


def test_the_first_tokens_alone_are_trained_on(tmp_path):
    options = TextOptions(dataset=str(corpus(tmp_path)), context_length=16, max_train_tokens=100, vocab_size=300)
    assert len(load_text(options).train) == 84 and len(load_text(options).validation) > 0


def test_documents_are_parted_by_the_end_of_text(tmp_path):
    (tmp_path / "a.txt").write_text("one two three " * 30)
    (tmp_path / "b.txt").write_text("four five six " * 30)
    source = load_text(TextOptions(dataset=str(tmp_path), context_length=8))
    assert source.separated and (source.train.tokens == source.tokenizer.eos_token_id).sum() == 3
    alone = load_text(TextOptions(dataset=str(corpus(tmp_path / "..", name="alone.txt")), context_length=8))
    assert not alone.separated and not (alone.train.tokens == alone.tokenizer.eos_token_id).any()


def test_a_prepared_window_says_what_is_read_and_what_follows(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} two three " * 30)
    for packing in ("stream", "documents"):
        source = load_text(TextOptions(dataset=str(tmp_path), context_length=8, packing=packing))
        batch = source.train.__getitems__([0, 5])
        assert batch.keys() == {"tokens"} and batch["tokens"].shape == (2, 9)
        prepared = source.prepare(batch, gpt.SPEC)
        assert prepared["input_ids"].shape == prepared["labels"].shape == (2, 8)
        assert torch.equal(prepared["input_ids"][:, 1:], prepared["labels"][:, :-1])  # each label is the next token
        assert ("position_ids" in prepared) == (packing == "documents")
        described = source.describe()
        assert (described["reader"], described["held_out"], source.units_per_row) == ("text", "held-out text", 8)
    (tmp_path / "b.txt").unlink()
    alone = load_text(TextOptions(dataset=str(tmp_path), context_length=8, packing="documents"))
    assert "position_ids" not in alone.prepare(alone.train.__getitems__([0]), gpt.SPEC)  # one document is not parted


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other_where_that_is_asked(attention):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=None,
                        eos_token_id=None, attn_implementation=attention)  # fmt: skip
    model, end = GPT2LMHeadModel(config).eval(), 19
    window = torch.tensor([[19, 3, 4, 5, 19, 6, 7, 8, 9, 19, 2, 1]])
    positions = packed_positions(window, end)
    assert positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2]]
    whole = model(input_ids=window, position_ids=positions, use_cache=False).logits[0]
    for begin, stop in ((0, 4), (4, 9), (9, 12)):
        alone = model(input_ids=window[:, begin:stop], use_cache=False).logits[0]
        torch.testing.assert_close(whole[begin:stop], alone, atol=1e-5, rtol=1e-5)
    together = model(input_ids=window, use_cache=False).logits[0]
    assert (together[5:] - whole[5:]).abs().max() > 1e-3  # a stream reads on across the mark


def test_the_loss_is_that_of_transformers():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=12, n_embd=16, n_layer=2, n_head=2)).eval()
    x = torch.randint(20, (3, 12))
    loss = gpt.next_token_loss(model, {"input_ids": x[:, :-1], "labels": x[:, 1:]})
    torch.testing.assert_close(loss, model(input_ids=x, labels=x).loss)


def test_streams_are_split_by_process_and_pack_all_they_read(tmp_path):
    for i in range(400):
        (tmp_path / f"{i:03}.txt").write_text(f"document {i} has words of its own")
    options = TextOptions(dataset=str(tmp_path), context_length=8, streaming=True)
    source = load_text(options)
    end, found = source.tokenizer.eos_token_id, []
    for rank in range(2):
        rows = [row["tokens"] for row in source.train.share(rank, 2)]
        tokens = [int(t) for row in rows for t in row[1:]]
        found.append({source.tokenizer.decode(d) for d in _between(tokens, end)})
    assert found[0] and found[1] and not found[0] & found[1]
    batch = next(training_batches(source.train, 4, 0, 0, 0, 1))
    assert batch.keys() == {"tokens"} and batch["tokens"].shape == (4, 9) and batch["tokens"].dtype == torch.int64
    held = held_out_texts(options)
    assert held.dataset_id == tmp_path.name and held.texts and not set(held.texts) & (found[0] | found[1])


def test_a_stream_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "book.txt").write_bytes(b"words and words\n\n" * 50 + b"caf\xe9")
    with pytest.raises(UsageError, match="byte 0xe9 in the text is not UTF-8"):
        load_text(TextOptions(dataset=str(tmp_path / "book.txt"), context_length=8, streaming=True))


def _between(tokens: list[int], end: int) -> list[tuple[int, ...]]:
    """The whole documents in a row of tokens."""
    places = [i for i, t in enumerate(tokens) if t == end]
    return [tuple(tokens[a + 1 : b]) for a, b in itertools.pairwise(places)]


# The loop


def test_a_run_leaves_what_transformers_loads_by_itself(run):
    record = json.loads((run / "run.json").read_text())
    assert (record["family"], record["status"], record["step"]) == ("gpt", "finished", 8)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    assert type(model) is GPT2LMHeadModel and record["parameters"] == sum(p.numel() for p in model.parameters())
    ids = tokenizer("the old tree", return_tensors="pt")
    assert model(**ids).logits.shape[-1] == len(tokenizer) == model.config.vocab_size
    assert (run / "samples.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {"loss", "bits_per_byte", "tokens_per_second"} <= lines[0].keys()
    assert any("validation_bits_per_byte" in line for line in lines)


def test_training_learns_the_words(tmp_path):
    words = (*SHORT, "--max_steps", "150", "--learning_rate", "0.01", "--eval_every", "50", "--packing", "documents")
    gpt.main(["--dataset", str(corpus(tmp_path)), "--output_dir", str(tmp_path / "run"), *words])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    curve = [line["validation"] for line in lines if "validation" in line]
    assert curve[-1] < curve[0] - 0.2


def test_a_text_too_short_to_hold_anything_out_trains_all_the_same(tmp_path):
    words = [*SHORT, "--context_length", "128", "--tokenizer", "characters"]
    gpt.main(["--dataset", str(corpus(tmp_path, 100)), "--output_dir", str(tmp_path / "run"), *words])
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "validation" not in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_resumed_it_ends_with_the_very_weights_of_an_unbroken_run(tmp_path, architecture):
    words = ["--dataset", str(corpus(tmp_path)), *SHORT, "--architecture", architecture, "--export", "last"]
    for name in ("whole", "broken"):
        gpt.main(["--output_dir", str(tmp_path / name), *words])
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step-00000008")
    (tmp_path / "broken" / "model.safetensors").unlink()
    gpt.main(["--output_dir", str(tmp_path / "broken"), *words, "--resume", "true"])
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_accumulation_equals_a_larger_batch(tmp_path):
    words = ["--dataset", str(corpus(tmp_path)), *SHORT, "--ema_decay", "0", "--export", "last"]
    gpt.main(["--output_dir", str(tmp_path / "one"), *words])
    gpt.main([
        "--output_dir", str(tmp_path / "eight"), *words, "--batch_size", "1", "--gradient_accumulation_steps", "8"
    ])  # fmt: skip
    left, right = weights(tmp_path / "one"), weights(tmp_path / "eight")
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=2e-4, rtol=1e-3)


def test_init_from_goes_on_with_weights_and_tokenizer(run, tmp_path):
    words = [*SHORT, "--max_steps", "1", "--learning_rate", "1e-9", "--weight_decay", "0", "--lr_warmup_steps", "0"]
    gpt.main(
        ["--dataset", str(corpus(tmp_path)), "--output_dir", str(tmp_path / "run"), "--init_from", str(run), *words]
    )
    left, right = weights(run), weights(tmp_path / "run")
    assert all((left[k] - right[k]).abs().max() < 1e-6 for k in left)
    assert (tmp_path / "run" / "tokenizer.json").read_text() == (run / "tokenizer.json").read_text()
    with pytest.raises(UsageError, match="--context_length is 17; that model sees 16 tokens at most"):
        gpt.main(["--dataset", str(corpus(tmp_path)), "--output_dir", str(tmp_path / "b"), "--init_from", str(run),
                  *SHORT, "--context_length", "17"])  # fmt: skip


# Publishing and measuring

SCORE = """
import sys, json
from transformers import pipeline
pipe = pipeline(model=sys.argv[1], trust_remote_code=True)
print(json.dumps([type(pipe).__module__, pipe.score("the old tree grows").log_prob,
                  pipe("the", 6, temperature=0)["token_ids"]]))
"""


def test_the_published_folder_loads_where_nothing_of_ours_is(run, tmp_path):
    done = run_here("training.publish", run, "--to", tmp_path / "tiny")
    assert done.returncode == 0, done.stderr
    files = {p.name for p in (tmp_path / "tiny").iterdir()}
    (code,) = (name for name in files if name.endswith(".py"))
    assert (
        code.startswith("pipeline_gpt_") and {"config.json", "model.safetensors", "tokenizer.json", "README.md"} < files
    )
    there = subprocess.run(
        [sys.executable, "-I", "-c", SCORE, tmp_path / "tiny"], cwd=tmp_path, capture_output=True, text=True
    )
    assert there.returncode == 0, there.stderr
    module, log_prob, tokens = json.loads(there.stdout.splitlines()[-1])
    assert module.startswith("transformers_modules.") and module.endswith(code.removesuffix(".py"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    here = gpt.GPTPipeline(model=model, tokenizer=tokenizer, device="cpu")
    assert here.score("the old tree grows").log_prob == pytest.approx(log_prob, abs=1e-5)
    assert here("the", 6, temperature=0)["token_ids"] == tokens
    plain = pipeline("text-generation", model=str(tmp_path / "tiny"))("the", max_new_tokens=6, do_sample=False)
    assert plain[0]["generated_text"] == here("the", 6, temperature=0)["generated_text"]
    text = (tmp_path / "tiny" / "README.md").read_text()
    assert "pipeline_tag: text-generation" in text and "AutoModelForCausalLM" in text and code in text


def test_a_checkpoint_in_half_precision_loads_in_single_and_is_built_again(run, tmp_path):
    for line in (
        (run, "--checkpoint", tmp_path / "kept", "--dtype", "float16"),
        (tmp_path / "kept", "--to", tmp_path / "built"),
        (tmp_path / "built", "--to", tmp_path / "again"),  # as one who downloaded it would
    ):
        done = run_here("training.publish", *line)
        assert done.returncode == 0, done.stderr
    assert all(v.dtype == torch.float16 for v in weights(tmp_path / "kept").values())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "built").dtype == torch.float32
    assert not list((tmp_path / "kept").rglob("*.py"))
    names = sorted(p.name for p in (tmp_path / "built").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir())
    for name in set(names) - {"README.md"}:  # which calls the model by its folder
        assert (tmp_path / "built" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "kept" / "run.json").read_text()
    (tmp_path / "kept" / "tokenizer.json").unlink()
    refused = run_here("training.publish", tmp_path / "kept", "--to", tmp_path / "other")
    assert refused.returncode == 2 and "there is no tokenizer.json in it" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_a_run_is_evaluated_by_windows(run, tmp_path):
    book = corpus(tmp_path)
    done = run_here("training.evaluate", run, "--dataset", book, "--stride", "4", "--to", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found" / "results.json").read_text())
    pipe = gpt.GPTPipeline(
        model=AutoModelForCausalLM.from_pretrained(run), tokenizer=AutoTokenizer.from_pretrained(run), device="cpu"
    )
    texts = held_out_texts(TextOptions(dataset=str(book))).texts
    score = pipe.score(texts[0], stride=4)
    assert found["nats_per_token"] == pytest.approx(-score.log_prob / len(score.log_probs), abs=1e-3)
    assert found["bits_per_byte"] == pytest.approx(score.bits_per_byte, abs=1e-3)
    assert found["context_length"] == 16 and found["stride"] == 4 and "4 apart" in found["convention"]
    assert found["likelihood"] == "exact" and found["tokens_per_second"]["16"] > 0
    assert found["nats_per_token_standard_error"] > 0
    refused = run_here("training.evaluate", run, "--dataset", book, "--stride", "40")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "--stride is 40; it must lie between 1 and the context length, 16" in refused.stderr


SCORE_BY_ID = """
    import json, sys
    from transformers import pipeline
    pipe = pipeline(model=sys.argv[1], trust_remote_code=True)
    json.dump(pipe.score("the old tree grows").log_probs.tolist(), open(sys.argv[2], "w"))
"""


def test_it_loads_from_the_hub_by_its_id_and_then_offline(run, tmp_path):
    with running_hub() as hub:
        environment = hub.environment(tmp_path / "home")
        done = run_module("training.publish", run, "--repo_id", "user/tiny-gpt", env=environment)
        assert done.returncode == 0, done.stderr
        assert {"config.json", "model.safetensors", "tokenizer.json"} < set(hub.files("model/user/tiny-gpt"))
        fresh = hub.environment(tmp_path / "fresh", None)
        alone(SCORE_BY_ID, "user/tiny-gpt", tmp_path / "online.json", home=tmp_path / "fresh", **fresh)
        fetch = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])"  # hf download
        alone(fetch, "user/tiny-gpt", home=tmp_path / "other", **hub.environment(tmp_path / "other", None))
    for home in ("fresh", "other"):  # what a load has fetched is enough, and so is what hf download fetches
        words = {"home": tmp_path / home, "HF_HUB_OFFLINE": "1"}
        alone(SCORE_BY_ID, "user/tiny-gpt", tmp_path / f"{home}.json", **words)
    found = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("online", "fresh", "other")]
    here = gpt.GPTPipeline(
        model=AutoModelForCausalLM.from_pretrained(run), tokenizer=AutoTokenizer.from_pretrained(run), device="cpu"
    )
    assert found == [pytest.approx(here.score("the old tree grows").log_probs.tolist(), abs=1e-5)] * 3
