"""Text: documents, a tokenizer, and windows of tokens.

A corpus is a list of documents, cut into training, validation and test. A tokenizer is trained on the training part.
What a network reads are windows of `context_length + 1` tokens of all documents packed into one long row:

    <|endoftext|> document <|endoftext|> document <|endoftext|>

so that no place in a batch is empty; a corpus of one document has no such marks. A training window may begin at any
token; held-out windows follow each other. A corpus larger than memory is streamed (`--streaming true`): each process
reads its own documents and packs them as they come.
"""

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data import TEST_SHARE, VALIDATION_SHARE, StreamSplit, content_fraction, split_of
from training.options import UsageError, option

END = "<|endoftext|>"
FEW_DOCUMENTS = 200  # up to so many, each is cut, at a paragraph; of more, whole ones are held out
HELD_OUT = 0.1  # of a document that is cut: the last tenth is for testing, the one before for validation
TABLES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}  # ending -> reader of `datasets`
SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MOST_WINDOWS = 20_000_000  # their order has to be drawn: a training window begins every few tokens where there are more
TOKENIZER_BYTES = 20_000_000  # of a stream, that its tokenizer is trained on
STREAM_TEST_DOCUMENTS = 1_000


@dataclass
class TextOptions:
    """What to read, and how."""

    dataset: str = option(
        "python_docs", "python_docs, tiny_shakespeare, a Hub id, or a local text file or folder of text"
    )
    data_dir: str | None = option(None, "a local copy of the named set", may_change_on_resume=True)
    subset: str | None = option(None, "of a Hub set that has several, like wikitext-2-raw-v1")
    text_column: str = option("text", "the column of a Hub set that holds the text")
    streaming: bool = option(False, "read documents as they are needed instead of storing the set")
    tokenizer: str = option(
        "bpe", "byte-level byte-pair encoding, or one token a character", choices=("bpe", "characters")
    )
    vocab_size: int = option(2_048, "tokens of bpe", least=257)
    context_length: int = option(128, "tokens that the network sees at once", least=2)
    packing: str = option(
        "stream",
        "stream: a window reads on across the end of a document; documents: attention and positions begin anew at each",
        choices=("stream", "documents"),
    )
    max_train_tokens: int | None = option(None, "train on the first so many tokens only", least=3)


@dataclass
class Documents:
    """Texts of three splits.

    Attributes:
        has_test: False where the validation split has to serve as the test split too.
    """

    dataset_id: str
    train: list[str]
    validation: list[str]
    test: list[str]
    has_test: bool = True


@dataclass
class TextSource:
    """Windows of three splits, and the tokenizer that made them.

    Attributes:
        separated: whether documents are parted by the end-of-text token.
        bytes_per_token: of held-out text, to turn nats per token into bits per byte.
    """

    name: str
    dataset_id: str
    shape: tuple[int]
    tokenizer: object
    separated: bool
    bytes_per_token: float
    train: Dataset
    validation: Dataset
    test: Dataset
    kind: str = "text"
    class_names: tuple = ()

    @property
    def unit(self) -> tuple[str, int]:
        """What speed is counted in, and how many of them a window holds."""
        return "tokens", self.shape[0]

    @property
    def rows_at_once(self) -> int:
        """Windows whose logits, and what led to them, fit into memory together."""
        tokens = min(8_192, 2**25 // len(self.tokenizer))
        return max(1, tokens // self.shape[0])


class TokenSplit(Dataset):
    """Windows of `context_length + 1` of the tokens (N,), one beginning at each multiple of `stride`."""

    def __init__(self, tokens: Tensor, context_length: int, stride: int):
        self.tokens, self.stride, self.window = tokens, stride, torch.arange(context_length + 1)

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - len(self.window)) // self.stride + 1)

    def __getitems__(self, indices) -> tuple[Tensor, None]:
        begins = torch.as_tensor(indices) * self.stride
        return self.tokens[begins[:, None] + self.window].long(), None


class TokenStream(StreamSplit):
    """Windows packed from streamed documents that `keep` accepts; a shuffled window of documents, cut by process."""

    def __init__(self, rows, column: str, encode, keep, context_length: int):
        super().__init__(rows, column, None, encode, keep)
        self.context_length = context_length

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        buffer: list[int] = []
        size = self.context_length + 1
        for row in _readable(self.rows):
            text = row[self.image_column]
            if not text or not self.keep(text):
                continue
            buffer += self.decode(text)
            while len(buffer) >= size:
                yield torch.tensor(buffer[:size]), None
                del buffer[: size - 1]  # the last token is the next window's first: it has only been a target


def _readable(rows) -> Iterator[dict]:
    """Streamed rows; what cannot be decoded shows only on the way."""
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--streaming true: byte 0x{error.object[error.start]:02x} in the text is not UTF-8; save the files as UTF-8"
        ) from None


