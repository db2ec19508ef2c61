"""The benchmark of deduplication: what it plants, and how it judges. No figure is judged here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SAMPLE_RATE

sys.path.insert(0, str(ROOT / "benchmarks"))

import _dedup_chromaprint as peer
from _dedup_oracle import shares_waveform
from _dedup_scores import (
    pairs_between_sources,
    recall_by_variant,
    repeated_pairs,
    score_pairs,
)
from _planting import Plant, Planter, Unclear, truth, voices
from dedup import extrapolate, growth

from encoders.audio import load_audio, open_audio
from encoders.degrade import change_speed, change_tempo
from index.schema import DuplicateKind

TRACKS = ROOT / "pipelines" / "demo_tracks"


def plant(name: str, start: float = 0, end: float = 30, **how: float | bool) -> Plant:
    return Plant(f"{name}.wav", "song", name, start, end, **how)


def row(a: Plant, b: Plant, kind: DuplicateKind, a_start: float, b_start: float) -> dict:
    times = {"a_start_s": a_start, "a_end_s": 30.0, "b_start_s": b_start, "b_end_s": 30.0}
    return {"a": a.uri, "b": b.uri, "kind": kind.value, "score": 0.9, **times}


def test_what_two_plants_are() -> None:
    original, coded = plant("original"), plant("mp3")
    assert truth(original, plant("identical")) == DuplicateKind.IDENTICAL
    assert truth(original, coded) == DuplicateKind.SAME_AUDIO
    assert truth(coded, plant("trim", 0.3)) == DuplicateKind.SAME_AUDIO
    assert truth(coded, plant("excerpt", 3, 13)) == DuplicateKind.EXCERPT
    assert truth(coded, plant("overlap", 10, 50)) == DuplicateKind.OVERLAP
    assert truth(coded, plant("next", 30, 60)) is None
    assert truth(plant("excerpt", 3, 13), plant("next", 10, 50)) == Unclear.BRIEF
    fast, noisy = plant("fast", speed=1.05, is_near=True), plant("noisy", is_near=True)
    assert truth(original, fast) == DuplicateKind.NEAR
    assert truth(noisy, fast) == Unclear.TWICE_CHANGED


def test_scores_of_right_wrong_and_missing_pairs(tmp_path: Path) -> None:
    a, b = plant("a"), plant("excerpt", 3, 13)
    c, d = plant("c", lead=1.0), Plant(str(tmp_path / "none.wav"), "another", "x", 0, 30)
    rows = [
        row(a, b, DuplicateKind.EXCERPT, 3.02, 0.0),
        row(a, c, DuplicateKind.EXCERPT, 0.0, 1.0),
        row(c, d, DuplicateKind.SAME_AUDIO, 0.0, 0.0),
    ]
    plants = [a, b, c, d]
    between = pairs_between_sources(plants, rows)
    scores = score_pairs(plants, rows, set(), between)
    excerpt = scores["excerpt"]
    assert (excerpt["precision"], excerpt["recall"]) == (0.5, 0.5)
    assert excerpt["time_error_median_s"] == pytest.approx(0.02)
    assert (scores["same-audio"]["precision"], scores["same-audio"]["recall"]) == (0.0, 0.0)
    assert scores["same-audio"]["recall_any_kind"] == 1.0
    assert [found.is_natural for found in between] == [False]
    variants = recall_by_variant([plant("identical"), b], [])
    assert variants["excerpt"] == {"n": 1, "right kind": 0.0, "any kind": 0.0}


def test_music_that_repeats_itself_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    bar = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[: 4 * SAMPLE_RATE]
    other = load_audio(TRACKS / "hacienda.mp3", SAMPLE_RATE)[: 4 * SAMPLE_RATE]
    plants = []
    for number, samples in enumerate([bar, bar / 2, other]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, samples, SAMPLE_RATE)
        plants.append(Plant(str(path), "song", str(number), 4.0 * number, 4.0 * number + 4.0))
    pairs = [(plants[0], plants[1]), (plants[0], plants[2])]
    rows = [{**row(a, b, DuplicateKind.SAME_AUDIO, 0.0, 0.0), "a_end_s": 4.0} for a, b in pairs]
    repeated = repeated_pairs(plants, rows)
    assert repeated == {(plants[0].uri, plants[1].uri)}
    scores = score_pairs(plants, rows, set(), [], repeated)
    assert scores["same-audio"]["reported"] == 1


def test_the_oracle_knows_copies_from_look_alikes(tmp_path: Path) -> None:
    music = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[: 20 * SAMPLE_RATE]
    paths = {name: tmp_path / f"{name}.wav" for name in ("a", "b", "c")}
    soundfile.write(paths["a"], music[: 8 * SAMPLE_RATE], SAMPLE_RATE)
    soundfile.write(paths["b"], 0.5 * music[2 * SAMPLE_RATE : 8 * SAMPLE_RATE], SAMPLE_RATE)
    soundfile.write(paths["c"], music[10 * SAMPLE_RATE : 16 * SAMPLE_RATE], SAMPLE_RATE)
    copy = {"a": str(paths["a"]), "b": str(paths["b"]), "a_start_s": 2.02, "a_end_s": 8.0}
    assert shares_waveform({**copy, "b_start_s": 0.0})
    assert not shares_waveform({**copy, "b": str(paths["c"]), "b_start_s": 0.0})


@pytest.mark.parametrize("change", [change_tempo, lambda x, _, by: change_speed(x, by)])
def test_the_oracle_follows_another_tempo_and_speed(tmp_path: Path, change) -> None:
    music = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[: 20 * SAMPLE_RATE]
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(a, music, SAMPLE_RATE)
    soundfile.write(b, change(music, SAMPLE_RATE, 1.06), SAMPLE_RATE)
    seconds = soundfile.info(b).duration
    whole = {"a": str(a), "b": str(b), "a_start_s": 0.0, "a_end_s": 20.0, "b_start_s": 0.0}
    assert shares_waveform({**whole, "speed": seconds / 20})
    assert not shares_waveform({**whole, "speed": 1.0})


def test_the_oracle_knows_what_went_through_an_equaliser(tmp_path: Path) -> None:
    music = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[4 * SAMPLE_RATE : 6 * SAMPLE_RATE]
    other = load_audio(TRACKS / "palace.ogg", SAMPLE_RATE)[8 * SAMPLE_RATE : 10 * SAMPLE_RATE]
    bright = 0.2 * np.convolve(music, [1.0, -0.9, 0.1], mode="same")
    assert abs(np.corrcoef(music, bright)[0, 1]) < 0.8
    for name, signal in {"a": music, "b": bright, "c": other}.items():
        soundfile.write(tmp_path / f"{name}.wav", signal, SAMPLE_RATE)
    row = {"a": str(tmp_path / "a.wav"), "a_start_s": 0.0, "a_end_s": 2.0, "b_start_s": 0.0}
    assert shares_waveform({**row, "b": str(tmp_path / "b.wav")})
    assert not shares_waveform({**row, "b": str(tmp_path / "c.wav")})


def test_growth_of_costs() -> None:
    rows = [{"files": n, "cpu_s": 0.02 * n} for n in (1000, 10_000)]
    assert growth(*rows) == pytest.approx(1.0)
    assert "(10,000,000 / 10,000)^1.00 / 3600 = 56 CPU h" in extrapolate(rows)
    rows[1]["cpu_s"] *= 10
    assert growth(*rows) == pytest.approx(2.0)


@pytest.mark.slow
def test_planted_files_hold_what_they_say(tmp_path: Path) -> None:
    speech = voices([TRACKS / "ezer-ev.opus"], 20)
    planter = Planter(tmp_path)
    plants = planter.music(0, TRACKS / "palace.ogg", speech, 15.0)
    brief = load_audio(TRACKS / "musicbox.mp3", SAMPLE_RATE)[: 2 * SAMPLE_RATE]
    soundfile.write(tmp_path / "brief.flac", brief, SAMPLE_RATE)
    plants += planter.short(1, tmp_path / "brief.flac")
    assert len({p.uri for p in plants}) == len(plants)
    # A second run reads what is there, and encodes nothing.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}
    again = planter.music(0, TRACKS / "palace.ogg", speech, 15.0)
    assert again + planter.short(1, tmp_path / "brief.flac") == plants
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}
    for p in plants:
        with open_audio(p.uri, SAMPLE_RATE) as stream:
            seconds = sum(map(len, stream.blocks())) / SAMPLE_RATE
        leads = 2 * p.lead
        assert seconds == pytest.approx((p.end - p.start) / p.speed + leads, abs=0.1), p.variant
    if peer.is_installed():
        music = [p for p in plants if p.source.endswith("palace.ogg")]
        scores = peer.score(music, 0.85, peer.agreement(music))
        assert scores["precision"] == 1.0
        assert scores["recall"]["identical"] == 1.0
