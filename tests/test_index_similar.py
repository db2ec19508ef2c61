from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE_RATE
from events_helpers import Sounding, catalog_of, kind, sounds_of
from ingest_helpers import VAE, run

from encoders.errors import AudioError, CatalogError, EarmarkError
from index.column_index import ColumnIndex
from index.similar import SimilarSounds

TRACKS = ("palace.ogg", "musicbox.mp3", "eureka.m4a", "restaurant.ogg")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """Real music and the babble of a restaurant, each with a label."""
    folder = tmp_path_factory.mktemp("similar")
    manifest = folder / "tracks.csv"
    lines = [f"{demo_tracks / t},{'noise' if t == 'restaurant.ogg' else 'music'}" for t in TRACKS]
    manifest.write_text("\n".join(["uri,label", *lines]))
    run([manifest], folder / "catalog")
    return folder / "catalog"


@pytest.fixture(scope="module")
def sounds(catalog: Path) -> SimilarSounds:
    return SimilarSounds(catalog, bundle=VAE)


def test_a_clip_is_like_the_place_it_was_cut_from(sounds: SimilarSounds, demo_tracks: Path) -> None:
    events = sounds.find(demo_tracks / "palace.ogg", 12.0, 13.0, top=3)
    best = events[0]
    assert Path(best.reference).name == "palace.ogg"
    assert best.onset_s <= 12.5 <= best.offset_s
    assert best.score > 0.9
    assert best.label == "music"
    assert [event.rank for event in events] == [1, 2, 3]
    assert len({event.reference for event in events}) == 3
    scores = [event.score for event in events]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= event.onset_s < event.offset_s for event in events)


def test_a_fifth_of_a_second_is_enough(
    sounds: SimilarSounds, music: tuple[np.ndarray, int], tmp_path: Path
) -> None:
    clip = tmp_path / "short.wav"
    soundfile.write(clip, music[0][: SAMPLE_RATE // 5], SAMPLE_RATE)
    assert sounds.find(clip)
    soundfile.write(clip, music[0][: SAMPLE_RATE // 50], SAMPLE_RATE)
    with pytest.raises(AudioError, match="too short"):
        sounds.find(clip)


def test_the_clip_itself_can_be_left_out(sounds: SimilarSounds, demo_tracks: Path) -> None:
    track = demo_tracks / "palace.ogg"
    everything = sounds.find(track, 12.0, 13.0, per_recording=50, top=50)
    others = sounds.find(track, 12.0, 13.0, per_recording=50, top=50, exclude_self=True)
    own = [e for e in others if Path(e.reference).name == "palace.ogg"]
    assert any(e.onset_s < 13 and e.offset_s > 12 for e in everything)
    # The rest of the recording still counts.
    assert own
    assert not [e for e in own if e.onset_s < 12.5 < e.offset_s]
    # Known by its bytes, whatever its name.
    assert sounds.find(track.read_bytes(), 12.0, 13.0, exclude_self=True)[0].score < 0.99
    whole = sounds.find(track, exclude_self=True)
    assert "palace.ogg" not in {Path(e.reference).name for e in whole}


def test_several_regions_of_a_recording_lie_apart(sounds: SimilarSounds, demo_tracks: Path) -> None:
    events = sounds.find(demo_tracks / "musicbox.mp3", 3.0, 4.0, per_recording=5, top=40)
    by_recording: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        by_recording.setdefault(event.reference, []).append((event.onset_s, event.offset_s))
    assert 1 < max(map(len, by_recording.values())) <= 5
    for spans in by_recording.values():
        ordered = sorted(spans)
        assert all(a[1] <= b[0] + 0.5 for a, b in itertools.pairwise(ordered))


def test_only_recordings_with_a_label(sounds: SimilarSounds, demo_tracks: Path) -> None:
    clip = demo_tracks / "palace.ogg"
    babble = demo_tracks / "restaurant.ogg"
    found = sounds.find(babble, 1.0, 2.0, where={"label": "noise"})
    assert {Path(e.reference).name for e in found} == {"restaurant.ogg"}
    found = sounds.find(clip, 1.0, 2.0, where={"uri": "musicbox", "label": "music"})
    assert {Path(e.reference).name for e in found} == {"musicbox.mp3"}
    with pytest.raises(EarmarkError, match=r"label=dog; known: uri, label"):
        sounds.find(clip, where={"label": "dog"})


def test_silence_and_stretches_that_are_not_there_are_refused(
    sounds: SimilarSounds, demo_tracks: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(AudioError, match="silent"):
        sounds.find(tmp_path / "silence.wav")
    with pytest.raises(AudioError, match="no stretch from 900"):
        sounds.find(demo_tracks / "palace.ogg", 900.0)


def test_regions_are_the_runs_of_like_windows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rain = [None, None, 1, 1, 1, None, None, 1, None]
    catalog = catalog_of(
        tmp_path / "catalog",
        [
            Sounding("long.wav", sounds_of([1] * 600, rng, 0.05)),
            Sounding("rain.wav", sounds_of(rain, rng, 0.05)),
        ],
    )
    sounds = object.__new__(SimilarSounds)
    sounds.catalog, sounds.spec = catalog, catalog.config.spec
    sounds.index = ColumnIndex.open(catalog, "fingerprint")
    sounds._seconds = sounds.index.recordings["seconds"].to_numpy()
    # One recording that is nothing but rain does not hide the other.
    found = sounds.regions(kind(1)[None], top=9, per_recording=5)
    mine = [r for r in found if r.recording == 1]
    assert sorted((r.first, r.last) for r in mine) == [(2, 4), (7, 7)]
    assert [sounds.span(r) for r in sorted(mine, key=lambda r: r.first)] == [
        (1.25, 2.75), (3.5, 4.5),
    ]  # fmt: skip


def test_another_encoder_is_refused(catalog: Path) -> None:
    with pytest.raises(EarmarkError, match="--bundle"):
        SimilarSounds(catalog)
    with pytest.raises(CatalogError, match="no column"):
        SimilarSounds(catalog, "event")