# Documents


def load_documents(options: TextOptions) -> Documents:
    """The corpus that the options name, in memory.

    Raises:
        UsageError: no such file, bytes that are no text, no such column, nothing in it.
    """
    name = options.dataset
    if name == "python_docs":
        if options.data_dir:
            raise UsageError(f"--data_dir {options.data_dir}: python_docs is embedded, there is nothing to read")
        return _cut("Python documentation", _python_docs())
    if name == "tiny_shakespeare":
        text = _shakespeare(Path(options.data_dir)) if options.data_dir else _fetch(SHAKESPEARE)
        cut = int(0.9 * len(text))  # as everyone cuts it; there is no third part
        return Documents("tiny Shakespeare", [text[:cut]], [text[cut:]], [text[cut:]], has_test=False)
    place = Path(options.data_dir or name)
    files = _text_files(place)
    if files:
        return _parts(place.name, {k: [_read(file) for file in v] for k, v in _by_split(files, place).items()})
    if not place.exists() and (options.data_dir or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UsageError(f"--{'data_dir' if options.data_dir else 'dataset'} {place}: there is no such file or folder")
    tables = _through_datasets(options)
    texts = {split: _column(table, options) for split, table in tables.items()}
    return _parts(place.name if place.exists() else name, texts)


def _parts(name: str, texts: dict[str, list[str]]) -> Documents:
    """Splits that a set brings stay; the others are cut from the training texts."""
    if "train" not in texts:
        raise UsageError(f"--dataset {name}: has no split called train; it has {', '.join(texts)}")
    validation = next((texts[k] for k in ("validation", "valid", "val") if k in texts), None)
    cut = _cut(name, texts["train"], validation is None, "test" not in texts)
    return Documents(name, cut.train, cut.validation if validation is None else validation, texts.get("test", cut.test))


def _cut(dataset_id: str, texts: list[str], validate: bool = True, test: bool = True) -> Documents:
    """Few documents are cut, each at the same places; of many, some are held out, told by their content."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UsageError(f"--dataset {dataset_id}: holds no text")
    found = Documents(dataset_id, [], [], [])
    tested = TEST_SHARE if test else 0.0
    validated = tested + (VALIDATION_SHARE if validate else 0.0)
    for text in texts:
        if len(texts) <= FEW_DOCUMENTS:
            second = _paragraph(text, 1 - HELD_OUT * test)
            first = _paragraph(text[:second], 1 - HELD_OUT * validate / (1 - HELD_OUT * test))
            for part, piece in zip(
                (found.train, found.validation, found.test),
                (text[:first], text[first:second], text[second:]),
                strict=True,
            ):
                if piece.strip():
                    part.append(piece)
            continue
        where = content_fraction(text.encode())
        (found.test if where < tested else found.validation if where < validated else found.train).append(text)
    return found


def _paragraph(text: str, share: float) -> int:
    """Where to cut a text so that about this share comes before: at a paragraph if one ends near, or at a line.

    An end-of-text token follows each piece, and it should stand where a text can end.
    """
    if share >= 1:
        return len(text)
    wanted = int(share * len(text))
    for mark in ("\n\n", "\n", " "):
        place = text.rfind(mark, int(0.9 * wanted), wanted)
        if place >= 0:
            return place + len(mark)
    return wanted


def _python_docs() -> list[str]:
    """The texts behind Python's `help("topic")`: the language reference's prose, which comes with Python.

    Some topics are sections of others; they are left out, or held-out text would have been read in training.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UsageError("--dataset python_docs: this Python has no pydoc_data.topics; give another set") from None
    seen, kept = set(), []
    for text in sorted(topics.values(), key=lambda t: (-len(t), t)):
        paragraphs = [p.strip() for p in text.split("\n\n") if len(p.strip()) > 60]
        again = sum(len(p) for p in paragraphs if p in seen)
        if 2 * again <= sum(map(len, paragraphs)):
            kept.append(text)
            seen.update(paragraphs)
    return kept


def _text_files(place: Path) -> list[Path]:
    """A text file, or those of a folder; none where it holds tables, whose README is no corpus."""
    if place.is_file():
        return [] if place.suffix in TABLES else [place]
    files = [p for p in sorted(place.rglob("*")) if p.is_file()] if place.is_dir() else []
    if any(p.suffix in TABLES for p in files):
        return []
    about = ("readme", "license", "licence")
    return [p for p in files if p.suffix in (".txt", ".md") and not p.stem.lower().startswith(about)]


def _by_split(files: list[Path], place: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(split_of(file.relative_to(place)) if place.is_dir() else "train", []).append(file)
    return found


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _shakespeare(place: Path) -> str:
    files = _text_files(place)
    if len(files) != 1:
        raise UsageError(
            f"--data_dir {place}: holds {len(files)} text files; it must hold input.txt, or be a text file"
        )
    return _read(files[0])


def _fetch(address: str) -> str:
    from datasets import load_dataset

    try:
        return load_dataset("text", data_files={"train": address}, sample_by="document", split="train")["text"][0]
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{address}: cannot be fetched ({why}); give --data_dir with a local copy") from None


def _through_datasets(options: TextOptions, streaming: bool = False) -> dict:
    from datasets import load_dataset

    files, more = [], {}
    place, name = Path(options.data_dir or options.dataset), options.data_dir or options.dataset
    if place.exists():
        found = _text_files(place)
        if found:
            files, more = found, {"sample_by": "paragraph"}
            name = "text"
        elif place.is_file():
            name, files = TABLES[place.suffix], [place]
    if files:
        more["data_files"] = {k: [str(file) for file in v] for k, v in _by_split(files, place).items()}
    else:
        more["name"] = options.subset
    try:
        return dict(load_dataset(name, streaming=streaming, **more))
    except Exception as error:  # what is raised depends on the library that meets the trouble first
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"--dataset {options.dataset}: cannot be read, {type(error).__name__}: {why}") from None


def _column(table, options: TextOptions) -> list[str]:
    if options.text_column not in table.column_names:
        raise UsageError(f"--text_column is {options.text_column}; the set has {', '.join(table.column_names)}")
    return [text for text in table[options.text_column] if text and text.strip()]


# Tokens


def train_tokenizer(texts: list[str], kind: str, vocab_size: int, context_length: int):
    """A `PreTrainedTokenizerFast` for these texts.

    Args:
        kind: "bpe", of bytes (Radford et al., 2019), or "characters": those of the texts, in order.
        vocab_size: of bpe, with the end-of-text token; fewer where the texts have no more pairs.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "characters":
        letters = sorted(set().union(*texts))
        # the unknown is deliberately in no vocabulary: a letter that was never read is an error, and not a token
        made = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<|unknown|>"))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        made.decoder = decoders.Fuse()
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1, min_frequency=2, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
        made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=END, pad_token=END, padding_side="left", model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode(tokenizer, texts: list[str], separated: bool) -> array:
    """Documents as one row of tokens, the end-of-text token before, between and after them where they are separated.

    Raises:
        UsageError: a character that the vocabulary lacks.
    """
    row = array("i", [tokenizer.eos_token_id] if separated else [])  # four bytes a token, where a list has more than 40
    for first in range(0, len(texts), 1_000):
        some = texts[first : first + 1_000]
        try:
            found = tokenizer(
                some, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
            )
        except Exception as error:
            if "[UNK]" not in str(error):
                raise
            known = tokenizer.get_vocab()
            letter = next((c for text in some for c in text if c not in known), "")
            raise UsageError(
                f"{letter!r} is in a text, but not in the tokenizer's vocabulary of characters; a --tokenizer of bpe "
                "knows every character"
            ) from None
        for ids in found["input_ids"]:
            row.extend(ids)
            if separated:
                row.append(tokenizer.eos_token_id)
    return row


def load_text(options: TextOptions) -> TextSource:
    """The corpus that the options name, as windows of tokens; with --init_from, by that model's tokenizer.

    Raises:
        UsageError: as of `load_documents`; fewer tokens than one window.
    """
    if options.streaming:
        return _streamed(options)
    documents, context = load_documents(options), options.context_length
    separated = max(len(documents.train), len(documents.test)) > 1
    tokenizer = _tokenizer(documents.train, options)
    rows = {}
    for split in ("train", "validation", "test"):
        texts = getattr(documents, split)
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
    return TextSource(
        name=options.dataset,
        dataset_id=documents.dataset_id,
        shape=(context,),
        tokenizer=tokenizer,
        separated=separated,
        bytes_per_token=_bytes(documents.validation or documents.train) / max(1, len(rows["validation"]) or len(train)),
        train=TokenSplit(train, context, stride),
        validation=TokenSplit(rows["validation"], context, context),
        test=TokenSplit(rows["test"], context, context),
    )


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _tokenizer(texts: list[str], options: TextOptions):
    if getattr(options, "init_from", None):
        return load_tokenizer(options.init_from)
    return train_tokenizer(texts, options.tokenizer, options.vocab_size, options.context_length)


def load_tokenizer(source: str):
    """Of a run, a checkpoint or a Hub repository.

    Raises:
        UsageError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"--init_from {source}: holds no tokenizer ({why})") from None
    if tokenizer.eos_token_id is None:
        raise UsageError(f"--init_from {source}: its tokenizer has no end-of-text token")
    return tokenizer


