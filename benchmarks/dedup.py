"""How well duplicates are found, and what that costs.

Takes recordings from a corpus (``corpus.py fetch``), plants duplicates of every kind, ingests them
and runs the job. Hard negatives come with the sources: other notes of an instrument, other hits of
a drum kit, other prompts of a speaker. A reported pair of different sources is checked by an
oracle of another kind, pieces of the waveforms, as a corpus has duplicates of its own. With --scale
nothing is planted: files of the corpus as they are, more and more of them; when there are too few,
short ones as MP3 are added.

A run that was ended goes on where it was: what is planted, ingested and found stays in --cache.
The whole of it, in about two hours and 25 GB on two cores:

\b
    dedup.py CORPUS --split all --music 500 --short 5000 --seconds 40
    dedup.py CORPUS --split all --scale 3000,10000,30000
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _dedup_chromaprint as chromaprint
import click
import pyarrow.parquet as pq
from _common import cache_option, json_option, report, run_measured
from _dedup_scores import (
    pairs_between_sources,
    recall_by_variant,
    repeated_pairs,
    score_pairs,
)
from _planting import Plant, Planter, read_stereo, to_mp3, voices

from encoders.bundle import load_bundle
from encoders.errors import AudioError
from index.cluster_metrics import bcubed, mixed_clusters
from index.clusters import find_clusters
from index.schema import DuplicateKind, DuplicatePair

SHORT_S = (0.3, 5.0)
_WORDS = 20
# What is extrapolated to.
_MANY = 10_000_000
# As the command, but without its exit code for files that cannot be read.
_INGEST = (
    "import sys; from pipelines.ingest import ingest; "
    "print(ingest([sys.argv[1]], sys.argv[2]).n_inputs)"
)
_FIND = (
    "import sys; from pathlib import Path; from pipelines.deduplicate import find_pairs; "
    "find_pairs([Path(sys.argv[1])], Path(sys.argv[2]))"
)


def read_corpus(folder: Path, split: str | None) -> dict[str, list[tuple[Path, float]]]:
    """Paths and seconds of every role."""
    by_role: dict[str, list[tuple[Path, float]]] = defaultdict(list)
    with (folder / "corpus.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if split in (None, row["split"]):
                by_role[row["role"]].append((folder / row["path"], float(row["seconds"])))
    return by_role


def plant(
    corpus: dict[str, list[tuple[Path, float]]], n_music: int, n_short: int, seconds: float,
    folder: Path, seed: int,
) -> tuple[list[Plant], list[Plant]]:  # fmt: skip
    """Make the files of both sets; those that are there from a run before are kept."""
    rng = random.Random(seed)
    music = [path for path, length in corpus["music"] if length > 40]
    brief = [
        path
        for role in ("event", "speech")
        for path, length in corpus[role]
        if SHORT_S[0] <= length <= SHORT_S[1]
    ]
    talk = [path for path, length in corpus["speech"] if 1 <= length <= 5]
    for paths in (music, brief, talk):
        rng.shuffle(paths)
    planter = Planter(folder)

    def all_of(make: Callable[[int], list[Plant]], n: int) -> list[Plant]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [plant for plants in pool.map(make, range(n)) for plant in plants]

    def words(i: int) -> list[Path]:
        # Each piece has words of its own: the same ones would make duplicates of their mixtures.
        return [talk[(_WORDS * i + j) % len(talk)] for j in range(_WORDS)]

    def sing(i: int) -> list[Plant]:
        return planter.music(i, music[i], voices(words(i), seconds), seconds)

    n_music = min(n_music, len(music))
    spoken = {word for i in range(n_music) for word in words(i)}
    brief = [path for path in brief if path not in spoken]
    long = all_of(sing, n_music)
    first = 100_000
    short = all_of(lambda i: planter.short(first + i, brief[i]), min(n_short, len(brief)))
    return long, short


def ingest(uris: Sequence[str], cache: Path) -> tuple[Path, dict[str, float]]:
    """A catalog of files, and what it cost."""
    content = "\n".join([load_bundle("fingerprint").sha256, *uris])
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    manifest, catalog = cache / f"{key}.jsonl", cache / f"catalog-{key}"
    manifest.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    used = run_measured([sys.executable, "-c", _INGEST, str(manifest), str(catalog)])
    hours = sum(pq.read_table(catalog / "recordings")["seconds_decoded"].to_pylist()) / 3600
    return catalog, {"cpu_s": used.cpu_s, "hours": hours, "inputs": int(used.output)}


def find(catalog: Path, out: Path) -> dict[str, Any]:
    """Run the job as a process of its own; what it cost, and its pairs."""
    for name in ("pairs.parquet", "unpaired.parquet"):
        (out / name).unlink(missing_ok=True)
    used = run_measured([sys.executable, "-c", _FIND, str(catalog), str(out)])
    return {
        "wall_s": used.wall_s,
        "cpu_s": used.cpu_s,
        "peak_mb": used.peak_rss_mb,
        "pairs": pq.read_table(out / "pairs.parquet").to_pylist(),
        "unpaired": pq.read_table(out / "unpaired.parquet").to_pylist(),
    }


def score_clusters(plants: Sequence[Plant], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """B-cubed of the clusters over copies of whole recordings."""
    pairs = [DuplicatePair(**{**row, "kind": DuplicateKind(row["kind"])}) for row in rows]
    found = find_clusters(pairs).of_uri()
    whole = {
        p.uri: p.source
        for p in plants
        if not p.is_near and not p.variant.startswith(("excerpt", "overlap"))
    }
    precision, recall = bcubed(whole, found)
    return {
        "files": len(whole),
        "bcubed_precision": dataclasses.asdict(precision),
        "bcubed_recall": dataclasses.asdict(recall),
        "mixed": len(mixed_clusters(whole, found)),
    }


@contextlib.contextmanager
def timed(what: str, minutes: dict[str, float]) -> Iterator[None]:
    """Tell what is done, and note how many minutes it takes."""
    click.echo(f"{what} …", err=True)
    begin = time.perf_counter()
    yield
    minutes[what] = (time.perf_counter() - begin) / 60
    click.echo(f"{what}: {minutes[what]:.1f} min", err=True)


@contextlib.contextmanager
def hidden(folder: Path) -> Iterator[None]:
    """A folder under another name for a while."""
    elsewhere = folder.rename(folder.with_name(f"{folder.name}.hidden"))
    try:
        yield
    finally:
        elsewhere.rename(folder)


def gigabytes(plants: Sequence[Plant]) -> float:
    """On disk; the second name of the same bytes takes none."""
    return sum(Path(p.uri).stat().st_size for p in plants if p.variant != "identical") / 1e9


def shown(value: float | None, digits: int = 4) -> str:
    """A figure of a table."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(share: dict[str, float]) -> str:
    """A share with its 95 % interval."""
    return f"{share['value']:.4f} ({share['low']:.4f} to {share['high']:.4f})"


