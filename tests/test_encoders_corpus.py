"""Training audio: what a corpus lists, and its decoded cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from encoders import corpus
from encoders.corpus import Item, PcmCache, read_corpus
from encoders.errors import EarmarkError

RATE = 16_000


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "corpus.csv"
    path.write_text(text, encoding="utf-8")
    return path


def write_ramp(path: Path, seconds: float, level: float) -> Item:
    """A constant level, so that an excerpt says where it is from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), level, np.float32), RATE)
    return Item(path, "music", "train")


def cache_of(*lengths: int) -> PcmCache:
    """Recordings whose samples count up over the whole cache."""
    return PcmCache(np.arange(sum(lengths), dtype=np.int16), np.array(lengths))


def positions(signal: np.ndarray) -> np.ndarray:
    """Places in the cache, of the samples of an excerpt of :func:`cache_of`."""
    return np.round(signal * 32768).astype(int)


def test_csv(tmp_path: Path) -> None:
    listing = write_csv(
        tmp_path,
        'path,role,split,licence\n"a, b.ogg",music,train,CC0\nsub/é.wav,noise,dev,CC0\n',
    )
    assert read_corpus(listing) == [
        Item(tmp_path / "a, b.ogg", "music", "train", source="a, b.ogg"),
        Item(tmp_path / "sub" / "é.wav", "noise", "dev", source="sub"),
    ]


def test_labels_and_sources_of_a_csv(tmp_path: Path) -> None:
    listing = write_csv(
        tmp_path, "path,role,split,label,source\na/b.wav,event,train,dog,x\nc.wav,event,dev,,\n"
    )
    assert read_corpus(listing) == [
        Item(tmp_path / "a" / "b.wav", "event", "train", "dog", "x"),
        Item(tmp_path / "c.wav", "event", "dev", "", "c.wav"),
    ]


def test_absolute_paths_in_a_csv_stay(tmp_path: Path) -> None:
    listing = write_csv(tmp_path, "path,role,split\n/data/a.ogg,speech,dev\n")
    assert read_corpus(listing)[0].path == Path("/data/a.ogg")


def test_folder(tmp_path: Path) -> None:
    names = [f"{'deep/' * (i % 3)}track {i:03d}.ogg" for i in range(300)]
    for name in [*names, ".DS_Store", "deep/.hidden"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = read_corpus(tmp_path)
    assert {i.path for i in items} == {tmp_path / name for name in names}
    assert {i.role for i in items} == {"music"}
    n_dev = sum(i.split == "dev" for i in items)
    assert 15 <= n_dev <= 50
    assert len(items) - n_dev == sum(i.split == "train" for i in items)
    # The split goes by the name inside the folder, not by where the folder is or what else it has.
    (tmp_path / names[0]).unlink()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    splits = {i.path.relative_to(tmp_path): i.split for i in items[1:]}
    again = {i.path.relative_to(moved): i.split for i in read_corpus(moved)}
    shared = splits.keys() & again.keys()
    assert len(shared) >= 298
    assert all(splits[name] == again[name] for name in shared)


def test_a_small_folder_has_both_splits(demo_tracks: Path) -> None:
    audio = [i for i in read_corpus(demo_tracks) if i.path.suffix not in {".csv", ".md"}]
    assert {i.split for i in audio} == {"train", "dev"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,role\na.ogg,music\n", r"lacks the column\(s\) split$"),
        ("file,kind\na.ogg,music\n", r"lacks the column\(s\) path, role, split"),
        ("", r"lacks the column\(s\) path, role, split"),
        ("path,role,split\na.ogg,musik,train\n", "unknown role 'musik'; known: music, speech"),
    ],
)
def test_a_wrong_csv_is_told(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=sentence):
        read_corpus(write_csv(tmp_path, text))


def test_a_missing_corpus_is_told(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"cannot read the corpus .*none\.csv: No such file"):
        read_corpus(tmp_path / "none.csv")


def test_audio_given_as_corpus_is_told(demo_tracks: Path) -> None:
    with pytest.raises(EarmarkError, match=r"palace\.ogg"):
        read_corpus(demo_tracks / "palace.ogg")


