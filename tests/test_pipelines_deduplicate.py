"""The job from catalogs to pairs: kinds, groups, files that are gone, resuming."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import ROOT, SAMPLE_RATE
from ingest_helpers import run

from encoders.audio import load_audio
from encoders.degrade import transcode
from encoders.errors import CatalogError, EarmarkError
from index.build import build_index
from index.catalog import Catalog
from index.schema import PAIRS, UNPAIRED, DuplicateKind
from index.search import FingerprintIndex
from pipelines.deduplicate import PairOptions, PairSummary, find_pairs
from pipelines.pairs import stages

TRACKS = ROOT / "pipelines" / "demo_tracks"
REAL = {"fingerprint": "fingerprint", "vae": "vae"}
"""Candidates are only found by an encoder that has learnt something."""


def write(path: Path, signal: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(signal, -1, 1), SAMPLE_RATE, **how)
    return path


def find(catalogs: list[Path], out: Path, **options: Any) -> PairSummary:
    return find_pairs(catalogs, out, PairOptions(**options), io.StringIO())


def kinds(out: Path) -> dict[tuple[str, str], str]:
    rows = pq.read_table(out / "pairs.parquet").to_pylist()
    return {(Path(row["a"]).name, Path(row["b"]).name): row["kind"] for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen files: music and a word in several forms, and what must not be paired."""
    folder = tmp_path_factory.mktemp("audio")
    music = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[: 16 * SAMPLE_RATE]
    other = load_audio(TRACKS / "hacienda.mp3", SAMPLE_RATE)[: 12 * SAMPLE_RATE]
    voice = load_audio(TRACKS / "ezer-ev.opus", SAMPLE_RATE)[4 * SAMPLE_RATE :]
    write(folder / "a" / "music.wav", music)
    write(folder / "a" / "other.wav", other)
    (folder / "a" / "twin.wav").write_bytes((folder / "a" / "music.wav").read_bytes())
    write(folder / "b" / "coded.flac", transcode(0.3 * music, SAMPLE_RATE, "mp3-64k"))
    write(folder / "b" / "excerpt.wav", music[5 * SAMPLE_RATE : 11 * SAMPLE_RATE])
    mixed = np.concatenate([music[-6 * SAMPLE_RATE :], other[: 4 * SAMPLE_RATE]])
    write(folder / "b" / "overlap.wav", mixed)
    write(folder / "a" / "word.wav", voice[: SAMPLE_RATE // 2])
    trimmed = voice[round(0.05 * SAMPLE_RATE) : SAMPLE_RATE // 2]
    write(folder / "b" / "word-trimmed.flac", transcode(trimmed, SAMPLE_RATE, "mp3-64k"))
    write(folder / "b" / "word-next.wav", voice[SAMPLE_RATE:][: SAMPLE_RATE // 2])
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    write(folder / "a" / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * t))
    write(folder / "b" / "tone-soft.wav", 0.1 * np.sin(2 * np.pi * 440 * t))
    write(folder / "b" / "tone-alone.wav", 0.3 * np.sin(2 * np.pi * 3100 * t))
    write(folder / "b" / "silence.wav", np.zeros(SAMPLE_RATE))
    (folder / "b" / "broken.wav").write_bytes(b"no audio at all")
    return folder


@pytest.fixture(scope="module")
def catalog(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalogs") / "all"
    manifest = path.with_suffix(".jsonl")
    lines = [
        {"uri": str(file), "split": "train" if file.parent.name == "a" else "test"}
        for file in sorted(folder.rglob("*.*"))
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run([manifest], path, build_index=True, **REAL)
    return path


EXPECTED = {
    ("music.wav", "twin.wav"): "identical",
    ("music.wav", "coded.flac"): "same-audio",
    ("music.wav", "excerpt.wav"): "excerpt",
    ("coded.flac", "excerpt.wav"): "excerpt",
    ("music.wav", "overlap.wav"): "overlap",
    ("coded.flac", "overlap.wav"): "overlap",
    ("other.wav", "overlap.wav"): "overlap",
    ("word.wav", "word-trimmed.flac"): "same-audio",
}


@pytest.fixture(scope="module")
def found(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found")
    find([catalog], out)
    return out


def test_every_kind_is_found_and_nothing_else(found: Path) -> None:
    table = pq.read_table(found / "pairs.parquet")
    assert table.schema.equals(PAIRS)
    assert kinds(found) == EXPECTED
    keys = [(row["a"], row["b"]) for row in table.to_pylist()]
    assert keys == sorted(keys)
    assert all(a < b for a, b in keys)
    assert list(found.glob(".*")) == []


def test_times_are_those_of_the_shared_stretch(found: Path) -> None:
    rows = pq.read_table(found / "pairs.parquet").to_pylist()
    pairs = {(Path(row["a"]).name, Path(row["b"]).name): row for row in rows}
    excerpt = pairs["music.wav", "excerpt.wav"]
    assert (excerpt["a_start_s"], excerpt["a_end_s"]) == pytest.approx((5, 11), abs=0.05)
    overlap = pairs["other.wav", "overlap.wav"]
    assert (overlap["b_start_s"], overlap["b_end_s"]) == pytest.approx((6, 10), abs=0.3)
    assert overlap["coverage"] == pytest.approx(0.4, abs=0.05)
    whole = pairs["music.wav", "coded.flac"]
    assert whole["reason"].count("gain -10") == 1
    # No frame reaches beyond the end of a file.
    assert whole["a_end_s"] == 16.0
    assert all(row[end] <= 16.0 for row in rows for end in ("a_end_s", "b_end_s"))


def test_files_that_are_not_compared_are_listed(found: Path) -> None:
    table = pq.read_table(found / "unpaired.parquet")
    assert table.schema.equals(UNPAIRED)
    classes = {Path(row["uri"]).name: row["class"] for row in table.to_pylist()}
    assert classes == {
        "broken.wav": "failed",
        "silence.wav": "silent",
        "tone.wav": "constant tone",
        "tone-soft.wav": "constant tone",
        "tone-alone.wav": "constant tone",
    }


@pytest.mark.parametrize("between", [("train", "test"), ("split=train", "split=test")])
def test_between_groups_only_pairs_that_cross(
    catalog: Path, tmp_path: Path, between: tuple[str, str]
) -> None:
    find([catalog], tmp_path, between=between)
    pairs = kinds(tmp_path)
    assert {pair for pair in EXPECTED if pair[0] != "coded.flac" and pair[0] != "excerpt.wav"} - {
        ("music.wav", "twin.wav")
    } <= set(pairs)
    first = {"music.wav", "twin.wav", "other.wav", "word.wav", "tone.wav"}
    assert all(a in first and b not in first for a, b in pairs)
    # Both names of the music leak.
    assert any(a == "twin.wav" for a, _ in pairs)


def test_between_two_catalogs(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run([folder / name], tmp_path / name, **REAL)
    # The index is built when it is missing.
    names = str(tmp_path / "b"), str(tmp_path / "a")
    find([tmp_path / "a", tmp_path / "b"], tmp_path / "out", between=names)
    pairs = kinds(tmp_path / "out")
    assert pairs["coded.flac", "music.wav"] == "same-audio"
    assert pairs["word-trimmed.flac", "word.wav"] == "same-audio"
    rows = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()
    assert {Path(row["a"]).parent.name for row in rows} == {"b"}
    excerpt = next(row for row in rows if row["a"].endswith("excerpt.wav"))
    assert excerpt["b_start_s"] == pytest.approx(5.0, abs=0.05)


def test_an_index_of_another_layout_is_built_again(folder: Path, tmp_path: Path) -> None:
    run([folder / "a"], tmp_path / "c", **REAL)
    with Catalog.open(tmp_path / "c").writer_lock():
        build_index(Catalog.open(tmp_path / "c"))
    for info in (tmp_path / "c" / "index").glob("*/index.json"):
        info.write_text(json.dumps({**json.loads(info.read_text()), "format_version": 1}))
    with pytest.raises(CatalogError, match="--rebuild"):
        FingerprintIndex.open(Catalog.open(tmp_path / "c"))
    find([tmp_path / "c"], tmp_path / "out")
    assert kinds(tmp_path / "out") == {("music.wav", "twin.wav"): "identical"}
    FingerprintIndex.open(Catalog.open(tmp_path / "c"))


def test_a_group_without_files_is_an_error_that_names_the_labels(
    catalog: Path, tmp_path: Path
) -> None:
    with pytest.raises(CatalogError, match=r"'trian'.*split=test, split=train"):
        find([catalog], tmp_path, between=("trian", "test"))
    with pytest.raises(EarmarkError, match="no catalog"):
        find([], tmp_path)


def test_only_the_kinds_asked_for(catalog: Path, tmp_path: Path) -> None:
    summary = find([catalog], tmp_path, kinds=(DuplicateKind.IDENTICAL,))
    assert kinds(tmp_path) == {("music.wav", "twin.wav"): "identical"}
    assert summary.n_pairs == {"identical": 1}
    assert summary.n_files == 14


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages whose shards are worked on."""
    done: list[str] = []
    for stage in (stages.CandidateStage, stages.SketchStage, stages.VerifyStage):

        def process(self: Any, shard: int, state: Any, real: Any = stage.process) -> None:
            done.append(self.name)
            real(self, shard, state)

        monkeypatch.setattr(stage, "process", process)
    return done


def test_a_run_that_was_ended_goes_on_where_it_was(
    catalog: Path, found: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise CatalogError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "judge", full)
        with pytest.raises(CatalogError, match="disk full"):
            find([catalog], tmp_path)
    assert {"candidates", "sketches"} < set(counted)
    assert not (tmp_path / "pairs.parquet").exists()
    counted.clear()
    find([catalog], tmp_path)
    assert set(counted) == {"verdicts"}
    for name in ("pairs.parquet", "unpaired.parquet"):
        assert pq.read_table(tmp_path / name).equals(pq.read_table(found / name))
    # What is complete is not done again.
    counted.clear()
    find([catalog], tmp_path)
    assert counted == []


def test_files_that_are_gone_are_compared_by_their_fingerprints(
    folder: Path, tmp_path: Path
) -> None:
    names = [folder / "a" / "music.wav", folder / "b" / "coded.flac", folder / "a" / "other.wav"]
    copies = [tmp_path / "in" / path.name for path in names]
    copies[0].parent.mkdir()
    for path, copy in zip(names, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    run([tmp_path / "in"], tmp_path / "c", **REAL)
    copies[0].unlink()
    find([tmp_path / "c"], tmp_path / "out")
    assert kinds(tmp_path / "out") == {("coded.flac", "music.wav"): "same-audio"}
    row = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()[0]
    assert "could not be read again" in row["reason"]


def test_threads_give_the_same_pairs(catalog: Path, found: Path, tmp_path: Path) -> None:
    find([catalog], tmp_path, threads=1)
    tables = [pq.read_table(path / "pairs.parquet") for path in (found, tmp_path)]
    assert tables[0].equals(tables[1])
    assert Catalog.open(catalog).index_is_current()
