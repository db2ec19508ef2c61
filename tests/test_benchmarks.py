"""The benchmarks' own code, on the demo tracks with tiny bundles. No figure is judged here."""

from __future__ import annotations

import dataclasses
import io
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import _collection
import _common
import corpus
import grow
import identify
import ingest
import long
import search
import similar

from encoders.audio import load_audio, open_audio
from encoders.corpus import ROLES
from index.catalog import Catalog
from index.identify import Identifier
from index.policy import IndexKind
from index.similar import SimilarSounds
from pipelines.ingest import IngestOptions
from pipelines.ingest import ingest as ingest_files

BUNDLES = ROOT / "tests" / "data" / "bundles"
ENCODER, VAE = str(BUNDLES / "fingerprint"), str(BUNDLES / "vae")
OPTIONS = IngestOptions(ENCODER, VAE, "int8")

TRACKS = ("palace.ogg", "media-threat.ogg", "musicbox.mp3")


@pytest.fixture(scope="module")
def catalog(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("benchmarks") / "catalog"
    ingest_files([str(demo_tracks / name) for name in TRACKS], path, OPTIONS)
    return Catalog.open(path)


def test_list_of_the_corpus_is_usable() -> None:
    packages = corpus.read_list()
    entries = [entry for chosen in packages.values() for entry in chosen]
    assert {entry.role for entry in entries} == set(ROLES)
    assert {entry.split for entry in entries} == {"train", "dev"}
    assert set(corpus.QUICK) < set(packages)
    assert set(corpus.choose_packages(packages, "music")) < set(packages)
    music = Counter(e.split for p in corpus.QUICK for e in packages[p] if e.role == "music")
    assert min(music["train"], music["dev"]) > 10
    assert not any(Path(entry.path).is_absolute() or ".." in entry.path for entry in entries)


def test_unpack_goes_into_archives_and_keeps_only_what_is_listed(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("music/a.ogg", b"in the zip")
        archive.writestr("music/unlisted.ogg", b"no")
        archive.writestr("../escape.ogg", b"no")
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w") as tar:
        contents = {"./usr/base.pk3": inner.getvalue(), "./usr/b.ogg": b"b", "./usr/c.png": b"c"}
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    package.seek(0)
    with tarfile.open(fileobj=package) as tar:
        wanted = {"usr/base.pk3.d/music/a.ogg", "usr/b.ogg"}
        corpus.unpack(corpus._tar_members(tar), wanted, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in tmp_path.rglob("*.*g")}
    assert found == {
        Path("usr/base.pk3.d/music/a.ogg"): b"in the zip",
        Path("usr/b.ogg"): b"b",
    }


def test_identify_measures_every_stage(catalog: Catalog, tmp_path: Path) -> None:
    clips = identify.make_clips(catalog, tmp_path, 3, 4.0, seed=0)
    assert sorted(c.path.suffix for c in clips) == [".mp3", ".ogg", ".wav"]
    for clip in clips:
        with open_audio(clip.path, 16_000) as stream:
            n_samples = sum(map(len, stream.blocks()))
            assert (stream.info.sample_rate, stream.info.channels) == (44_100, 2)
        assert n_samples / 16_000 == pytest.approx(4.0, abs=0.1)
    warm = identify.measure_warm(Identifier(catalog.path, ENCODER), clips, 2)
    assert warm["n_right"] == 3
    assert warm["n_measured"] == 6
    assert min(warm["stages_p50_ms"].values()) > 0
    assert identify.prepare_catalog([catalog.path], 1.0, tmp_path, ENCODER, VAE, "int8") == (
        catalog.path
    )


def test_ingest_makes_mp3_where_there_is_too_little(demo_tracks: Path, tmp_path: Path) -> None:
    paths, seconds, notes = ingest.choose_files([demo_tracks], 0.02, tmp_path)
    assert seconds["vorbis"] > 72
    assert seconds["mp3"] > 71
    assert any("copies of the vorbis" in note for note in notes) == any(
        p.parent == tmp_path for p in paths["mp3"]
    )
    source = demo_tracks / "palace.ogg"
    copy = ingest.mp3_copy(source, tmp_path)
    with open_audio(copy, 16_000) as stream:
        n_samples = sum(map(len, stream.blocks()))
        assert stream.info.codec == "mp3"
        assert stream.problem is None
    assert n_samples == pytest.approx(len(load_audio(source, 16_000)), abs=1600)


def test_ingest_splits_the_stages(demo_tracks: Path, tmp_path: Path) -> None:
    paths = [demo_tracks / "palace.ogg"]
    parts = ingest.stages(paths, OPTIONS)
    assert set(parts) == {"hash", "decode", "features", "fingerprint", "latent", "MFCC summary"}
    assert min(parts.values()) > 0
    taken = ingest.measure(paths, _common.write_one_second(tmp_path), OPTIONS, 1, peer=False)
    assert set(taken) == {
        "decode", "ingest", "ingest, 1 thread", "ingest with the column event, 1 thread",
        "fixed cost of a run",
    }  # fmt: skip
    assert all(taken.values())


def test_long_file_has_the_length_asked_for(demo_tracks: Path, tmp_path: Path) -> None:
    path = ingest.long_file([demo_tracks / "palace.ogg"], 65.0, tmp_path)
    with open_audio(path, ingest.LONG_RATE) as stream:
        assert sum(map(len, stream.blocks())) == 65 * ingest.LONG_RATE


def test_a_measured_process_that_fails_says_why() -> None:
    with pytest.raises(click.ClickException, match="no catalog at"):
        _common.run_measured(_common.earmark("info", "nowhere"))
    used = _common.run_measured([sys.executable, "-c", "print(sum(range(10**6)))"])
    assert used.output.strip() == "499999500000"
    assert used.peak_rss_mb > 1


def test_more_windows_are_like_the_real_ones(catalog: Catalog, tmp_path: Path) -> None:
    collection, uris = _collection.read_collection(catalog)
    n = len(collection.vectors)
    made = list(collection.blocks(3 * n))
    vectors, recordings = (np.concatenate(column) for column in zip(*made, strict=True))
    assert len(vectors) == 3 * n
    assert list(np.unique(recordings)) == list(range(3 * len(uris)))
    np.testing.assert_array_equal(vectors[:n], collection.vectors)
    # Within a copy everything is as similar as in the original, and copies are others.
    for copy in (1, 2):
        mine = vectors[copy * n : (copy + 1) * n]
        for r in range(len(uris)):
            own = recordings[:n] == r
            expected = collection.vectors[own] @ collection.vectors[own].T
            np.testing.assert_allclose(mine[own] @ mine[own].T, expected, atol=1e-4)
        assert np.mean(np.sum(mine * collection.vectors, axis=1)) < 0.99
    clips = _collection.make_clips(catalog, ENCODER, collection, uris, 4, 4.0, tmp_path)
    again = _collection.make_clips(catalog, ENCODER, collection, uris, 4, 4.0, tmp_path)
    for clip, same, moved in zip(clips, again, collection.spread(clips, 3 * n), strict=True):
        np.testing.assert_array_equal(clip.queries, same.queries)
        theirs = vectors[recordings == moved.recording]
        expected = collection.vectors[recordings[:n] == clip.recording] @ clip.queries.T
        np.testing.assert_allclose(theirs @ moved.queries.T, expected, atol=1e-4)


def test_search_measures_every_size(catalog: Catalog, tmp_path: Path) -> None:
    collection, uris = _collection.read_collection(catalog)
    clips = _collection.make_clips(catalog, ENCODER, collection, uris, 4, 4.0, tmp_path)
    n = 2 * len(collection.vectors)
    kind = IndexKind("IVF4,PQ16x4fs", 4, 10)
    figures = search.measure(collection, clips, n, tmp_path / "made", 1e9, kind)
    assert figures["recall"] > 0.95
    assert figures["n_queries"] == sum(len(clip.queries) for clip in clips)
    assert {"Training on windows", "Indexing windows"} < set(figures["build_cpu_s"])
    # 16 codes of 4 bits, and the number of the row.
    assert figures["bytes_per_window"] > 8 + 8
    for name in ("query", "clip"):
        assert figures[name]["floor_ms"] > 0
        assert 0 < figures[name]["cpu_p50_ms"] <= figures[name]["cpu_p99_ms"]
    assert figures["cold"]["total_mb"] > 0
    rows = search._rows([figures, figures])
    assert {len(row) for row in rows} == {3}


@pytest.mark.parametrize("column", ["vae", "event"])
def test_similar_measures_any_column(demo_tracks: Path, tmp_path: Path, column: str) -> None:
    bundles = {"vae": VAE, "event": str(BUNDLES / "event")}
    encoders = ",".join(["fingerprint", *(f"{name}={path}" for name, path in bundles.items())])
    options = dataclasses.replace(OPTIONS, encoders=encoders)
    clip = demo_tracks / "palace.ogg"
    ingest_files([str(clip)], tmp_path / "catalog", options)
    similar.write_many(Catalog.open(tmp_path / "catalog"), column, 480, tmp_path / "many", 0)
    sounds = SimilarSounds(tmp_path / "many", column, bundles[column])
    assert sounds.index.info.n_rows == 480
    figures = similar.measure(sounds, [clip], top=2)
    assert figures["recall"] == 1.0
    assert 0 < figures["search_p50_ms"] < figures["p50_ms"] <= figures["p99_ms"]


def test_grow_measures_building_adding_and_removing(demo_tracks: Path, tmp_path: Path) -> None:
    for name in TRACKS:
        ingest_files([str(demo_tracks / name)], tmp_path / "catalog", OPTIONS)
    (tmp_path / "scratch").mkdir()
    figures = grow.grow(tmp_path / "catalog", 0.01, tmp_path / "scratch")
    assert list(figures) == ["build", "add", "remove"]
    n = [figures[name]["windows"] for name in figures]
    assert n[0] < n[1] > n[2] > 0
    assert min(f["cpu_s"] for f in figures.values()) > 0
    assert figures["add"]["written_mb"] > 0


def test_a_long_recording_is_joined_and_its_clips_are_placed(
    demo_tracks: Path, tmp_path: Path
) -> None:
    paths = [demo_tracks / name for name in TRACKS]
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    file = tmp_path / "made" / "long.flac"
    long.join([tmp_path / "bad.wav", *paths], 50.0, file)
    assert len(load_audio(file, long.RATE)) == 50 * long.RATE
    start = load_audio(paths[0], long.RATE)[: 5 * long.RATE]
    np.testing.assert_allclose(load_audio(file, long.RATE)[: len(start)], start, atol=1e-4)
    ingest_files([str(file)], tmp_path / "catalog", OPTIONS)
    identifier = Identifier(tmp_path / "catalog", ENCODER)
    errors = long.errors_near(5.0, file, identifier, 3, None, 0)
    assert len(errors) == 3
    assert max(map(abs, errors)) < 0.02
    with pytest.raises(click.ClickException, match=r"lacks .* h of music"):
        long.join(paths[:1], 3600.0, tmp_path / "longer.flac")
    assert not (tmp_path / "longer.flac").exists()
