"""Text: windows of tokens of documents, and the tokenizer that made them.

A corpus is a list of documents, cut into training, validation and test. A tokenizer is trained on the training part.
What a network reads are windows of `context_length + 1` tokens of all documents packed into one long row:

    <|endoftext|> document <|endoftext|> document <|endoftext|>

so that no place in a batch is empty; a corpus of one document has no such marks. A training window may begin at any
token; held-out windows follow each other. A corpus larger than memory is streamed (`--streaming true`): each process
reads its own documents and packs them as they come.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from training.data.documents import TextOptions, load_documents, stream_parts, streamed_texts
from training.data.report import Report, fingerprint
from training.data.source import Source, warn_of_empty_splits
from training.data.splits import Batch
from training.data.tokens import UNKNOWN, TokenSplit, TokenStream, encode, load_tokenizer, train_tokenizer
from training.options import UsageError, check

MOST_WINDOWS = 20_000_000  # their order has to be drawn: a training window begins every few tokens where there are more
TOKENIZER_BYTES = 20_000_000  # of a stream, that its tokenizer is trained on
STREAM_TEST_DOCUMENTS = 1_000
TOKENS_AT_ONCE, LOGITS_AT_ONCE = 8_192, 2**25  # of held-out windows, that fit into memory together


@dataclass
class TextSource(Source):
    """Windows of three splits, {"tokens": (B, T + 1) int64}, and the tokenizer that made them.

    Attributes:
        separated: whether documents are parted by the end-of-text token.
        bytes_per_token: of held-out text, to turn nats per token into bits per byte.
        packing: "documents" where attention and positions begin anew at each document of a window.
    """

    tokenizer: object = None
    context_length: int = 0
    separated: bool = True
    bytes_per_token: float = 1.0
    packing: str = "stream"
    reader: ClassVar[str] = "text"
    held_out: str = "held-out text"

    def __post_init__(self):
        self.units_per_row = self.context_length
        tokens = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // len(self.tokenizer))
        self.rows_at_once = max(1, tokens // self.context_length)

    def prepare(self, batch: Batch, spec: dict, generator: torch.Generator | None = None) -> Batch:
        """{"input_ids", "labels"}, (B, T) each: what is read, and the token that follows each place.

        Where documents of a window do not see each other, also "position_ids" (B, T), which begin anew at each.
        """
        inputs, labels = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        prepared = {"input_ids": inputs, "labels": labels}
        if self.packing == "documents" and self.separated:
            prepared["position_ids"] = packed_positions(inputs, self.tokenizer.eos_token_id)
        return prepared


def packed_positions(tokens: Tensor, end: int) -> Tensor:
    """Positions (B, T) that begin anew at each end-of-text token; transformers keeps attention within such runs."""
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begins = torch.where(tokens == end, places, 0).cummax(1).values
    return places - begins


def load_text(options: TextOptions) -> TextSource:
    """The corpus that the options name, as windows of tokens; with --init_from, by that model's tokenizer.

    Raises:
        UsageError: as of `load_documents`; fewer tokens than one window.
    """
    if options.streaming:
        return _streamed(options)
    documents, context = load_documents(options), options.context_length
    separated = max(len(documents.train), len(documents.test)) > 1
    parts = {split: getattr(documents, split) for split in ("train", "validation", "test")}
    everything = [text for texts in parts.values() for text in texts]
    # a letter that only held-out text has would be in no vocabulary; pairs of bytes are learnt from the training text
    tokenizer = _tokenizer(everything if options.tokenizer == "characters" else documents.train, options)
    rows = {}
    for split, texts in parts.items():
        if split == "test" and not documents.has_test:
            rows[split] = rows["validation"]
            continue
        rows[split] = torch.tensor(encode(tokenizer, texts, separated) if texts else [], dtype=torch.int32)
    train = rows["train"][: options.max_train_tokens]
    if len(train) <= context:
        raise UsageError(
            f"--context_length is {context}; the training text has {len(train)} tokens, so it must be at most "
            f"{max(len(train) - 1, 1)}, or the corpus larger"
        )
    stride = 1 + (len(train) - context - 1) // MOST_WINDOWS
    report, size = (
        documents.report,
        sum(map(len, everything if documents.has_test else [*parts["train"], *parts["test"]])),
    )
    report.found.append(
        f"{max(map(len, parts.values()))} documents, {size} letters; {len(train)} tokens to train on, "
        f"{len(tokenizer)} in the vocabulary"
    )
    source = TextSource(
        name=options.dataset,
        dataset_id=documents.dataset_id,
        report=report,
        fingerprint=fingerprint(text.encode() for text in everything),
        licence=documents.licence,
        url=documents.url,
        language=documents.language,
        context_length=context,
        packing=options.packing,
        tokenizer=tokenizer,
        separated=separated,
        bytes_per_token=_bytes(documents.validation or documents.train) / max(1, len(rows["validation"]) or len(train)),
        train=TokenSplit(train, context, stride),
        validation=TokenSplit(rows["validation"], context, context),
        test=TokenSplit(rows["test"], context, context),
    )
    warn_of_empty_splits(source)
    return source


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _tokenizer(texts: list[str], options: TextOptions, unknown: bool = False):
    if getattr(options, "init_from", None):
        return load_tokenizer(options.init_from)
    return train_tokenizer(texts, options.tokenizer, options.vocab_size, options.context_length, unknown)


def _streamed(options: TextOptions) -> TextSource:
    """Documents as they come; the tokenizer is trained on the first of them."""
    if options.max_train_tokens:
        raise UsageError(
            f"--max_train_tokens is {options.max_train_tokens}: a stream has no first tokens; leave it out"
        )
    report = Report()
    parts, first, size = stream_parts(options, report), [], 0
    for text in streamed_texts(parts["train"], options):
        first.append(text)
        size += len(text)
        if size > TOKENIZER_BYTES:
            break
    if not first:
        raise UsageError(f"--dataset {options.dataset}: holds no text")
    report.found.append("a stream: what it holds is not counted, and texts of nothing are passed over")
    if options.tokenizer == "characters":
        report.found.append(
            f"the vocabulary is of the letters of the first {len(first)} texts; any other is read as {UNKNOWN}"
        )
    tokenizer = _tokenizer(first, options, unknown=True)
    end = tokenizer.eos_token_id

    def ids(text: str) -> list[int]:
        return [*encode(tokenizer, [text], False), end]

    place, some = Path(options.dataset), first[:100]
    return TextSource(
        name=options.dataset,
        dataset_id=place.name if place.exists() else options.dataset,
        report=report,
        context_length=options.context_length,
        packing=options.packing,
        tokenizer=tokenizer,
        separated=True,
        bytes_per_token=_bytes(some) / sum(len(ids(text)) for text in some),
        **{
            name: TokenStream(rows, options.text_column, ids, keep, options.context_length)
            for name, (rows, keep) in parts.items()
        },
    )


# Measuring


@dataclass
class HeldOutTexts:
    """Documents to measure a model on.

    Attributes:
        split: "test", or "validation" where there is no test split.
        kind: of the data, as `DataSource` has it.
    """

    dataset_id: str
    split: str
    texts: list[str]
    kind: ClassVar[str] = "text"


def held_out(dataset: str, data_dir: str | None, trained: dict, same_set: bool) -> HeldOutTexts:
    """The documents to measure a model on; arguments as of `training.data.images.held_out`.

    Raises:
        UsageError: there are none.
    """
    # a set that was streamed is cut by its paragraphs: read otherwise, held-out text would be training text
    known = ("subset", "text_column", "streaming") if same_set else ("streaming",)
    options = TextOptions(dataset, data_dir, **{n: trained[n] for n in known if n in trained})
    check(options)  # a run.json may hold anything
    return held_out_texts(options)


def held_out_texts(options: TextOptions) -> HeldOutTexts:
    """The documents of the test split, or of the validation split where there is no other.

    Raises:
        UsageError: there are none.
    """
    if options.streaming:
        place = Path(options.data_dir or options.dataset)
        name, split = place.name if place.exists() else options.dataset, "test"
        texts = list(itertools.islice(streamed_texts(stream_parts(options)["test"], options), STREAM_TEST_DOCUMENTS))
    else:
        documents = load_documents(options)
        name, texts = documents.dataset_id, [text for text in documents.test if text.strip()]
        split = "test" if documents.has_test else "validation"
    if not texts:
        raise UsageError(f"--dataset {options.dataset}: holds no text to measure on")
    return HeldOutTexts(name, split, texts)


# William Shakespeare, Hamlet: public domain
KEPT_TEXT = """To be, or not to be: that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles,
And by opposing end them."""


def kept_rows(dataset: str) -> tuple[HeldOutTexts, dict]:
    """A passage that is kept with the project, whatever a model was trained on."""
    return HeldOutTexts("a passage of Hamlet", "test", [KEPT_TEXT]), {"texts": [KEPT_TEXT]}
