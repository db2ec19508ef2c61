"""How often clips of a corpus are found, through the real ingest and index.

Ingests all music of one split (dev) and as much of the other as needed, cuts clips at random from
the first, degrades them and looks them up. A tenth of the other split's music is left out of the
catalog: clips of it must not be found.

What counts: a clip is of the *right recording* if the best match has the same bytes, or the same
file name and length to a second (one title in two packages). It is *within 0.5 s* if the match also
puts the clip there in time; a repeat elsewhere in the same track is wrong, though it may sound the
same.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from _clips import Clip, Selection, make_clips, select, title_of, world
from _common import (
    cache_option,
    catalog_key,
    encoder_option,
    json_option,
    precision_option,
    report,
    vae_option,
)

from encoders import degrade
from encoders.corpus import read_corpus
from index.catalog import Catalog
from index.identify import Identifier
from index.schema import Match
from pipelines.ingest import IngestOptions, ingest


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a clip."""

    clip: Clip
    match: Match | None
    right: bool
    error_s: float
    found: bool

    def within(self, seconds: float) -> bool:
        """Right recording, and no further off than that."""
        return self.right and self.error_s <= seconds

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "track": str(self.clip.track.path),
            "start_s": round(self.clip.start_s, 3),
            "background": self.clip.background,
            "reference": self.match.reference if self.match else None,
            "score": self.match.score if self.match else None,
            "found": self.found,
            "right": self.right,
            "error_s": round(self.error_s, 3) if np.isfinite(self.error_s) else None,
        }


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927).

    >>> wilson(0, 200)[1] < 0.02
    True
    """
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def look_up(
    identifier: Identifier,
    clips: Sequence[Clip],
    hear: Callable[[Clip], np.ndarray],
    identity: dict[str, tuple[str, float]],
) -> list[Outcome]:
    """Identify every clip; ``identity`` gives the recording_id and seconds of each reference."""
    outcomes = []
    for clip in clips:
        rate = identifier.spec.sample_rate
        matches = identifier.identify(hear(clip), rate, top=1, threshold=0.0)
        if not matches:
            outcomes.append(Outcome(clip, None, False, float("inf"), False))
            continue
        (match,) = matches
        assert match.reference_start_s is not None
        assert match.query_start_s is not None
        error = abs(match.reference_start_s - (clip.start_s + match.query_start_s))
        found = (match.score or 0.0) >= identifier.bundle.calibration.threshold
        outcomes.append(Outcome(clip, match, is_right(clip, match, identity), error, found))
    return outcomes


def is_right(clip: Clip, match: Match, identity: dict[str, tuple[str, float]]) -> bool:
    """Whether a match is of the clip's recording: the same bytes, or the same title and length."""
    assert match.reference is not None
    true_id, _ = identity.get(str(clip.track.path), ("", 0.0))
    _, seconds = identity[match.reference]
    same_title = title_of(Path(match.reference)) == title_of(clip.track.path)
    return match.recording_id == true_id or (
        same_title and abs(seconds - clip.track.seconds) <= 1.0
    )


