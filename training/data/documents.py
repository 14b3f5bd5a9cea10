"""Documents: a corpus in memory or streamed, cut into training, validation and test."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from training.data.local import by_split, check_table, delimiter_of, files_within, lines_of
from training.data.report import Report
from training.data.splits import TEST_SHARE, VALIDATION_SHARE, content_fraction
from training.options import UsageError, one_line, option

FEW_DOCUMENTS = 200  # up to so many, each is cut, at a paragraph; of more, whole ones are held out
HELD_OUT = 0.1  # of a document that is cut: the last tenth is for testing, the one before for validation
TABLES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}  # ending -> reader of `datasets`
SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


@dataclass
class TextOptions:
    """What to read, and how."""

    GROUP: ClassVar[str] = "data"

    dataset: str = option(
        "python_docs", "python_docs, tiny_shakespeare, a Hub id, or a local text file or folder of text"
    )
    data_dir: str | None = option(
        None, "local copy of the named data set: a text file or a folder", may_change_on_resume=True
    )
    subset: str | None = option(None, "configuration of a Hub data set that has several, like wikitext-2-raw-v1")
    text_column: str = option("text", "column of a Hub data set that holds the text")
    streaming: bool = option(False, "read documents as they are needed, and store nothing")
    tokenizer: str = option(
        "bpe",
        "train a byte-level byte-pair encoding, or take one token for each character",
        choices=("bpe", "characters"),
    )
    vocab_size: int = option(2_048, "size of the vocabulary that bpe is trained to", least=257)
    context_length: int = option(
        128, "length of the training windows in tokens, which is as far as the network sees", least=2
    )
    packing: str = option(
        "stream",
        "stream: a window reads on across the end of a document; documents: attention and positions begin anew at each document",
        choices=("stream", "documents"),
    )
    max_train_tokens: int | None = option(
        None, "number of training tokens to train on, the first ones; all by default", least=3
    )


@dataclass
class Documents:
    """Texts of three splits.

    Attributes:
        licence: of the texts, where it is known.
        url: their page, where they are no set of the Hub.
        language: theirs, as two letters, where it is known.
        has_test: False where the validation split has to serve as the test split too.
        report: what was found and what was left out.
    """

    dataset_id: str
    train: list[str]
    validation: list[str]
    test: list[str]
    has_test: bool = True
    licence: str | None = None
    url: str | None = None
    language: str | None = None
    report: Report = field(default_factory=Report)


def load_documents(options: TextOptions) -> Documents:
    """The corpus that the options name, in memory.

    Raises:
        UsageError: no such file, bytes that are no text, no such column, nothing in it.
    """
    name = options.dataset
    if name == "python_docs":
        if options.data_dir:
            raise UsageError(f"--data_dir {options.data_dir}: python_docs is embedded, there is nothing to read")
        found = _cut("Python documentation", _python_docs(), licence="PSF License Version 2")
        return replace(found, url="https://docs.python.org/3/", language="en")
    if name == "tiny_shakespeare":
        text = _shakespeare(Path(options.data_dir), options) if options.data_dir else _fetch(SHAKESPEARE)
        cut = int(0.9 * len(text))  # as everyone cuts it; there is no third part
        page = "https://github.com/karpathy/char-rnn"
        return Documents(
            "tiny Shakespeare", [text[:cut]], [text[cut:]], [text[cut:]], False, "public domain", page, "en"
        )
    place, report = Path(options.data_dir or name), Report()
    files = _text_files(place, options, report)
    if files:
        texts = {split: [_read(file) for file in found] for split, found in _by_split(files, place).items()}
        return _parts(place.name, texts, report)
    if not _exists(place) and (options.data_dir or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UsageError(f"{_named(options)} {place}: there is no such file or folder")
    tables = _through_datasets(options, report)
    validation = _check_splits(name, tables)
    known = ("train", "test", validation)
    report.leave_out("splits", [split for split in tables if split not in known])
    texts = {split: _column(table, split, options, report) for split, table in tables.items() if split in known}
    return _parts(place.name if place.exists() else name, texts, report)


def _check_splits(name: str, splits: dict) -> str | None:
    """What a set calls its validation split; None where it has none.

    Raises:
        UsageError: it has no training split.
    """
    if "train" not in splits:
        raise UsageError(f"--dataset {name}: has no split called train; it has {', '.join(splits)}")
    return next((k for k in ("validation", "valid", "val") if k in splits), None)


def _parts(name: str, texts: dict[str, list[str]], report: Report) -> Documents:
    """Splits that a set brings stay; the others are cut from the training texts."""
    validation = texts.get(_check_splits(name, texts))
    cut = _cut(name, texts["train"], validation is None, "test" not in texts)
    validation = cut.validation if validation is None else validation
    found = Documents(name, cut.train, validation, texts.get("test", cut.test), report=report)
    empty = sum(not text.strip() for split in texts.values() for text in split)
    if empty:
        report.found.append(f"{empty} texts hold nothing, and count for nothing")
    return found


def _cut(
    dataset_id: str, texts: list[str], validate: bool = True, test: bool = True, licence: str | None = None
) -> Documents:
    """Few documents are cut, each at the same places; of many, some are held out, told by their content."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UsageError(f"--dataset {dataset_id}: holds no text")
    found = Documents(dataset_id, [], [], [], licence=licence)
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