def test_cache_holds_the_audio_as_it_is(demo_tracks: Path, tmp_path: Path) -> None:
    items = [Item(demo_tracks / n, "music", "train") for n in ("palace.ogg", "musicbox.mp3")]
    cache = PcmCache.build(items, tmp_path, RATE)
    assert len(cache) == 2
    assert cache.samples.dtype == np.int16
    assert len(cache.samples) == cache.lengths.sum()
    expected = corpus.load_audio(demo_tracks / "musicbox.mp3", RATE)
    assert cache.lengths[1] == len(expected)
    decoded = cache.samples[cache.starts[1] :] / 32767
    np.testing.assert_allclose(decoded, np.clip(expected, -1, 1), atol=1 / 32767)


def test_nothing_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [write_ramp(tmp_path / f"{i}.wav", 0.5, i / 8) for i in range(3)]
    steps: list[tuple[int, int]] = []
    first = PcmCache.build(items, tmp_path / "pcm", RATE, lambda *a: steps.append(a))
    assert steps == [(1, 3), (2, 3), (3, 3)]

    def refuse(*args: object) -> np.ndarray:
        raise AssertionError("decoded again")

    monkeypatch.setattr(corpus, "load_audio", refuse)
    again = PcmCache.build(items, tmp_path / "pcm", RATE)
    np.testing.assert_array_equal(again.samples, first.samples)
    np.testing.assert_array_equal(again.lengths, first.lengths)
    # Other files or another rate are another cache.
    for others, rate in ((items[:2], RATE), (items, 8_000)):
        with pytest.raises(AssertionError, match="decoded again"):
            PcmCache.build(others, tmp_path / "pcm", rate)


def test_a_build_that_was_cut_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [write_ramp(tmp_path / f"{i}.wav", 0.5, i / 8) for i in range(3)]

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PcmCache.build(items, tmp_path / "pcm", RATE, interrupt)
    cache = PcmCache.build(items, tmp_path / "pcm", RATE)
    np.testing.assert_array_equal(cache.lengths, [RATE // 2] * 3)
    assert len(cache.samples) == 3 * RATE // 2


def test_bad_files_are_left_out(tmp_path: Path) -> None:
    text = tmp_path / "not audio.mp3"
    text.write_text("a shopping list")
    absent = Item(tmp_path / "absent.ogg", "music", "train")
    good = [write_ramp(tmp_path / "a.wav", 0.5, 0.25), write_ramp(tmp_path / "b.wav", 1, -0.5)]
    items = [Item(text, "music", "train"), good[0], absent, good[1]]
    for _ in range(2):  # Made, and opened again.
        cache = PcmCache.build(items, tmp_path / "pcm", RATE)
        assert len(cache) == 2
        np.testing.assert_array_equal(cache.lengths, [RATE // 2, RATE])
        np.testing.assert_array_equal(cache.samples[cache.starts], [8192, -16384])


def test_no_audio_is_an_empty_cache(tmp_path: Path) -> None:
    assert len(PcmCache.build([], tmp_path, RATE)) == 0
    absent = Item(tmp_path / "absent.ogg", "music", "train")
    assert len(PcmCache.build([absent], tmp_path, RATE)) == 0


def test_excerpts_are_whole_stretches_of_one_recording() -> None:
    cache = cache_of(1000, 3000, 700)
    ends = np.cumsum(cache.lengths)
    for seed in range(300):
        signal = cache.excerpt(600, np.random.default_rng(seed))
        assert signal.dtype == np.float32
        places = positions(signal)
        np.testing.assert_array_equal(places, np.arange(places[0], places[0] + 600))
        assert np.searchsorted(ends, places[0], "right") == np.searchsorted(
            ends, places[-1], "right"
        )


def test_a_short_recording_repeats() -> None:
    cache = cache_of(250)
    places = positions(cache.excerpt(600, np.random.default_rng(0)))
    np.testing.assert_array_equal(places, np.arange(600) % 250)


def test_excerpts_go_by_seconds_not_by_recordings() -> None:
    cache = cache_of(*[100] * 50, 15_000)
    rng = np.random.default_rng(0)
    starts = np.array([positions(cache.excerpt(50, rng))[0] for _ in range(4000)])
    assert np.mean(starts >= 5000) == pytest.approx(0.75, abs=0.03)
    # Within a long recording every place is as likely.
    inside = starts[starts >= 5000] - 5000
    counts, _ = np.histogram(inside, bins=10, range=(0, 15_000))
    assert (np.abs(counts / counts.sum() - 0.1) < 0.025).all()


def test_excerpts_repeat_by_seed() -> None:
    cache = cache_of(5000)
    a, b, c = (cache.excerpt(100, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
