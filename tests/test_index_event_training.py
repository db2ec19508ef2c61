from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from events_helpers import Sounding, catalog_of, sounds_of

from encoders.errors import EarmarkError, LabelError
from encoders.features import FeatureSpec
from index.column_index import ColumnIndex
from index.event_examples import training_set
from index.event_learning import known_labels, learn
from index.event_model import EventModel, load_labels
from index.event_search import catalog_parts, detect_part, find_events
from index.label_files import Labelled

SPEC = FeatureSpec()
DOG, CAT = 0, 1


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ColumnIndex:
    """Recordings of half a minute: 24 with dogs, 4 with cats, 20 of other sounds."""
    rng = np.random.default_rng(0)
    recordings = []
    for number in range(24):
        kinds: list[int | None] = [None] * 59
        kinds[10:14], kinds[40:42] = [DOG] * 4, [DOG] * 2
        recordings.append(Sounding(f"dog-{number:02d}.wav", sounds_of(kinds, rng)))
    for number in range(4):
        kinds = [None] * 59
        kinds[20:26] = [CAT] * 6
        recordings.append(Sounding(f"feline-{number}.wav", sounds_of(kinds, rng)))
    for number in range(20):
        # Other sounds have their kinds too.
        kinds = [2 + number % 5] * 10 + [None] * 49
        recordings.append(Sounding(f"other-{number:02d}.wav", sounds_of(kinds, rng)))
    folder = tmp_path_factory.mktemp("events") / "catalog"
    return ColumnIndex.open(catalog_of(folder, recordings), "fingerprint")


def labels(n_dogs: int, n_cats: int) -> list[Labelled]:
    """Both stretches of the first dogs, and the first cats."""
    dogs = [Labelled(i, *span, "dog", False) for i in range(n_dogs) for span in DOG_SPANS]
    return dogs + [Labelled(24 + i, 10.25, 13.25, "cat", False) for i in range(n_cats)]


DOG_SPANS = ((5.25, 7.25), (20.25, 21.25))


@pytest.fixture(scope="module")
def model(index: ColumnIndex, tmp_path_factory: pytest.TempPathFactory) -> EventModel:
    return learn(index, SPEC, labels(8, 2), tmp_path_factory.mktemp("model"))


def test_many_examples_get_a_linear_head_and_few_are_prototypes(model: EventModel) -> None:
    cat, dog = model.classes
    assert (cat.name, cat.method, cat.n_examples, cat.n_recordings) == ("cat", "prototype", 2, 2)
    assert (dog.name, dog.method, dog.n_examples, dog.n_recordings) == ("dog", "linear", 16, 8)
    assert model.heads[1].any()
    assert not model.heads[0].any()
    assert dog.f1 is not None
    assert dog.f1 > 0.9
    # Two are too few to measure on.
    assert cat.f1 is None


@pytest.mark.parametrize(("label", "n_events"), [("dog", 48), ("cat", 4)])
def test_the_others_are_found_by_name(
    index: ColumnIndex, model: EventModel, label: str, n_events: int
) -> None:
    events = find_events(index, model, label, SPEC)
    name = {"cat": "feline", "dog": "dog"}[label]
    right = [e for e in events if e.reference.startswith(name)]
    assert len(right) >= 0.9 * n_events
    assert len(right) >= 0.9 * len(events)
    assert [e.rank for e in events] == list(range(1, len(events) + 1))
    assert all(a.score >= b.score for a, b in itertools.pairwise(events))
    assert all(e.label == e.query == label for e in events)
    if label == "dog":
        for event in right[:40]:
            truth = DOG_SPANS[0] if event.onset_s < 15 else DOG_SPANS[1]
            assert abs(event.onset_s - truth[0]) <= 0.5
            assert abs(event.offset_s - truth[1]) <= 0.5


def test_an_unknown_sound_gets_no_label(model: EventModel) -> None:
    rng = np.random.default_rng(5)
    strange = sounds_of([10 + i % 40 for i in range(400)], rng)
    found = (model.scores(strange) >= model.thresholds).any(axis=1)
    assert found.mean() < 0.05
    assert not model.scores(np.zeros((1, strange.shape[1]), np.float32)).any()


def test_one_example_is_enough_to_find_the_like(index: ColumnIndex, tmp_path: Path) -> None:
    one = [Labelled(24, 10.25, 13.25, "cat", False)]
    model = learn(index, SPEC, one, tmp_path / "model")
    events = find_events(index, model, "cat", SPEC)
    assert {e.reference for e in events[:4]} == {f"feline-{i}.wav" for i in range(4)}