def _named(options: TextOptions) -> str:
    return "--data_dir" if options.data_dir else "--dataset"


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _ending(file: Path) -> str:
    return file.suffix.lower()


def _text_files(place: Path, options: TextOptions, report: Report) -> list[Path]:
    """A text file, or those of a folder; none where it holds tables, whose README is no corpus."""
    if not _exists(place):
        return []
    if place.is_file():
        return [] if _ending(place) in TABLES else [place]
    if not place.is_dir():
        raise UsageError(f"{_named(options)} {place}: is no regular file; it must be one, or a folder")
    files = files_within(place, _named(options), report)
    if any(_ending(p) in TABLES for p in files):
        return []
    texts = [p for p in files if _ending(p) in (".txt", ".md")]
    about = [p for p in texts if re.match(r"(readme|licen[cs]e)([-_.]|$)", p.stem.lower())]
    _leave_out(report, f"files that are not {' or '.join((*TABLES, '.txt', '.md'))}", set(files) - set(texts), place)
    _leave_out(report, "files about the corpus", about, place)
    return [p for p in texts if p not in about]


def _leave_out(report: Report, why: str, files, place: Path) -> None:
    report.leave_out(why, sorted(file.relative_to(place) for file in files))


def _table_files(place: Path, options: TextOptions, report: Report) -> tuple[str, list[Path]]:
    """The reader of `datasets` and its files, of a table or of a folder of them; what lies beside them is not read."""
    if place.is_dir():
        if options.subset is not None and not (place / options.subset).is_dir():
            raise UsageError(f"--subset {options.subset}: {place} holds no folder of this name")
        there = files_within(place / (options.subset or ""), _named(options))
        files = [p for p in there if _ending(p) in TABLES]
        _leave_out(report, "files beside the tables", set(there) - set(files), place)
    else:
        files = [place]
    if not files:
        raise UsageError(f"{_named(options)} {place}: holds no text, and no tables of {', '.join(TABLES)}")
    counts = Counter(TABLES[_ending(p)] for p in files)
    reader = "parquet" if counts["parquet"] else counts.most_common(1)[0][0]
    others = [p for p in files if TABLES[_ending(p)] != reader]
    _leave_out(report, f"tables beside those of {reader}", others, place)
    files = [p for p in files if p not in others]
    for file in files:
        check_table(file)
    return reader, files


def _by_split(files: list[Path], place: Path) -> dict[str, list[Path]]:
    return by_split(files, place) if place.is_dir() else {"train": files}


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _shakespeare(place: Path, options: TextOptions) -> str:
    files = _text_files(place, options, Report())
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
        raise UsageError(
            f"{address}: cannot be fetched ({one_line(error, 200)}); give --data_dir with a local copy"
        ) from None


