"""Which files, what happens to queries, and which answers are right."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_helpers import DEV, NOISE, TRAIN, Recordings, write_corpus

from encoders.corpus import read_corpus
from encoders.degrade import change_speed
from encoders.errors import EarmarkError
from index.metrics import Outcome
from pipelines.evaluate import selection
from pipelines.evaluate.answers import Answered, AnswerLog
from pipelines.evaluate.conditions import CONDITIONS, Resources, Scene
from pipelines.evaluate.queries import Query, list_queries, to_csv
from pipelines.evaluate.references import SAMPLE_RATE
from pipelines.evaluate.selection import Selection, select
from pipelines.evaluate.truth import judge
from pipelines.peers import NOTHING, Answer

RATE = SAMPLE_RATE


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def choose(folder: Path, tracks: Path, hours: float = 1.0) -> Selection:
    corpus = write_corpus(folder, tracks)
    return select(read_corpus(corpus), corpus.parent, hours)


def test_selection(demo_tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LEFT_OUT", 2)
    chosen = choose(tmp_path / "a", demo_tracks)
    assert sorted(names(chosen.kept + chosen.withheld)) == sorted(DEV)
    assert len(chosen.kept) == len(chosen.withheld) == 2
    assert chosen.distractors
    assert chosen.music
    assert sorted(names(chosen.distractors + chosen.music)) == sorted(TRAIN)
    assert names(chosen.ambience) == [NOISE]
    assert not set(chosen.withheld) & set(chosen.without_withheld)
    assert set(chosen.references) == {*chosen.kept, *chosen.withheld, *chosen.distractors}

    elsewhere = choose(tmp_path / "far" / "b", demo_tracks)
    for field in ("kept", "withheld", "distractors", "music"):
        assert names(getattr(elsewhere, field)) == names(getattr(chosen, field))
    assert not choose(tmp_path / "c", demo_tracks, hours=0.0).distractors


def test_a_namesake_of_a_reference_is_no_background(
    demo_tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "LEFT_OUT", 1)
    assert sorted(names(choose(tmp_path / "a", demo_tracks).music)) == sorted(TRAIN)
    corpus = write_corpus(tmp_path / "b", demo_tracks)
    (tmp_path / "b" / "Palace.OGG").write_bytes(b"")
    corpus.write_text(corpus.read_text() + "Palace.OGG,music,train\n")
    assert sorted(names(select(read_corpus(corpus), corpus.parent, 1.0).music)) == sorted(TRAIN)


def test_a_corpus_without_music_to_ask_for(demo_tracks: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a", demo_tracks)
    items = [item for item in read_corpus(corpus) if item.split == "train"]
    with pytest.raises(EarmarkError, match="at least two files of music"):
        select(items, corpus.parent, 1.0)


class Hum:
    """Background of one kind."""

    def __init__(self, pitch: float) -> None:
        self.pitch = pitch

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        t = np.arange(n_samples) / RATE + rng.uniform(0, 1)
        return np.sin(2 * np.pi * self.pitch * t).astype(np.float32) / 4


@pytest.fixture(scope="module")
def resources() -> Resources:
    rooms = np.zeros((2, RATE), np.float32)
    rooms[:, 0] = 1.0
    decay = np.exp(-np.arange(RATE // 2) / 2000)
    rooms[:, : RATE // 2] += 0.05 * np.random.default_rng(0).normal(size=(2, RATE // 2)) * decay
    return Resources({"ambience": Hum(100), "voices": Hum(200), "music": Hum(300)}, rooms)


def place_of(heard: np.ndarray, at: int, original: np.ndarray, around: int) -> float:
    """Where in ``original`` the 0.2 s of ``heard`` from ``at`` on are, minus ``around``, s."""
    n, reach = RATE // 5, RATE // 5
    stretch = original[around - reach : around + n + reach]
    energy = np.sqrt(np.convolve(np.square(stretch), np.ones(n), "valid"))
    correlation = np.correlate(stretch, heard[at : at + n], "valid") / (energy + 1e-3)
    return (float(np.argmax(correlation)) - reach) / RATE


@pytest.mark.parametrize("name", [n for n in CONDITIONS if not n.startswith("pitch")])
def test_a_condition_keeps_time(
    name: str, music: tuple[np.ndarray, int], resources: Resources
) -> None:
    recordings: Any = Recordings({"a": music[0]})
    kinds = resources.backgrounds if CONDITIONS[name].noisy else [""]
    errors = []
    for number in range(5):
        start, kind = (5 + 3 * number) * RATE + 123, kinds[number % len(kinds)]
        query = Query("q", "a", start, 2.0, name, kind, False, number)
        heard = query.make(recordings, resources)
        assert (heard.shape, heard.dtype) == ((2 * RATE,), np.int16)
        assert np.abs(heard).max() > 300
        assert np.abs(heard[-RATE // 10 :]).max() > 0
        assert np.array_equal(heard, query.make(recordings, resources))
        signal, speed = heard / np.float32(32767), query.way.speed
        if name.startswith("speed"):
            signal, speed = change_speed(signal, 1 / speed), 1.0
        for at in (RATE // 2, RATE, 3 * RATE // 2):
            # A piece of another tempo keeps its own speed: compare its middle.
            middle = query.start_sample + speed * (at + RATE // 10)
            errors.append(place_of(signal, at, music[0], round(middle) - RATE // 10))
    assert abs(np.median(errors)) < 0.01


def test_pitch_is_changed_without_speed() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(4 * RATE) / RATE).astype(np.float32)
    recordings: Any = Recordings({"a": tone})
    for name, ratio in (("pitch+50", 2 ** (1 / 24)), ("pitch-50", 2 ** (-1 / 24))):
        query = Query("q", "a", RATE, 2.0, name, "", False, 0)
        heard = query.make(recordings, Resources({}, np.empty((0, 0))))
        pitch = np.argmax(np.abs(np.fft.rfft(heard))) / 2
        assert pitch == pytest.approx(500 * ratio, abs=1)
        assert query.way.speed == 1.0


def test_noise_has_the_level_that_it_says(resources: Resources) -> None:
    signal = np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
    for name, snr_db in (("noise10", 10), ("noise-5", -5)):
        scene = Scene(np.random.default_rng(0), "ambience", resources)
        heard = CONDITIONS[name].play(signal, RATE, scene) / 32767
        noise = heard - signal
        measured = 10 * np.log10(np.mean(signal**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr_db, abs=0.2)


def test_backgrounds_of_a_corpus_that_has_none() -> None:
    bare = Resources({}, np.empty((0, 0)))
    assert bare.backgrounds == ["coloured"]
    assert bare.background("coloured", 800, np.random.default_rng(0)).shape == (800,)
    assert Resources({"voices": Hum(1)}, bare.rooms).backgrounds == ["speech", "babble"]


def listed(recordings: Recordings, **changes: Any) -> list[Query]:
    settings: dict[str, Any] = {
        "kept": ["a"], "withheld": ["b"], "backgrounds": ["music", "speech"],
        "conditions": ["clean", "noise5", "speed+5"], "lengths": [1.0, 2.0], "n_present": 6,
        "n_absent": 2, "seed": 0,
    }  # fmt: skip
    anything: Any = recordings
    return list_queries(anything, **(settings | changes))


def test_the_list_of_queries() -> None:
    rng = np.random.default_rng(0)
    sounds = {name: rng.normal(0, 0.1, n * RATE).astype(np.float32) for name, n in
              (("a", 30), ("b", 10))}  # fmt: skip
    sounds["a"][: 15 * RATE] = 0.0
    recordings = Recordings(sounds)
    queries = listed(recordings)
    assert len({q.id for q in queries}) == len(queries) == 3 * 2 * (6 + 2)
    assert {q.track for q in queries if q.absent} == {"b"}
    assert {q.track for q in queries if not q.absent} == {"a", "b"}
    assert {q.background for q in queries if q.condition == "noise5"} == {"music", "speech"}
    assert {q.background for q in queries if q.condition != "noise5"} == {""}
    for q in queries:
        end = q.start_sample + q.seconds * q.way.speed * RATE
        assert 0 <= q.start_sample < end <= len(sounds[q.track])
        assert np.abs(q.clean(recordings)).max() > 0  # type: ignore[arg-type]
    rows = list(csv.DictReader(io.StringIO(to_csv(queries))))
    assert [row["id"] for row in rows] == [q.id for q in queries]
    assert [float(row["start_s"]) * RATE for row in rows] == [q.start_sample for q in queries]

    assert listed(recordings) == queries
    assert to_csv(listed(recordings, seed=1)) != to_csv(queries)
    fewer = listed(recordings, conditions=["noise5"], lengths=[2.0])
    assert fewer == [q for q in queries if (q.condition, q.seconds) == ("noise5", 2.0)]


@pytest.mark.parametrize(("seconds", "reason"), [(1.0, "all are silent"), (60.0, "longer than 60")])
def test_no_queries_can_be_cut(seconds: float, reason: str) -> None:
    silence = Recordings({name: np.zeros(10 * RATE, np.float32) for name in "ab"})
    with pytest.raises(EarmarkError, match=reason):
        listed(silence, lengths=[seconds])


@pytest.fixture(scope="module")
def recordings() -> Any:
    """``a`` and its twin have the same bytes; ``other`` holds the same sound 0.1 s later."""
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    sound[12 * RATE : 16 * RATE] = sound[4 * RATE : 8 * RATE]  # A loop.
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * RATE).astype(np.float32)
    late = np.concatenate([np.zeros(RATE // 10, np.float32), 0.5 * sound])
    return Recordings({"a": sound, "twin": sound, "other": late, "noise": noise}, {"twin": "a"})


def verdict(recordings: Any, reference: str, start_s: float, at: float = 5.0) -> Outcome:
    query = Query("q", "a", round(at * RATE), 2.0, "clean", "", False, 0)
    return judge(query, Answer(reference, start_s, 0.7, True), recordings)


@pytest.mark.parametrize(
    ("reference", "start_s", "expected", "error_s"),
    [
        # recording, exact, near, and strictly so
        ("a", 5.02, (True, True, True, True, True, True), 0.02),
        ("twin", 4.8, (True, True, True, True, True, True), 0.2),
        ("a", 5.4, (True, False, True, True, False, True), 0.4),
        ("a", 9.0, (True, False, False, True, False, False), 4.0),
        # The loop
        ("a", 13.1, (True, True, True, True, False, False), 0.1),
        ("a", 13.4, (True, False, True, True, False, False), 0.4),
        # The same sound in another file
        ("other", 5.1, (True, True, True, False, False, False), 0.0),
        ("other", 5.5, (True, False, True, False, False, False), 0.4),
        ("other", 15.0, (False, False, False, False, False, False), None),
        ("noise", 5.0, (False, False, False, False, False, False), None),
        ("noise", -500.0, (False, False, False, False, False, False), None),
    ],
)
def test_truth(
    recordings: Any, reference: str, start_s: float, expected: tuple[bool, ...], error_s: float
) -> None:
    found = verdict(recordings, reference, start_s)
    hits = (found.recording, found.exact, found.near, found.same_recording, found.strictly_exact,
            found.strictly_near)  # fmt: skip
    assert hits == expected
    assert found.error_s == (None if error_s is None else pytest.approx(error_s, abs=1e-3))
    assert (found.score, found.accepted) == (0.7, True)


def test_what_is_absent_may_be_there_in_part() -> None:
    rng = np.random.default_rng(2)
    drums, mine, theirs = (rng.normal(0, 0.1, 20 * RATE).astype(np.float32) for _ in range(3))
    recordings = Recordings({"mine": mine + 0.5 * drums, "theirs": theirs + 0.5 * drums})

    def shares(start_s: float, absent: bool = True, reference: str = "theirs") -> bool:
        query = Query("q", "mine", 5 * RATE, 2.0, "clean", "", absent, 0)
        found = judge(query, Answer(reference, start_s, 0.7, True), recordings)
        assert not found.recording
        return found.shares

    assert shares(5.0)
    assert shares(5.008)
    assert not shares(5.05), "it must be the very place"
    assert not shares(9.0)
    assert not shares(5.0, absent=False), "what is asked of present music is its place"
    recordings = Recordings({"mine": mine, "theirs": theirs})
    assert not shares(5.0)


def test_truth_compares_the_middle_of_the_query(recordings: Any) -> None:
    query = Query("q", "a", 2 * RATE, 10.0, "speed+5", "", False, 0)
    # The whole query is 10.5 s of the recording; at its own speed the answer is right.
    assert judge(query, Answer("a", 2.0, 1, True, 1.05), recordings).error_s == pytest.approx(0)
    # Without the speed, the answer that has the middle right is the better one.
    assert judge(query, Answer("a", 2.25, 1, True), recordings).error_s == pytest.approx(0)
    assert not judge(query, Answer("a", 1.9, 1, True), recordings).strictly_exact


def test_nothing_is_not_right(recordings: Any) -> None:
    query = Query("q", "a", 0, 2.0, "clean", "", False, 0)
    assert judge(query, NOTHING, recordings) == Outcome()


def test_answers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = [
        Answered("one", Outcome(0.5, True, True, error_s=0.1), "a", 1.0, 1.05, 0.6, 0.2, 3),
        Answered("two", Outcome()),
    ]
    AnswerLog(path, {"seed": 0}).append(first)
    with path.open("a") as file:
        file.write('{"id": "thr')  # A run was killed here.
    log = AnswerLog(path, {"seed": 0})
    assert log.answers == {"one": first[0], "two": first[1]}
    log.append([Answered("three", Outcome())])
    assert list(AnswerLog(path, {"seed": 0}).answers) == ["one", "two", "three"]
    with pytest.raises(EarmarkError, match="seed was 0 and is 1"):
        AnswerLog(path, {"seed": 1})
