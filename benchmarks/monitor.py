"""How well, and how fast, ``earmark monitor`` tells what is played when.

Mixes a broadcast from a corpus: music of the catalog that fades from one track into the next,
speech over music that is 0 to 10 dB below it, jingles of 3 s, music that is not in the catalog, and
speech alone. Then monitors it on one core, decoding included, and compares the segments with what
was mixed: a segment is right if it is of the recording, and shares at least half of the time that
it and the true one cover together.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
from _common import cache_option, encoder_option, json_option, report

from encoders.audio import load_audio, open_audio
from encoders.corpus import Item, read_corpus
from encoders.errors import AudioError
from index.identify import Identifier
from index.monitor import Monitor
from index.schema import Match
from pipelines.plots import plot_timeline

RATE = 16_000
CROSSFADE_S = 4.0
JINGLE_S = 3.0
# Kinds of item, how often they come, and how long they are (s).
PROGRAMME = {
    "music": (0.4, 45, 180),
    "speech over music": (0.2, 20, 60),
    "jingle": (0.15, JINGLE_S, JINGLE_S),
    "absent music": (0.15, 20, 60),
    "speech": (0.1, 10, 30),
}
_LEAST_RMS = 0.01
LEAST_SHARE = 0.5


class Planted(NamedTuple):
    """A stretch of the broadcast; ``recording_id`` is None where nothing can be found."""

    kind: str
    start_s: float
    end_s: float
    recording_id: str | None
    reference_start_s: float


class Mixer:
    """Draws stretches of the corpus and strings them together."""

    def __init__(self, items: Sequence[Item], ingested: dict[str, str], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        music = [str(i.path.absolute()) for i in items if i.role == "music"]
        self._ingested = ingested
        self._known = sorted(p for p in music if p in ingested)
        self._absent = sorted(p for p in music if p not in ingested)
        self._speech = sorted(str(i.path) for i in items if i.role == "speech")
        for what, there in (("music in the catalog", self._known), ("speech", self._speech),
                            ("music outside of the catalog", self._absent)):  # fmt: skip
            if not there:
                raise click.ClickException(f"the corpus has no {what}")

    def mix(self, seconds: float) -> tuple[np.ndarray, list[Planted]]:
        """The broadcast [shape=(n,), dtype=float32], and what is where."""
        out = np.zeros(round((seconds + 400) * RATE), np.float32)
        planted: list[Planted] = []
        at, fade = 0, round(CROSSFADE_S * RATE)
        kinds = list(PROGRAMME)
        shares = np.array([PROGRAMME[kind][0] for kind in kinds])
        while at < seconds * RATE:
            kind = kinds[self._rng.choice(len(kinds), p=shares / shares.sum())]
            signal, path, start_s = self._item(kind)
            # Jingles and speech stand alone, all else fades.
            alone = {"jingle", "speech"} & {kind, planted[-1].kind if planted else "speech"}
            overlap = 0 if alone or len(signal) < 3 * fade else fade
            begin = max(0, at - overlap)
            if overlap:
                ramp = np.linspace(0, 1, overlap, dtype=np.float32)
                out[begin : begin + overlap] *= 1 - ramp
                signal = signal.copy()
                signal[:overlap] *= ramp
            out[begin : begin + len(signal)] += signal
            at = begin + len(signal)
            known = self._ingested.get(path)
            # Where a fade is half done, one ends and the other begins.
            middle = overlap / 2 / RATE
            if planted:
                planted[-1] = planted[-1]._replace(end_s=planted[-1].end_s - middle)
            planted.append(Planted(kind, begin / RATE + middle, at / RATE, known, start_s + middle))
        return np.clip(out[:at], -1, 1), planted

    def _item(self, kind: str) -> tuple[np.ndarray, str, float]:
        low, high = PROGRAMME[kind][1:]
        seconds = float(self._rng.uniform(low, high))
        if kind == "speech":
            return self._talk(seconds), "", 0.0
        signal, path, start_s = self._excerpt(
            self._absent if kind == "absent music" else self._known, seconds
        )
        if kind == "speech over music":
            talk = self._talk(len(signal) / RATE)[: len(signal)]
            signal = signal * np.float32(10 ** (-self._rng.uniform(0, 10) / 20))
            signal[: len(talk)] += talk
        return signal, path, start_s

    def _excerpt(self, paths: Sequence[str], seconds: float) -> tuple[np.ndarray, str, float]:
        for _ in range(200):
            path = paths[int(self._rng.integers(len(paths)))]
            try:
                signal = load_audio(path, RATE)
            except AudioError:
                continue
            n = min(len(signal), round(seconds * RATE))
            start = int(self._rng.integers(len(signal) - n + 1))
            stretch = signal[start : start + n]
            rms = float(np.sqrt(np.mean(np.square(stretch))))
            if n >= JINGLE_S * RATE and rms > _LEAST_RMS:
                return stretch * np.float32(0.1 / rms), path, start / RATE
        raise click.ClickException("no music that is long and loud enough")

    def _talk(self, seconds: float) -> np.ndarray:
        parts, n = [], 0
        while n < seconds * RATE:
            try:
                part = load_audio(self._speech[int(self._rng.integers(len(self._speech)))], RATE)
            except AudioError:
                continue
            rms = float(np.sqrt(np.mean(np.square(part))))
            if rms > 1e-4:
                parts.append(part * np.float32(0.1 / rms))
                n += len(part)
        return np.concatenate(parts)[: round(seconds * RATE)]


def compare(segments: Sequence[Match], planted: Sequence[Planted]) -> dict[str, Any]:
    """F1 of segments, recall by kind, and how well their ends are told."""
    truth = [p for p in planted if p.recording_id is not None]
    told = [s for s in segments if s.reference is not None]
    pairs = sorted(
        ((_share(s, p), i, j) for i, s in enumerate(told) for j, p in enumerate(truth)),
        reverse=True,
    )
    of_told: dict[int, int] = {}
    for share, i, j in pairs:
        if share >= LEAST_SHARE and i not in of_told and j not in of_told.values():
            of_told[i] = j
    found = set(of_told.values())
    kinds: dict[str, list[bool]] = defaultdict(list)
    for j, p in enumerate(truth):
        kinds[p.kind].append(j in found)
    errors = [
        (abs(told[i].query_start_s - truth[j].start_s), abs(told[i].query_end_s - truth[j].end_s),
         abs(told[i].reference_start_s - told[i].query_start_s
             - truth[j].reference_start_s + truth[j].start_s))
        for i, j in of_told.items()
    ]  # fmt: skip
    precision = len(of_told) / max(1, len(told))
    recall = len(of_told) / max(1, len(truth))
    start, end, place = np.median(np.array(errors or [(np.nan,) * 3]), axis=0).tolist()
    false_s = sum(s.query_end_s - s.query_start_s for i, s in enumerate(told) if i not in of_told)
    return {
        "segments": len(told),
        "planted": len(truth),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
        "recall_by_kind": {kind: float(np.mean(hits)) for kind, hits in sorted(kinds.items())},
        "n_by_kind": {kind: len(hits) for kind, hits in sorted(kinds.items())},
        "median_start_error_s": start,
        "median_end_error_s": end,
        "median_place_error_s": place,
        "seconds_of_wrong_segments": false_s,
    }


def _share(segment: Match, planted: Planted) -> float:
    if segment.recording_id != planted.recording_id:
        return 0.0
    start, end = segment.query_start_s or 0.0, segment.query_end_s or 0.0
    common = min(end, planted.end_s) - max(start, planted.start_s)
    return max(0.0, common) / (max(end, planted.end_s) - min(start, planted.start_s))


@click.command(help=__doc__)
@click.argument("catalog", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="Part of its music is in the CATALOG, the rest is not.",
)  # fmt: skip
@click.option("--minutes", default=120.0, show_default=True)
@click.option("--split", default="train", show_default=True, help="Split of the corpus to use.")
@click.option("--seed", default=0, show_default=True)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG")
@encoder_option
@cache_option
@json_option
def main(
    catalog: Path,
    corpus: Path,
    minutes: float,
    split: str,
    seed: int,
    plot: Path | None,
    encoder: str,
    cache: Path,
    json_path: Path | None,
) -> None:
    identifier = Identifier(catalog, encoder)
    rows = identifier.catalog.recordings(["uri", "recording_id"]).to_pylist()
    ingested = {str(Path(row["uri"]).absolute()): row["recording_id"] for row in rows}
    path = cache / f"broadcast-{split}-{minutes:g}-{seed}.flac"
    truth = path.with_suffix(".json")
    if not truth.exists():
        items = [i for i in read_corpus(corpus) if i.split == split]
        signal, planted = Mixer(items, ingested, seed).mix(60 * minutes)
        cache.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, signal, RATE)
        truth.write_text(json.dumps(planted))
    planted = [Planted(*p) for p in json.loads(truth.read_text())]
    monitor = Monitor(identifier)
    begin, cpu = time.perf_counter(), time.process_time()
    with open_audio(path, monitor.sample_rate) as audio:
        segments = list(monitor.segments(path.name, audio.blocks()))
        seconds = audio.seconds_decoded
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    if plot is not None:
        plot_timeline(segments, plot)
    result = compare(segments, planted) | {
        "seconds": seconds, "cpu_s": cpu, "wall_s": wall, "real_time_per_core": seconds / cpu,
    }  # fmt: skip
    rows = [
        ["F1 of segments", f"{result['f1']:.3f}"],
        ["Precision", f"{result['precision']:.3f} ({result['segments']} told)"],
        ["Recall", f"{result['recall']:.3f} ({result['planted']} planted)"],
        *(
            [f"  of {kind}", f"{share:.3f} ({result['n_by_kind'][kind]})"]
            for kind, share in result["recall_by_kind"].items()
        ),
        ["Error of the start, median", f"{result['median_start_error_s']:.2f} s"],
        ["Error of the end, median", f"{result['median_end_error_s']:.2f} s"],
        ["Error of the place, median", f"{1000 * result['median_place_error_s']:.0f} ms"],
        ["Wrong segments", f"{result['seconds_of_wrong_segments']:.0f} s"],
        ["Speed, one core", f"{result['real_time_per_core']:.0f} × real time"],
    ]
    report(
        f"{seconds / 60:.0f} min of broadcast, {len(ingested)} recordings",
        ["Monitor", ""], rows, result, json_path,
    )  # fmt: skip


if __name__ == "__main__":
    main()