def summarise(present: Sequence[Outcome], absent: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of one condition and length."""
    n = len(present)

    def share(hits: Iterable[bool], of: int) -> dict[str, Any]:
        count = sum(hits)
        low, high = wilson(count, of)
        return {"hits": count, "n": of, "share": count / max(1, of), "interval": [low, high]}

    errors = [o.error_s for o in present if o.right]
    return {
        "recording": share((o.right for o in present), n),
        "recording_at_threshold": share((o.right and o.found for o in present), n),
        "within_0.5_s": share((o.within(0.5) for o in present), n),
        "within_0.25_s": share((o.within(0.25) for o in present), n),
        "median_error_s": statistics.median(errors) if errors else None,
        "false_accepts": share((o.found for o in absent), len(absent)),
    }


def prepare_catalog(
    chosen: Selection, cache: Path, encoder: str, vae: str, precision: str
) -> Catalog:
    """Ingest the references; a catalog of the same files and encoders is used again."""
    uris = sorted(str(t.path) for t in chosen.references)
    path = cache / f"accuracy-{catalog_key(uris, encoder, vae, precision)}"
    cache.mkdir(parents=True, exist_ok=True)
    options = IngestOptions(fingerprint=encoder, vae=vae, precision=precision)
    ingest(uris, path, options)
    return Catalog.open(path)


def run(
    corpus: Path,
    cache: Path,
    n_clips: int,
    n_absent: int,
    lengths: Sequence[float],
    snr_db: float,
    split: str,
    hours: float,
    conditions: Sequence[str],
    seed: int,
    encoder: str,
    vae: str,
    precision: str,
) -> dict[str, Any]:
    """The whole benchmark; see ``--help`` for the parameters."""
    chosen = select(read_corpus(corpus), corpus.parent, split, hours)
    catalog = prepare_catalog(chosen, cache, encoder, vae, precision)
    identifier = Identifier(catalog.path, encoder)
    rows = catalog.recordings(["uri", "recording_id", "seconds_decoded"]).to_pylist()
    identity = {r["uri"]: (r["recording_id"], r["seconds_decoded"]) for r in rows}
    rate = identifier.spec.sample_rate
    results = []
    for seconds in lengths:
        clips = make_clips(chosen.queries, chosen, n_clips, seconds, rate, seed)
        away = []
        if n_absent and chosen.absent:
            away = make_clips(chosen.absent, chosen, n_absent, seconds, rate, seed + 1)
        for condition in conditions:
            hear = world(condition, snr_db, rate)
            present = look_up(identifier, clips, hear, identity)
            absent = look_up(identifier, away, hear, identity)
            results.append(
                {
                    "condition": condition,
                    "seconds": seconds,
                    **summarise(present, absent),
                    "clips": [o.to_dict() for o in present],
                    "absent_clips": [o.to_dict() for o in absent],
                }
            )
            click.echo(f"{condition}, {seconds:g} s: done", err=True)
    return {
        "hours": sum(r["seconds_decoded"] for r in rows) / 3600,
        "recordings": len(rows),
        "windows": identifier.index.info.n_rows,
        "index": identifier.index.info.factory,
        "encoder": identifier.bundle.sha256,
        "precision": precision,
        "threshold": identifier.bundle.calibration.threshold,
        "split": split,
        "snr_db": snr_db,
        "seed": seed,
        "n_tracks_left_out": len(chosen.absent),
        "results": results,
    }


def _percent(share: dict[str, Any]) -> str:
    low, high = (f"{100 * x:.1f}" for x in share["interval"])
    return f"{100 * share['share']:.1f} % [{low}, {high}]" if share["n"] else "–"


@click.command(help=__doc__)
@click.argument("corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--clips", "n_clips", default=200, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--absent", "n_absent", default=200, show_default=True, type=click.IntRange(min=0),
    help="Clips of music that is not in the catalog.",
)  # fmt: skip
@click.option(
    "--seconds", "lengths", multiple=True, type=float, metavar="S", default=[5.0],
    show_default=True, help="Length of the clips; several times for several lengths.",
)  # fmt: skip
@click.option("--snr", "snr_db", default=5.0, show_default=True, help="dB, clip over background.")
@click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "train"]))
@click.option("--hours", default=12.0, show_default=True, help="References, at least.")
@click.option(
    "--all-conditions", is_flag=True,
    help="Not only noise: also clean, a room with noise, a phone's microphone, every codec.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@encoder_option
@vae_option
@precision_option
@cache_option
@json_option
def main(all_conditions: bool, snr_db: float, json_path: Path | None, **settings: Any) -> None:
    conditions = ["noise"]
    if all_conditions:
        conditions = ["clean", "noise", "room", "phone", *degrade.CODECS]
    result = run(conditions=conditions, snr_db=snr_db, **settings)
    with_noise = {"noise": f"noise {snr_db:g} dB", "room": f"room + noise {snr_db:g} dB"}
    table = []
    by_length: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for row in result["results"]:
        by_length[row["seconds"]].append(row)
    for seconds, rows in sorted(by_length.items()):
        for row in rows:
            error = row["median_error_s"]
            name = with_noise.get(row["condition"], row["condition"])
            shares = ("recording", "recording_at_threshold", "within_0.5_s", "within_0.25_s")
            table.append(
                [
                    f"{name}, {seconds:g} s",
                    *(_percent(row[key]) for key in shares),
                    "–" if error is None else f"{1000 * error:.0f} ms",
                    _percent(row["false_accepts"]),
                ]
            )
    report(
        f"{result['recordings']} recordings, {result['hours']:.1f} h, {settings['n_clips']} clips "
        f"of {result['split']}, {result['precision']}; best candidate, 95 % intervals",
        ["Clips", "Recording", "at threshold", "within 0.5 s", "within 0.25 s", "median error",
         "false accepts"],
        table,
        result,
        json_path,
    )  # fmt: skip


if __name__ == "__main__":
    main()
