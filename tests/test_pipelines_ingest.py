from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ingest_helpers import (
    FINGERPRINT,
    VAE,
    assert_same_content,
    count_ok,
    leftovers,
    rows,
    run,
    tone_bytes,
    write_folder,
    write_tone,
)

from encoders.audio import load_audio
from encoders.bundle import load_bundle
from encoders.errors import CatalogError, EarmarkError
from encoders.features import cut_windows, log_mel, mfcc, mfcc_summary
from index.catalog import Catalog
from pipelines import shard
from pipelines.inputs import Input
from pipelines.progress import Interrupted, RunState
from pipelines.shard import make_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


def test_windows_are_those_of_the_encoders(demo_tracks: Path, tmp_path: Path) -> None:
    track = demo_tracks / "palace.ogg"
    run([track], tmp_path / "c", keep_mfcc="full")
    row = rows(tmp_path / "c")[str(track)]
    assert row["status"] == "ok"
    assert row["error"] is None
    assert (row["container"], row["codec"], row["channels"]) == ("ogg", "vorbis", 2)
    assert row["n_bytes"] == track.stat().st_size
    bundle, vae = load_bundle(FINGERPRINT), load_bundle(VAE)
    signal_ = load_audio(track, bundle.spec.sample_rate)
    windows = cut_windows(log_mel(signal_, bundle.spec), bundle.spec)
    catalog = Catalog.open(tmp_path / "c")
    table = pa.Table.from_batches(catalog.iter_windows(catalog.config.windows_schema.names))
    assert table["start_sample"].to_pylist() == [8000 * i for i in range(len(windows))]
    assert row["n_windows"] == len(windows)

    def column(name: str) -> np.ndarray:
        return np.stack(table[name].to_numpy())

    # Quantised activations turn on the last bit of what goes in.
    cosine = (column("fingerprint") * bundle.encode(windows)).sum(axis=1)
    assert np.median(cosine) > 0.999
    assert cosine.min() > 0.98
    assert np.corrcoef(column("latent").ravel(), vae.encode(windows).ravel())[0, 1] > 0.99
    np.testing.assert_allclose(column("mfcc"), mfcc_summary(windows, bundle.spec), atol=1e-2)
    frames = mfcc(windows, bundle.spec).reshape(len(windows), -1)
    np.testing.assert_allclose(column("mfcc_frames"), frames, atol=1e-2)
    np.testing.assert_allclose(column("peak_db"), windows.max(axis=(1, 2)), atol=1e-3)


def test_a_second_run_does_nothing(folder: Path, tmp_path: Path) -> None:
    assert count_ok(run([folder], tmp_path / "c")) == 3
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("*.parquet")}
    again = run([folder], tmp_path / "c")
    assert (again.n_todo, again.n_done_before, again.n_shards) == (0, 3, 0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("*.parquet")} == before


def test_only_what_is_new_or_changed_is_ingested(folder: Path, tmp_path: Path) -> None:
    run([folder], tmp_path / "c")
    write_tone(folder / "d.wav", 2.0, 700)
    (folder / "a.wav").write_bytes(tone_bytes(4.0, 800))
    (folder / "b.flac").unlink()
    grown = run([folder], tmp_path / "c")
    assert (grown.n_todo, count_ok(grown), grown.n_done_before) == (2, 2, 1)
    found = rows(tmp_path / "c")
    assert len(found) == 4, "what vanished from the disk stays in the catalog"
    assert found[str(folder / "a.wav")]["n_windows"] == 7
    write_tone(tmp_path / "fresh" / "x.wav")
    write_tone(folder / "b.flac", 1.0, 400, audio_format="FLAC")
    os.utime(folder / "b.flac", ns=(0, found[str(folder / "b.flac")]["modified_ns"]))
    run([folder], tmp_path / "undisturbed")
    mine, theirs = Catalog.open(tmp_path / "c"), Catalog.open(tmp_path / "undisturbed")
    assert mine.recordings().equals(theirs.recordings())
    columns = ["recording_id", "start_sample", "fingerprint", "latent", "mfcc"]
    keys = [("recording_id", "ascending"), ("start_sample", "ascending")]
    a, b = (
        pa.Table.from_batches(c.iter_windows(columns)).combine_chunks().sort_by(keys)
        for c in (mine, theirs)
    )
    assert a.equals(b), "stale windows of a changed file must not be read"


def test_a_touched_file_is_read_again(folder: Path, tmp_path: Path) -> None:
    run([folder], tmp_path / "c")
    os.utime(folder / "a.wav", ns=(1, 1))
    assert run([folder], tmp_path / "c").n_todo == 1


