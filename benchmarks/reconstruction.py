"""How well the autoencoder rebuilds windows of sound it was not trained on.

For each kind of sound in one split of a corpus: the RMS error of the rebuilt log-mel levels, in dB,
beside that of the best constant guess (the mean window), and how close the 8-bit network's latents
are to the float network's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import Any

import click
import numpy as np
from _common import json_option, report

from encoders.bundle import Bundle, load_bundle
from encoders.corpus import ROLES, PcmCache, read_corpus
from encoders.features import cut_windows, log_mel

BATCH = 64


def measure(int8: Bundle, float32: Bundle, sound: PcmCache, n: int, seed: int) -> dict[str, float]:
    """Figures of ``n`` windows drawn at random."""
    spec, rng = int8.spec, np.random.default_rng(seed)
    windows = np.concatenate(
        [
            cut_windows(log_mel(sound.excerpt(spec.window_length, rng), spec), spec)[:1]
            for _ in range(n)
        ]
    )
    levels, latents = int8.inputs(windows), int8.encode(windows)
    decoder = int8.decoder()
    rebuilt = np.concatenate([decoder(latents[i : i + BATCH]) for i in range(0, n, BATCH)])
    exact = float32.encode(windows)
    norms = np.linalg.norm(latents, axis=1) * np.linalg.norm(exact, axis=1)
    scale = int8.inputs.range_db
    return {
        "windows": n,
        "error_db": scale * float(np.sqrt(np.mean((levels - rebuilt) ** 2))),
        "mean_window_db": scale * float(np.sqrt(np.mean((levels - levels.mean(axis=0)) ** 2))),
        "int8_cosine": float(np.mean(np.sum(latents * exact, axis=1) / norms)),
    }


@click.command(help=__doc__)
@click.argument("corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--vae", default="vae", show_default=True, help="Bundle.")
@click.option("--split", default="dev", show_default=True)
@click.option("--windows", default=500, show_default=True, type=click.IntRange(min=10))
@click.option("--seed", default=0, show_default=True)
@click.option("--pcm", type=click.Path(path_type=Path), default=Path("pcm"), show_default=True,
              help="Where decoded audio is kept.")  # fmt: skip
@json_option
def main(
    corpus: Path, vae: str, split: str, windows: int, seed: int, pcm: Path, json_path: Path | None
) -> None:
    int8, float32 = load_bundle(vae), load_bundle(vae, "float32")
    items = [i for i in read_corpus(corpus) if i.split == split]
    result: dict[str, Any] = {}
    for role in ROLES:
        cache = PcmCache.build([i for i in items if i.role == role], pcm, int8.spec.sample_rate)
        if len(cache):
            result[role] = measure(int8, float32, cache, windows, seed)
    rows = [
        [
            role,
            f"{r['windows']}",
            f"{r['error_db']:.1f} dB",
            f"{r['mean_window_db']:.1f} dB",
            f"{r['int8_cosine']:.4f}",
        ]
        for role, r in result.items()
    ]
    columns = ["Sound", "Windows", "RMS error", "of the mean window", "int8 · float cosine"]
    report(f"Reconstruction from {int8.dim} numbers, {split}", columns, rows, result, json_path)


if __name__ == "__main__":
    main()
