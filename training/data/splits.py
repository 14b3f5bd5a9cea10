"""Splits: rows by index, or in a stream. A batch is a dict of named tensors, a row a dict of tensors without batch axis.

- `ArraySplit`: columns in memory, the normal case for small images, points and tokens;
- `LazySplit`: a memory-mapped table, made into tensors by the batch;
- `StreamSplit`: nothing stored; rows come in order, each process its own share.

Which rows belong to which split is decided by their content alone, see `content_fraction`.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

Batch = dict[str, Tensor]
SPLIT_SALT = b"genus split 1"  # changing it would move rows between training and test
VALIDATION_SHARE, TEST_SHARE = 1 / 30, 1 / 10  # of the rows, where a set brings no such split of its own


class ArraySplit(Dataset):
    """Columns in memory: tensors (N, ...) by name; those that are None are left out."""

    def __init__(self, columns: dict[str, Tensor | None]):
        self.columns = {name: column for name, column in columns.items() if column is not None}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitems__(self, indices) -> Batch:
        indices = torch.as_tensor(indices)
        return {name: column[indices] for name, column in self.columns.items()}


class LazySplit(Dataset):
    """A memory-mapped `datasets.Dataset`; `to_batch` makes tensors of its rows, a dict of lists, and of their numbers."""

    def __init__(self, table, to_batch: Callable[[dict, list[int]], Batch]):
        self.table, self.to_batch = table, to_batch

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, indices) -> Batch:
        numbers = [int(i) for i in indices]
        return self.to_batch(self.table[numbers], numbers)


class StreamSplit(IterableDataset):
    """Rows of a streamed set that `keep` accepts, in a shuffled window; `share` cuts it by process.

    Args:
        rows: a `datasets.IterableDataset`.
        to_row: makes tensors of a row.
        keep: whether a row, still as it is stored, belongs to this split.
    """

    def __init__(self, rows, to_row: Callable[[dict], Batch], keep: Callable[[dict], bool]):
        self.rows, self.to_row, self.keep = rows, to_row, keep

    def share(self, rank: int, world: int) -> "StreamSplit":
        """The rows of one of `world` processes."""
        from datasets.distributed import split_dataset_by_node

        return self._of(split_dataset_by_node(self.rows, rank=rank, world_size=world))

    def shuffled(self, seed: int, epoch: int) -> "StreamSplit":
        """The same rows in the order of an epoch, shuffled within a window of 2 000."""
        rows = self.rows.shuffle(seed=seed, buffer_size=2_000)
        rows.set_epoch(epoch)
        return self._of(rows)

    def _of(self, rows) -> "StreamSplit":
        other = copy.copy(self)
        other.rows = rows
        return other

    def __iter__(self) -> Iterator[Batch]:
        for row in self.rows:
            if self.keep(row):
                yield self.to_row(row)


def content_hash(content: bytes) -> int:
    """8 bytes that a stored row's bytes alone determine."""
    return int.from_bytes(hashlib.blake2b(SPLIT_SALT + content, digest_size=8).digest(), "little")


def content_fraction(content: bytes) -> float:
    """A number in [0, 1) that a stored row's bytes alone determine: what decides its split.

    Equal files land in the same split, adding images moves no other, and no seed, resolution or way of reading
    (memory, memory-mapped, streamed) changes it.
    """
    return content_hash(content) / 2**64


def split_masks(where: np.ndarray, test: float, validation: float) -> list[np.ndarray]:
    """Which rows are for training, validation and test; a share of 0 gives none."""
    return [where >= test + validation, (where >= test) & (where < test + validation), where < test]


def cut_arrays(
    columns: dict[str, np.ndarray | None], where: np.ndarray, test: float, validation: float
) -> list[ArraySplit]:
    """Training, validation and test splits of arrays."""
    masks = split_masks(where, test, validation)
    present = {name: column for name, column in columns.items() if column is not None}
    return [ArraySplit({name: torch.from_numpy(column[m]) for name, column in present.items()}) for m in masks]
