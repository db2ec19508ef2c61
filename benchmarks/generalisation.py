"""Does a fingerprint encoder know its training music by heart, or is the world too hard for it?

Windows of each kind of sound, of the split it was trained on and of the one it was not, each under
backgrounds of both splits: the share that, after a way through the world, is nearest to its own
clean self among the 256 of a batch. Where music of `dev` does as well as that of `train` under the
same backgrounds, more music will not help; a larger network or harder negatives may.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from _common import encoder_option, json_option, report

from encoders.batches import PairBatches
from encoders.bundle import Bundle, Network, load_bundle, unit_vectors
from encoders.corpus import ROLES, PcmCache, read_corpus
from encoders.degrade import World, shipped_rooms
from encoders.experiment import examine
from encoders.recipes import Caches

SPLITS = ("train", "dev")
_N_EACH = 8

Embed = Callable[[np.ndarray], np.ndarray]


def share_found(
    bundle: Bundle,
    embed: Embed,
    sound: PcmCache,
    backgrounds: Caches,
    n_batches: int,
    n_pairs: int,
    seed: int,
) -> float:
    """Share of the degraded windows of ``sound`` that are nearest to their own clean window."""
    world = World(
        bundle.spec.sample_rate, backgrounds.background, shipped_rooms(), backgrounds.voices
    )
    pairs = PairBatches(
        sound, world, bundle.spec, bundle.inputs, n_pairs // _N_EACH, _N_EACH, seed=seed
    )
    return float(np.mean([examine(embed, pairs, n, n + 1).top_1 for n in range(n_batches)]))


@click.command(help=__doc__)
@click.argument("corpus", type=click.Path(exists=True, path_type=Path))
@encoder_option
@click.option("--batches", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--pairs", default=256, show_default=True, type=click.IntRange(min=_N_EACH))
@click.option("--seed", default=99, show_default=True)
@click.option("--pcm", type=click.Path(path_type=Path), default=Path("pcm"), show_default=True,
              help="Where decoded audio is kept; may be that of `earmark train`.")  # fmt: skip
@json_option
def main(
    corpus: Path,
    encoder: str,
    batches: int,
    pairs: int,
    seed: int,
    pcm: Path,
    json_path: Path | None,
) -> None:
    bundle, items = load_bundle(encoder), read_corpus(corpus)
    network = Network(bundle.folder / f"{bundle.precision}.tflite")
    caches = {split: Caches.build(items, split, pcm, bundle.spec) for split in SPLITS}
    result: dict[str, Any] = {}
    for role in ROLES:
        for split in SPLITS:
            sound: PcmCache = getattr(caches[split], role)
            if len(sound):
                result[f"{role} of {split}"] = {
                    f"backgrounds of {other}": share_found(
                        bundle,
                        lambda levels: unit_vectors(network(levels)),
                        sound,
                        caches[other],
                        batches,
                        pairs,
                        seed,
                    )
                    for other in SPLITS
                }
    report(
        f"{bundle.name} {bundle.sha256[:12]}, {batches} batches of {pairs}: nearest to its own",
        ["sound", *(f"backgrounds of {split}" for split in SPLITS)],
        [
            [name, *(f"{100 * share:.1f} %" for share in row.values())]
            for name, row in result.items()
        ],
        {"batches": batches, "pairs": pairs, "share": result},
        json_path,
    )


if __name__ == "__main__":
    main()
