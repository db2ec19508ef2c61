"""What the trainings share: the audio of a corpus by role, and what they leave behind."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from encoders.bundle import write_meta
from encoders.corpus import Item, PcmCache
from encoders.cost import Cost
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec
from encoders.levels import LevelInput

N_CALIBRATION = 512
"""Windows that set the ranges of the 8-bit networks."""

DecodeProgress = Callable[[int, int], None]
Announce = Callable[[Cost], None]


def require_training() -> None:
    """Fail with a sentence where the ``train`` extra is not installed."""
    for package in ("tensorflow", "pyroomacoustics"):
        if importlib.util.find_spec(package) is None:
            raise EarmarkError(f"training needs {package}: pip install 'earmark[train]'")


@dataclasses.dataclass(frozen=True)
class Caches:
    """Decoded audio by role, of one split."""

    music: PcmCache
    speech: PcmCache
    noise: PcmCache
    event: PcmCache

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        split: str,
        folder: Path,
        spec: FeatureSpec,
        progress: DecodeProgress | None = None,
    ) -> Caches:
        """Decode every role of ``split`` (once: the cache in ``folder`` is kept)."""
        by_role = {
            field.name: PcmCache.build(
                [i for i in items if i.role == field.name and i.split == split],
                folder,
                spec.sample_rate,
                progress,
            )
            for field in dataclasses.fields(cls)
        }
        caches = cls(**by_role)
        if not len(caches.music):
            raise EarmarkError(f"the corpus has no music that can be decoded in split {split!r}")
        return caches

    @property
    def background(self) -> list[PcmCache]:
        """What sounds beside the sound that is looked for."""
        # Ambience is the shortest of all and the likeliest in life: twice in the urn.
        return [c for c in (self.noise, self.noise, self.event, self.music) if len(c)]

    @property
    def voices(self) -> list[PcmCache]:
        """Speech, if there is any."""
        return [self.speech] if len(self.speech) else []

    @property
    def other_sounds(self) -> list[PcmCache]:
        """What is looked for beside music, if there is any; speech above all."""
        return [c for c in (self.speech, self.speech, self.event, self.noise) if len(c)]

    @property
    def everything(self) -> list[PcmCache]:
        """All that is not empty."""
        return [c for c in (self.music, self.speech, self.event, self.noise) if len(c)]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training run gave.

    Parameters
    ----------
    bundle : Path
        The folder of its bundle.
    figures : dict of float
        What it came to; without those of the steps where none was taken.
    """

    bundle: Path
    figures: dict[str, float]


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build Keras layers under a policy such as ``"mixed_bfloat16"``."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def write_description(
    bundle: Path,
    name: str,
    kind: str,
    network: dict[str, Any],
    spec: FeatureSpec,
    inputs: LevelInput,
    training: dict[str, Any],
) -> None:
    """Write ``bundle.json`` beside the networks in ``bundle``."""
    meta = {
        "name": name,
        "kind": kind,
        "dim": network["dim"],
        "spec": spec.to_dict(),
        "inputs": inputs.to_dict(),
        "network": network,
        "training": training,
    }
    write_meta(bundle, json.loads(json.dumps(meta)))
