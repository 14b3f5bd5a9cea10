"""Two-dimensional sets, made by formulas: the same points on every machine."""

import numpy as np
import torch

from training.data.source import DataSource
from training.data.splits import ArraySplit
from training.data.toy_points import TOYS


def toy(name: str) -> DataSource:
    """20 000 points for training, 2 000 for validation and 10 000 for testing."""
    splits, classes = [], 0
    for seed, count in ((0, 20_000), (1, 2_000), (2, 10_000)):
        x, label = TOYS[name](count, np.random.default_rng(seed))
        labels = None if label is None else torch.from_numpy(label.astype(np.int64))
        classes = 0 if labels is None else int(labels.max()) + 1
        splits.append(ArraySplit({"x": torch.from_numpy(x.astype(np.float32)), "class_labels": labels}))
    names = [str(c) for c in range(classes)]
    return DataSource(
        name, f"toy {name}", *splits, licence="none, they are computed", class_names=names, kind="vector", shape=(2,)
    )
