"""Batches: training batches without end, a split in order, and the seeds that both are drawn from."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from training.data.splits import ArraySplit, Batch, LazySplit, StreamSplit
from training.options import UsageError

PERMUTATION_SALT = 0x5EED


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed from several integers, well mixed, the same everywhere."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def num_rows(batch: Batch) -> int:
    """How many rows a batch holds."""
    return len(next(iter(batch.values())))


def to_device(batch: Batch, device) -> Batch:
    """Every tensor of a batch on a device."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def check_batch_size(split, batch_size: int, world: int) -> None:
    """Raise a `UsageError` if one batch of all processes is larger than the split; a stream's length is not known."""
    if not isinstance(split, StreamSplit) and batch_size * world > len(split):
        raise UsageError(
            f"--batch_size is {batch_size}; it must be at most {len(split) // world} for this training set"
        )


def training_batches(
    split, batch_size: int, seed: int, first: int, rank: int, world: int, workers: int = 0
) -> Iterator[Batch]:
    """Training batches without end, from batch number `first` on: this process's share of each.

    The order of epoch e is a permutation that seed and e determine, so a resumed run continues where it was. Batches
    are whole: an epoch's remainder is left out of that epoch.

    Raises:
        UsageError: if one batch of all processes is larger than the split.
    """
    if isinstance(split, StreamSplit):
        yield from _streamed(split.share(rank, world), batch_size, seed)
    check_batch_size(split, batch_size, world)
    whole = batch_size * world
    per_epoch = len(split) // whole

    class Order:
        def __iter__(self):
            number = first
            while True:
                epoch, start = divmod(number, per_epoch)
                if start == 0 or number == first:
                    generator = torch.Generator().manual_seed(derive_seed(PERMUTATION_SALT, seed, epoch))
                    order = torch.randperm(len(split), generator=generator)
                begin = start * whole + rank * batch_size
                yield order[begin : begin + batch_size]
                number += 1

    loader = DataLoader(
        split,
        batch_sampler=Order(),
        collate_fn=_as_is,
        num_workers=workers if isinstance(split, LazySplit) else 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: a loader that starts would otherwise draw from the step's noise
    )
    try:
        yield from loader
    except UsageError as error:  # of a worker it comes with its traceback
        raise UsageError(str(error).rpartition("UsageError: ")[2]) from None


def _streamed(split: StreamSplit, batch_size: int, seed: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        found = False
        for batch in DataLoader(split.shuffled(seed, epoch), batch_size=batch_size, drop_last=True, collate_fn=_stack):
            found = True
            yield batch
        if not found:
            raise UsageError(f"--batch_size is {batch_size}, more than one process's share of the streamed set")
        epoch += 1


def _as_is(batch: Batch) -> Batch:
    return batch


def _stack(rows: list[Batch]) -> Batch:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def batches_in_order(split, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """A split once, from its beginning, at most `limit` rows: for measuring."""
    if isinstance(split, StreamSplit):
        done = 0
        for batch in DataLoader(split, batch_size=batch_size, collate_fn=_stack):
            yield batch
            done += batch_size
            if limit is not None and done >= limit:
                return
        return
    total = len(split) if limit is None else min(limit, len(split))
    for start in range(0, total, batch_size):
        yield split.__getitems__(torch.arange(start, min(start + batch_size, total)))


def materialise(split: StreamSplit, rows: int) -> ArraySplit:
    """The first rows of a stream, in memory: what is measured again and again is fetched once."""
    found = list(batches_in_order(split, 500, rows))
    if not found:
        return ArraySplit({"x": torch.empty(0)})
    return ArraySplit({name: torch.cat([batch[name] for batch in found]) for name in found[0]})


def random_subset(x: Tensor, class_labels: Tensor | None, count: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most `count` of the rows, drawn at random: the first ones of own images are of the first class."""
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]
    return x[some], None if class_labels is None else class_labels[some]