@click.command(help=__doc__)
@click.argument("corpus_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True, help="Of the corpus; 'all' for both.")
@click.option("--music", "n_music", default=15, show_default=True, help="Pieces, 17 files each.")
@click.option("--short", "n_short", default=150, show_default=True, help="Short, 8 files each.")
@click.option("--seconds", default=30.0, show_default=True, help="Of each piece, at most.")
@click.option("--seed", default=0, show_default=True, help="Chooses the sources.")
@click.option("--gone", is_flag=True, help="Find pairs when the files are not there any more.")
@click.option("--scale", default="", help="Numbers of files, such as 3000,10000,30000.")
@click.option("--chromaprint/--no-chromaprint", "peer", default=True, help="Run the peer as well.")
@cache_option
@json_option
def main(
    corpus_dir: Path, split: str, n_music: int, n_short: int, seconds: float, seed: int,
    gone: bool, scale: str, peer: bool, cache: Path, json_path: Path | None,
) -> None:  # fmt: skip
    corpus = read_corpus(corpus_dir, None if split == "all" else split)
    cache.mkdir(parents=True, exist_ok=True)
    if scale:
        measure_scale(corpus, [int(n) for n in scale.split(",")], seed, cache, json_path)
        return
    folder = cache / f"planted-{split}-{seconds:g}s-{seed}"
    minutes: dict[str, float] = {}
    with timed("planting", minutes):
        long, short = plant(corpus, n_music, n_short, seconds, folder, seed)
    sets = {"music": long, "short": short}
    everything = [p for plants in sets.values() for p in plants]
    with timed(f"ingesting {len(everything):,} files", minutes):
        catalog, ingested = ingest([p.uri for p in everything], cache)
    out = cache / f"pairs-{catalog.name}{'-gone' if gone else ''}"
    with timed("finding pairs", minutes), hidden(folder) if gone else contextlib.nullcontext():
        found = find(catalog, out)
    unpaired = {row["uri"] for row in found["unpaired"]}
    with timed("asking the oracle", minutes):
        between = pairs_between_sources(everything, found["pairs"])
        repeated = repeated_pairs(everything, found["pairs"])
    source = {p.uri: p.source for p in everything}
    # What the corpus holds twice has pairs that nobody planted, right ones: it is left out.
    twice = {source[f.row[side]] for f in between if f.is_natural for side in ("a", "b")}
    sets = {name: [p for p in plants if p.source not in twice] for name, plants in sets.items()}
    false = [f for f in between if not f.is_natural and source[f.row["a"]] not in twice]
    result: dict[str, Any] = {
        "files": {name: len(plants) for name, plants in sets.items()},
        "gigabytes": gigabytes(everything),
        "minutes": minutes,
        "ingest": ingested,
        "job": {k: found[k] for k in ("wall_s", "cpu_s", "peak_mb")},
        "unpaired": Counter(row["class"] for row in found["unpaired"]),
        "clusters": score_clusters([p for s in sets.values() for p in s], found["pairs"]),
        "sources_held_twice": sorted(twice),
        "natural": [f.row for f in between if f.is_natural],
        "false": [f.row for f in false],
        "repeated": sorted(repeated),
    }
    lines = []
    for name, plants in sets.items():
        if not plants:
            continue
        uris = {p.uri for p in plants}
        mine = [f for f in false if uris & {f.row["a"], f.row["b"]}]
        scores = score_pairs(plants, found["pairs"], unpaired, mine, repeated)
        variants = recall_by_variant(plants, found["pairs"])
        result[name] = {"kinds": scores, "variants": variants}
        for kind, s in scores.items():
            if s["pairs"]:
                figures = [shown(s[k]) for k in ("precision", "recall", "recall_any_kind", "f1")]
                times = [shown(s[k], 3) for k in ("time_error_median_s", "time_error_p95_s")]
                counts = [f"{s[k]:,}" for k in ("pairs", "reported", "between_sources")]
                lines.append([f"{name} {kind}", *counts, *figures, *times])
        for variant, v in result[name]["variants"].items():
            figures = [shown(v["right kind"]), shown(v["any kind"])]
            lines.append([f"  {variant}", f"{v['n']:,}", "", "", "", *figures, "", "", ""])
    if peer and sets["music"] and chromaprint.is_installed():
        with timed("chromaprint", minutes):
            agreeing = chromaprint.agreement(sets["music"])
        result["chromaprint"] = [
            chromaprint.score(sets["music"], least, agreeing) for least in chromaprint.AGREEING_BITS
        ]
        for s in result["chromaprint"]:
            lines.append([f"chromaprint {s['agreeing_bits']}", f"{s['pairs']:,}", "", "",
                          shown(s["precision"]), "", "", "", "", ""])  # fmt: skip
            for kind, recall in s["recall"].items():
                lines.append([f"  {kind}", "", "", "", "", shown(recall), "", "", "", ""])
    columns = ["", "pairs", "reported", "false between sources", "precision", "recall",
               "in any kind", "F1", "time error s", "95 %"]  # fmt: skip
    clusters = result["clusters"]
    title = (
        f"{len(everything):,} files, {ingested['hours']:.1f} h, {result['gigabytes']:.1f} GB, "
        f"{sum(minutes.values()):.0f} min; {len(twice)} sources of them held "
        f"twice by the corpus and left out; job {found['cpu_s']:.0f} CPU s, "
        f"peak {found['peak_mb']:.0f} MB; clusters of {clusters['files']:,} whole copies: B-cubed "
        f"precision {interval(clusters['bcubed_precision'])}, recall "
        f"{interval(clusters['bcubed_recall'])}, "
        f"{clusters['mixed']} mixed"
    )
    report(title, columns, lines, result, json_path)


def measure_scale(
    corpus: dict[str, list[tuple[Path, float]]], sizes: list[int], seed: int, cache: Path,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Cost of the job on more and more files of the corpus as they are."""
    files = sorted(str(path) for role in corpus.values() for path, _ in role if path.exists())
    random.Random(seed).shuffle(files)
    minutes: dict[str, float] = {}
    n_more = max(sizes) - len(files)
    with timed("encoding", minutes):
        files += more_files(corpus, n_more, cache / f"more-{seed}", seed)
    rows, lines = [], []
    for size in sorted(sizes):
        with timed(f"ingesting {size:,} files", minutes):
            catalog, ingested = ingest(files[:size], cache)
        with timed(f"finding pairs among {size:,} files", minutes):
            found = find(catalog, cache / f"pairs-{catalog.name}")
        n = ingested["inputs"]
        row = {
            "files": n,
            "hours": ingested["hours"],
            "ingest_cpu_s": ingested["cpu_s"],
            **{k: found[k] for k in ("wall_s", "cpu_s", "peak_mb")},
            "cpu_s_per_1000": 1000 * found["cpu_s"] / n,
            "cpu_s_per_hour": found["cpu_s"] / ingested["hours"],
            "kinds": Counter(pair["kind"] for pair in found["pairs"]),
        }
        row["exponent"] = growth(rows[-1], row) if rows else None
        rows.append(row)
        lines.append([f"{n:,}", f"{row['hours']:.1f}", f"{row['ingest_cpu_s']:.0f}",
                      f"{row['cpu_s']:.0f}", f"{row['cpu_s_per_1000']:.1f}",
                      f"{row['cpu_s_per_hour']:.1f}", shown(row["exponent"], 2),
                      f"{row['peak_mb']:.0f}", f"{len(found['pairs']):,}"])  # fmt: skip
    columns = ["files", "hours", "ingest CPU s", "CPU s", "per 1,000 files", "per hour",
               "exponent", "peak MB", "pairs"]  # fmt: skip
    title = f"Deduplication of a corpus as it is, {max(0, n_more):,} short files of it once more"
    result: dict[str, Any] = {"minutes": minutes, "scale": rows}
    if len(rows) > 1:
        title += "\n" + (arithmetic := extrapolate(rows))
        result["extrapolation"] = arithmetic
    report(title, columns, lines, result, json_path)


def more_files(
    corpus: dict[str, list[tuple[Path, float]]], n: int, folder: Path, seed: int
) -> list[str]:
    """Short files of the corpus once more, as MP3; those that are there are kept."""
    brief = sorted(
        path for role in ("event", "speech") for path, length in corpus.get(role, ())
        if SHORT_S[0] <= length <= SHORT_S[1] and path.exists()
    )  # fmt: skip
    random.Random(seed).shuffle(brief)
    folder.mkdir(parents=True, exist_ok=True)

    def make(i: int) -> str:
        made = folder / f"{i:06d}.mp3"
        if not made.exists():
            unfinished = made.with_name(f"unfinished-{made.name}")
            to_mp3(unfinished, read_stereo(brief[i]))
            unfinished.replace(made)
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(make, range(min(max(0, n), len(brief)))))


def growth(before: dict[str, Any], after: dict[str, Any]) -> float:
    """The power of the number of files with which CPU time grows: 1 is linear."""
    return math.log(after["cpu_s"] / before["cpu_s"]) / math.log(after["files"] / before["files"])


def extrapolate(rows: Sequence[dict[str, Any]]) -> str:
    """What ten million files would cost, with the arithmetic."""
    last = rows[-1]
    exponent = growth(rows[0], last)
    n = last["files"]
    hours = last["cpu_s"] / 3600 * (_MANY / n) ** exponent
    linear = last["cpu_s"] / 3600 * _MANY / n
    return (
        f"{_MANY:,} files: {last['cpu_s']:.0f} s x ({_MANY:,} / {n:,})^{exponent:.2f} / 3600 = "
        f"{hours:,.0f} CPU h, of the exponent from {rows[0]['files']:,} to {n:,} files; "
        f"{linear:,.0f} CPU h if linear from there on"
    )


if __name__ == "__main__":
    try:
        main()
    except AudioError as error:
        raise SystemExit(str(error)) from None