def _through_datasets(options: TextOptions, report: Report, streaming: bool = False) -> dict:
    from datasets import load_dataset

    files, more = [], {}
    place, name = Path(options.data_dir or options.dataset), options.data_dir or options.dataset
    if _exists(place):
        files = _text_files(place, options, report)
        if files:
            name, more = "text", {"sample_by": "paragraph"}
            for file in files:
                next(lines_of(file), None)  # an archive would be unpacked, whatever it grows to
        else:
            name, files = _table_files(place, options, report)
            if name == "csv":
                more["sep"] = _delimiter(files)
        more["data_files"] = {k: [str(file) for file in v] for k, v in _by_split(files, place).items()}
    else:
        more["name"] = options.subset
    try:
        return dict(load_dataset(name, streaming=streaming, **more))
    except Exception as error:  # what is raised depends on the library that meets the trouble first
        why = f"{type(error).__name__}: {one_line(error, 200)}"
        raise UsageError(f"--dataset {options.dataset}: cannot be read, {why}") from None


def _delimiter(files: list[Path]) -> str:
    found = {delimiter_of(file): file for file in files}
    if len(found) > 1:
        raise UsageError(f"{', '.join(map(str, found.values()))}: have their cells parted by {' and by '.join(found)}")
    return next(iter(found))


def _column(table, split: str, options: TextOptions, report: Report) -> list[str]:
    if options.text_column not in table.column_names:
        raise UsageError(f"--text_column is {options.text_column}; the set has {', '.join(table.column_names)}")
    texts = [
        text_of(text, f"row {row} of {split}", options.text_column)
        for row, text in enumerate(table[options.text_column])
    ]
    empty = [f"row {row} of {split}" for row, text in enumerate(texts) if not text.strip()]
    report.leave_out(f"rows whose {options.text_column} is empty", empty)
    return [text for text in texts if text.strip()]


def text_of(value, where: str, column: str) -> str:
    """A cell that must be text, or nothing.

    Raises:
        UsageError: it is not.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f"--text_column {column}: {where} holds {value!r:.100}; it must be text")
    return value


# Streams


def decoded_rows(rows) -> Iterator[dict]:
    """Streamed rows; what cannot be decoded shows only on the way."""
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--streaming true: byte 0x{error.object[error.start]:02x} in the text is not UTF-8; save the files as UTF-8"
        ) from None


@dataclass
class DocumentsWithin:
    """Whether a document's content falls into [low, high)."""

    low: float
    high: float

    def __call__(self, text: str) -> bool:
        return self.low <= content_fraction(text.encode()) < self.high


def stream_parts(options: TextOptions, report: Report | None = None) -> dict[str, tuple]:
    """For each split the rows that are read, and which of their documents belong to it."""
    if options.dataset == "python_docs":
        raise UsageError("--streaming true: python_docs is embedded; leave it out")
    tables = _through_datasets(options, report or Report(), streaming=True)
    validation = tables.get(_check_splits(options.dataset, tables))
    test = TEST_SHARE if "test" not in tables else 0.0
    held = test + (VALIDATION_SHARE if validation is None else 0.0)
    own = tables["train"]
    return {
        "train": (own, DocumentsWithin(held, 1.0)),
        "validation": (own, DocumentsWithin(test, held))
        if validation is None
        else (validation, DocumentsWithin(0.0, 1.0)),
        "test": (tables["test"], DocumentsWithin(0.0, 1.0)) if "test" in tables else (own, DocumentsWithin(0.0, test)),
    }


def streamed_texts(part: tuple, options: TextOptions) -> Iterator[str]:
    """A streamed split's documents."""
    rows, keep = part
    for row in decoded_rows(rows):
        if options.text_column not in row:
            raise UsageError(f"--text_column is {options.text_column}; the set has {', '.join(row)}")
        text = row[options.text_column]
        if (text := text_of(text, "a row", options.text_column)) and keep(text):
            yield text