def test_overlapping_sounds_are_both_told(index: ColumnIndex, tmp_path: Path) -> None:
    both = [*labels(6, 4), *(dataclasses.replace(d, label="loud") for d in labels(6, 0))]
    model = learn(index, SPEC, both, tmp_path / "model")
    scores = model.scores(index.of_recording(0)[11:13])
    names = [name for name, s in zip(model.names, scores.max(axis=0), strict=True) if s > 0.5]
    assert {"dog", "loud"} <= set(names)


def test_what_was_refuted_counts_less(index: ColumnIndex, tmp_path: Path) -> None:
    before = learn(index, SPEC, labels(1, 3), tmp_path / "before")
    assert before.classes[0].method == "prototype"
    # Dogs that somebody took for cats, and a cat that is said to be none.
    spans = [(0, *DOG_SPANS[0]), (1, *DOG_SPANS[0]), (27, 10.25, 13.25)]
    wrong = [Labelled(*span, "cat", False) for span in spans]
    after = learn(index, SPEC, labels(1, 3), tmp_path / "after", refuted=wrong)
    assert after.classes[0].method == "linear"
    window = index.of_recording(27)[21:25]
    assert after.scores(window)[:, 0].max() < before.scores(window)[:, 0].max()
    known, refuted = known_labels(index, load_labels(tmp_path / "after"))
    assert refuted == wrong
    assert known == labels(1, 3)


def test_it_is_saved_whole_and_read_again(
    index: ColumnIndex, model: EventModel, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    learn(index, SPEC, labels(2, 2), folder)
    learn(index, SPEC, labels(8, 2), folder)
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".npy", ".parquet"]
    again = EventModel.load(folder)
    np.testing.assert_array_equal(
        again.scores(index.vectors[:100]), model.scores(index.vectors[:100])
    )
    assert again.classes == model.classes


def test_another_encoder_or_other_features_are_refused(
    index: ColumnIndex, model: EventModel
) -> None:
    other = dataclasses.replace(index.info.encoder, sha256="cc" * 32)
    with pytest.raises(EarmarkError, match=r"learned from f aaaaaaaaaaaa .* made by f cccccc"):
        model.check("fingerprint", other, SPEC)
    with pytest.raises(EarmarkError, match="other features"):
        model.check("fingerprint", index.info.encoder, FeatureSpec(n_mels=64))
    with pytest.raises(EarmarkError, match="knows no 'wolf', only cat, dog"):
        find_events(index, model, "wolf", SPEC)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "no event model"),
        (lambda f: (f / "model.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "model.json").write_text('{"format_version": 9}'), "format 9"),
        (lambda f: next(f.glob("*.npy")).write_bytes(b"x"), "not as written"),
        (lambda f: next(f.glob("*.npy")).unlink(), "damaged"),
    ],
)
def test_a_damaged_model_is_told(
    index: ColumnIndex, tmp_path: Path, damage: object, message: str
) -> None:
    learn(index, SPEC, labels(2, 2), tmp_path / "model")
    damage(tmp_path / "model")  # type: ignore[operator]
    with pytest.raises(EarmarkError, match=message):
        EventModel.load(tmp_path / "model")


def test_the_model_is_json_and_numbers(index: ColumnIndex, tmp_path: Path) -> None:
    learn(index, SPEC, labels(2, 2), tmp_path / "model")
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    assert content["encoder"]["sha256"] == "aa" * 32
    assert content["spec"] == SPEC.to_dict()
    assert np.load(tmp_path / "model" / content["files"]["vectors"], allow_pickle=False).ndim == 2


def test_a_whole_recording_counts_where_it_is_loud(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    recordings = [
        Sounding("loud.wav", sounds_of([DOG] * 4, rng)),
        Sounding("silent.wav", sounds_of([DOG] * 4, rng), peak_db=-90.0),
    ]
    index = ColumnIndex.open(catalog_of(tmp_path / "catalog", recordings), "fingerprint")
    data = training_set(index, [Labelled(0, 0.0, 2.5, "dog", True)], SPEC)
    assert (data.targets == 1).sum() == 4
    with pytest.raises(LabelError, match="'dog' is silent"):
        training_set(index, [Labelled(1, 0.0, 2.5, "dog", True)], SPEC)
    with pytest.raises(LabelError, match="no labels"):
        training_set(index, [Labelled(0, 0.0, 2.5, "background", True)], SPEC)


def test_part_by_part_is_the_same_as_all_at_once(index: ColumnIndex, model: EventModel) -> None:
    from index.catalog import Catalog

    catalog = Catalog.open(index.folder.parent.parent)
    tables = [detect_part(catalog, model, part) for part in catalog_parts(catalog)]
    rows = [row for table in tables for row in table.to_pylist() if row["label"] == "dog"]
    found = {(e.reference, e.onset_s, e.offset_s) for e in find_events(index, model, "dog", SPEC)}
    assert {(row["uri"], row["onset_s"], row["offset_s"]) for row in rows} == found