@dataclass
class _Within:
    """Whether a document's content falls into [low, high)."""

    low: float
    high: float

    def __call__(self, text: str) -> bool:
        return self.low <= content_fraction(text.encode()) < self.high


def _stream_parts(options: TextOptions) -> dict[str, tuple]:
    """For each split the rows that are read, and which of their documents belong to it."""
    if options.dataset == "python_docs":
        raise UsageError("--streaming true: python_docs is embedded; leave it out")
    tables = _through_datasets(options, streaming=True)
    if "train" not in tables:
        raise UsageError(f"--dataset {options.dataset}: has no split called train; it has {', '.join(tables)}")
    validation = next((tables[k] for k in ("validation", "valid", "val") if k in tables), None)
    test = TEST_SHARE if "test" not in tables else 0.0
    held = test + (VALIDATION_SHARE if validation is None else 0.0)
    own = tables["train"]
    return {
        "train": (own, _Within(held, 1.0)),
        "validation": (own, _Within(test, held)) if validation is None else (validation, _Within(0.0, 1.0)),
        "test": (tables["test"], _Within(0.0, 1.0)) if "test" in tables else (own, _Within(0.0, test)),
    }


def _texts(part: tuple, options: TextOptions) -> Iterator[str]:
    """A streamed split's documents."""
    rows, keep = part
    for row in _readable(rows):
        if options.text_column not in row:
            raise UsageError(f"--text_column is {options.text_column}; the set has {', '.join(row)}")
        text = row[options.text_column]
        if text and keep(text):
            yield text