def test_failed_inputs_are_tried_again_only_on_request(tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF but no more")
    assert run([bad], tmp_path / "c").failed == 1
    again = run([bad], tmp_path / "c")
    assert (again.n_todo, again.n_failed_before) == (0, 1)
    assert run([bad], tmp_path / "c", retry_failed=True).failed == 1
    write_tone(bad)
    assert count_ok(run([bad], tmp_path / "c")) == 1
    assert run([bad], tmp_path / "c", retry_failed=True).n_todo == 0


def test_an_input_given_twice_is_ingested_once(folder: Path, tmp_path: Path) -> None:
    summary = run([folder, folder / "a.wav", folder], tmp_path / "c")
    assert (summary.n_inputs, summary.n_duplicates, count_ok(summary)) == (3, 4, 3)


def test_two_names_of_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (folder / "0.wav").write_bytes((folder / "a.wav").read_bytes())
    assert count_ok(run([folder], tmp_path / "c")) == 4
    found = rows(tmp_path / "c")
    names = [str(folder / "0.wav"), str(folder / "a.wav")]
    assert len({found[name]["recording_id"] for name in names}) == 1
    assert {found[name]["n_windows"] for name in names} == {5}
    catalog = Catalog.open(tmp_path / "c")
    uris = catalog.indexed_recordings()["uri"].to_pylist()
    assert names[0] in uris
    assert names[1] not in uris


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shard_files", [1, 32])
def test_shards_and_threads_do_not_change_the_rows(
    folder: Path, tmp_path: Path, threads: int, shard_files: int
) -> None:
    for i in range(70):
        (folder / f"{i:02d}.wav").write_bytes(b"not audio")
    run([folder], tmp_path / "reference", threads=2, shard_files=2)
    run([folder], tmp_path / "c", threads=threads, shard_files=shard_files)
    assert_same_content(tmp_path / "c", tmp_path / "reference")


def test_shards_are_bounded_and_keep_the_order() -> None:
    inputs = [Input(f"{i:05d}", n_bytes=10) for i in range(3_000)]
    shards = make_shards(inputs, 32, 1000)
    assert [item for shard_ in shards for item in shard_] == inputs
    assert {len(shard_) for shard_ in shards[:-1]} == {32}
    assert max(len(s) for s in make_shards(inputs, 32, 50)) == 5
    large = [Input("a", 5), Input("b", 99), Input("c", 5)]
    assert [len(s) for s in make_shards(large, 32, 50)] == [1, 1, 1]
    assert len(make_shards(inputs[:64], 32, 1000)) == 32, "enough shards for all cores"


def test_a_status_row_that_is_missing_fails_the_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shard.process_shard

    def lose_one(items: list[Input], *args: Any) -> int:
        return whole(items, *args) - any(item.uri.endswith("a.wav") for item in items)

    monkeypatch.setattr(shard, "process_shard", lose_one)
    with pytest.raises(Exception, match="only 2 of 3 were done"):
        run([folder], tmp_path / "c")


def test_a_bug_surfaces(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(shard, "mfcc_summary", broken)
    with pytest.raises(Exception, match="a bug"):
        run([folder], tmp_path / "c")
    assert leftovers(tmp_path / "c") == []


def test_an_interrupted_shard_does_not_hide_the_error() -> None:
    state = RunState()
    state.abort(Interrupted())
    state.abort(ZeroDivisionError("a bug"))
    state.abort(KeyError("a later one"))
    with pytest.raises(Interrupted):
        state.check()
    assert str(state.error) == "a bug"


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    summary = run([folder], tmp_path / "c", dry_run=True)
    assert (summary.n_todo, summary.ok) == (3, 0)
    assert not (tmp_path / "c").exists()
    run([folder], tmp_path / "c")
    write_tone(folder / "d.wav")
    before = sorted((tmp_path / "c").rglob("*"))
    summary = run([folder], tmp_path / "c", dry_run=True)
    assert (summary.n_todo, summary.n_done_before) == (1, 3)
    assert sorted((tmp_path / "c").rglob("*")) == before


def test_too_many_failures_stop_the_run_and_what_is_done_stays(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i:03d}.wav").write_bytes(b"not audio")
    summary = run([tmp_path / "in"], tmp_path / "c", max_failures=10, threads=1)
    assert summary.stopped
    assert summary.failed == len(rows(tmp_path / "c")) == 11
    assert leftovers(tmp_path / "c") == []
    rest = run([tmp_path / "in"], tmp_path / "c")
    assert (rest.n_done_before, rest.failed, rest.stopped) == (11, 89, False)


def test_other_settings_are_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    run([folder], tmp_path / "c")
    before = sorted((tmp_path / "c").rglob("*"))
    write_tone(folder / "d.wav")
    for change in ({"precision": "float32"}, {"keep_mfcc": "full"}, {"vae": "vae"}):
        with pytest.raises(CatalogError, match="made with other settings"):
            run([folder], tmp_path / "c", **change)
    assert sorted((tmp_path / "c").rglob("*")) == before


def test_the_catalog_remembers_its_settings(folder: Path, tmp_path: Path) -> None:
    run([folder / "a.wav"], tmp_path / "c", precision="float32", keep_mfcc="full")
    assert count_ok(run([folder], tmp_path / "c")) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vae": FINGERPRINT}, "--encoder takes a siamese, --vae a vae"),
        ({"beam_args": ("--runner=Nope",)}, "cannot use the runner Nope"),
    ],
)
def test_a_wrong_bundle_or_runner_is_refused(
    change: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(EarmarkError, match=words):
        run([folder], tmp_path / "c", **change)


def test_a_catalog_has_to_be_a_folder(folder: Path) -> None:
    with pytest.raises(EarmarkError, match="is a URI"):
        run([folder], Path("gs://bucket/catalog"))


def test_a_runner_that_loses_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="DaskRunner"):
        run([folder], tmp_path / "c", beam_args=("--runner=DaskRunner",))


def test_another_runner_does_the_same(folder: Path, tmp_path: Path) -> None:
    # Named in full, it is not the embedded default: nothing is shared but the catalog.
    runner = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    assert count_ok(run([folder], tmp_path / "c", beam_args=(runner,))) == 3
    run([folder], tmp_path / "reference")
    assert_same_content(tmp_path / "c", tmp_path / "reference")
