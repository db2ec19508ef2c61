"""Measure what the search for similar sounds takes for granted, on the labelled events of a corpus.

Standardises MFCCs by the windows of train, and fits how likely a sound that is found is of the
query's kind, on the ten best recordings of other sources, by the search itself; then says how true
that is on dev. ``--write`` stores that in the bundle, ``--write-mfcc`` what is usual of MFCCs in
``encoders/data/mfcc.json``; event models and indexes of before have to be made again then.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import click
import numpy as np
from _common import cache_option, json_option, report

import encoders
from encoders.bundle import load_bundle, write_likeness
from encoders.corpus import read_corpus
from encoders.decision import fit_likeness
from encoders.features import SILENCE_DB, FeatureSpec
from index.catalog import Catalog
from pipelines.evaluate_events.retrieval import similarities
from pipelines.evaluate_events.sounds import Bundles, prepare_catalog

MFCC = Path(encoders.__file__).parent / "data" / "mfcc.json"

_FOUND = 10
_BINS = np.linspace(0.0, 1.0, 11)


def usual_mfcc(catalog: Catalog) -> dict[str, object]:
    """Mean and deviation of the MFCC summaries of windows with sound, ready for JSON."""
    batches = list(catalog.iter_windows(["mfcc", "peak_db"]))
    peaks = np.concatenate([batch["peak_db"].to_numpy() for batch in batches])
    rows = np.concatenate([batch["mfcc"].flatten().to_numpy() for batch in batches])
    loud = rows.reshape(len(peaks), -1)[peaks >= SILENCE_DB].astype(np.float64)
    spec: FeatureSpec = catalog.config.spec
    return {
        "spec": spec.to_dict(),
        "mean": [round(float(v), 4) for v in loud.mean(axis=0)],
        "deviation": [round(float(v), 4) for v in loud.std(axis=0)],
    }


def found_pairs(catalog: Catalog, bundle: str) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the ten best recordings of every query, and whether they are of its kind."""
    labels = [dict(pairs) for pairs in catalog.indexed_recordings()["labels"].to_pylist()]
    kinds, sources = (np.array([m[key] for m in labels]) for key in ("label", "source"))
    alike = similarities(catalog, catalog, bundle)
    alike[sources[:, None] == sources] = -np.inf
    best = np.argsort(-alike, axis=1)[:, :_FOUND]
    cosines = np.take_along_axis(alike, best, axis=1)
    same = kinds[best] == kinds[:, None]
    # Clips that cannot be asked with are like nothing at all.
    told = np.isfinite(cosines) & np.any(cosines > -1.0, axis=1, keepdims=True)
    return cosines[told], same[told]


def calibration_error(scores: np.ndarray, same: np.ndarray) -> float:
    """Expected calibration error over ten bins of score (Naeini et al., 2015)."""
    bins = np.clip(np.digitize(scores, _BINS) - 1, 0, len(_BINS) - 2)
    errors = [
        (bins == b).mean() * abs(scores[bins == b].mean() - same[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(sum(errors))


@click.command(help=__doc__)
@click.argument("corpus", metavar="CORPUS.CSV", type=click.Path(exists=True, path_type=Path))
@click.option("--encoder", default="event", show_default=True, metavar="BUNDLE")
@click.option("--write", is_flag=True, help="Store the score in the bundle.")
@click.option("--write-mfcc", is_flag=True, help="Store what is usual of MFCCs.")
@cache_option
@json_option
def main(
    corpus: Path,
    encoder: str,
    write: bool,
    write_mfcc: bool,
    cache: Path,
    json_path: Path | None,
) -> None:
    items, bundles = read_corpus(corpus), Bundles(encoder)
    train, dev = (prepare_catalog(items, split, cache, bundles) for split in ("train", "dev"))
    if write_mfcc:
        MFCC.write_text(json.dumps(usual_mfcc(train), indent=1) + "\n", encoding="utf-8")
    cosines, same = found_pairs(train, encoder)
    likeness = fit_likeness(cosines[same], cosines[~same])
    if write:
        write_likeness(load_bundle(encoder).folder, likeness)
    asked, right = found_pairs(dev, encoder)
    scores = np.array([likeness(float(cosine)) for cosine in asked])
    rows = []
    for low, high in itertools.pairwise(_BINS):
        here = (scores >= low) & (scores < high)
        share = f"{right[here].mean():.2f}" if here.any() else ""
        rows.append([f"{low:.1f} to {high:.1f}", f"{here.sum():,}", share])
    report(
        f"Score of the ten best in dev: scale {likeness.scale}, bias {likeness.bias}, "
        f"calibration error {calibration_error(scores, right):.3f}",
        ["Score", "Found", "Of the query's kind"],
        rows,
        {
            **dataclasses.asdict(likeness),
            "calibration_error": calibration_error(scores, right),
            "bins": rows,
        },
        json_path,
    )


if __name__ == "__main__":
    main()