def _streamed(options: TextOptions) -> TextSource:
    """Documents as they come; the tokenizer is trained on the first of them."""
    if options.max_train_tokens:
        raise UsageError(
            f"--max_train_tokens is {options.max_train_tokens}: a stream has no first tokens; leave it out"
        )
    parts, first, size = _stream_parts(options), [], 0
    for text in _texts(parts["train"], options):
        first.append(text)
        size += len(text)
        if size > TOKENIZER_BYTES:
            break
    if not first:
        raise UsageError(f"--dataset {options.dataset}: holds no text")
    tokenizer = _tokenizer(first, options)
    end = tokenizer.eos_token_id

    def ids(text: str) -> list[int]:
        return [*encode(tokenizer, [text], False), end]

    place, some = Path(options.dataset), first[:100]
    return TextSource(
        name=options.dataset,
        dataset_id=place.name if place.exists() else options.dataset,
        shape=(options.context_length,),
        tokenizer=tokenizer,
        separated=True,
        bytes_per_token=_bytes(some) / sum(len(ids(text)) for text in some),
        **{
            name: TokenStream(rows, options.text_column, ids, keep, options.context_length)
            for name, (rows, keep) in parts.items()
        },
    )


def held_out_texts(options: TextOptions) -> tuple[str, str, list[str]]:
    """What a model is measured on: the set's name, which split, and its documents.

    Raises:
        UsageError: there are none.
    """
    split = "test"
    if options.streaming:
        place = Path(options.data_dir or options.dataset)
        name = place.name if place.exists() else options.dataset
        texts = list(itertools.islice(_texts(_stream_parts(options)["test"], options), STREAM_TEST_DOCUMENTS))
    else:
        documents = load_documents(options)
        name, texts = documents.dataset_id, [text for text in documents.test if text.strip()]
        split = "test" if documents.has_test else "validation"
    if not texts:
        raise UsageError(f"--dataset {options.dataset}: holds no text to measure on")
    return name, split, texts
