"""Vectors of a data set on disk, as feature_cache.py has computed them: read, and known to be what was written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rmlab.files import stamp
from rmlab.messages import first_line


@dataclass(frozen=True)
class Features:
    """Vectors of a data set on disk: those of its n-th comparison are [offsets[n], offsets[n + 1])."""

    vectors: Tensor  # (N, d), a memory map
    offsets: list[int]
    per_token: bool
    places: dict[int, int]  # n by `index`: sets may come in another order than they are numbered in

    def of(self, index: int) -> Tensor:
        """(K, d) or (T, d) of one comparison."""
        n = self.places[index]
        return self.vectors[self.offsets[n] : self.offsets[n + 1]]

    def add_to(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A transform for data sets: rows of token trees with their vectors."""
        if "index" in rows and "suffixes" in rows:
            column = "token_vectors" if self.per_token else "response_vectors"
            rows[column] = [self.of(index) for index in rows["index"]]
        return rows


def damage_of(place: Path) -> str | None:
    """What is wrong with the vectors kept at a place, or that there are none; None: nothing."""
    try:
        about = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        return None if stamp(place.with_suffix(".bin")) == about["stamp"] else "it is not what was written"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return first_line(error)


def forget(place: Path) -> None:
    """Remove what is kept at a place."""
    for suffix in (".json", ".bin"):
        place.with_suffix(suffix).unlink(missing_ok=True)


def load(place: Path, trees: Dataset) -> Features:
    """The vectors of a numbered data set as a memory map."""
    about = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    count, width = about["shape"]
    flat = torch.from_file(str(place.with_suffix(".bin")), False, count * width, dtype=getattr(torch, about["dtype"]))
    places = {index: n for n, index in enumerate(trees["index"])}
    return Features(flat.view(count, width), about["offsets"], about["per_token"], places)
