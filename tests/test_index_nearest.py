"""A query looks into as many lists as it takes: few, if it finds what can only be itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import DIM, Recorded, Sound, add_recordings, empty_catalog, noisy

from index import policy
from index.build import build_index
from index.generation import GenerationInfo, live_rows, read_info
from index.nearest import Exact, Inverted, open_nearest
from index.schema import ROWS
from index.search import FingerprintIndex
from index.verify import similarity_of_strangers

KIND = policy.IndexKind("IVF64,PQ64x4fs", 20, 4)
K = 20


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FingerprintIndex:
    """Forty recordings of two minutes."""
    catalog = empty_catalog(tmp_path_factory.mktemp("nearest") / "catalog")
    recordings = [Recorded(f"{n}", Sound(n, 120).reference()) for n in range(40)]
    add_recordings(catalog, recordings)
    with pytest.MonkeyPatch.context() as patch, catalog.writer_lock():
        patch.setattr(policy, "choose", lambda n_rows, dim: KIND)
        build_index(catalog)
    return FingerprintIndex.open(catalog)


def queries(index: FingerprintIndex, similarity: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.choice(len(index.vectors), 300, replace=False)
    return noisy(index.vectors[rows].astype(np.float32), similarity, rng)


def everywhere(index: FingerprintIndex) -> Inverted:
    info = dataclasses.replace(index.info, strangers=1.0)
    nearest = open_nearest(index.folder, info, index.vectors, np.arange(info.n_rows))
    assert isinstance(nearest, Inverted)
    return nearest


def recall(index: FingerprintIndex, scores: np.ndarray, asked: np.ndarray) -> float:
    best = (asked @ index.vectors.astype(np.float32).T).max(axis=1)
    return float(np.mean(scores[:, 0] >= best - 2e-3))


def test_the_more_alike_the_fewer_lists(index: FingerprintIndex) -> None:
    nearest = index._nearest
    assert isinstance(nearest, Inverted)
    lists = [nearest.lists_searched(queries(index, s), K) for s in (0.95, 0.7, 0.5, 0.3)]
    assert np.median(lists[0]) == KIND.n_first
    assert all(a.mean() < b.mean() for a, b in itertools.pairwise(lists))
    assert all(KIND.n_first <= n.min() and n.max() <= KIND.nprobe for n in lists)
    assert np.median(lists[-1]) == KIND.nprobe


@pytest.mark.parametrize("similarity", [0.9, 0.6, 0.4])
def test_little_is_lost(index: FingerprintIndex, similarity: float) -> None:
    asked = queries(index, similarity)
    all_lists = everywhere(index)
    assert (all_lists.lists_searched(asked, K) == KIND.nprobe).all()
    scores, rows = index.search(asked, K)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(line)) == K for line in rows.tolist())
    stored = index.vectors[rows].astype(np.float32)
    np.testing.assert_allclose(scores, np.einsum("qnd,qd->qn", stored, asked), atol=1e-4)
    lost = recall(index, all_lists.search(asked, K)[0], asked) - recall(index, scores, asked)
    assert lost < 0.04


def test_who_looks_for_everything_does_not_stop(index: FingerprintIndex) -> None:
    asked = index.vectors[:100].astype(np.float32)
    stops, goes_on = index.search(asked, K), index.search(asked, K, every=True)
    expected = everywhere(index).search(asked, K)
    np.testing.assert_array_equal(goes_on[1], expected[1])
    assert (stops[0].sum(axis=1) <= goes_on[0].sum(axis=1) + 1e-4).all()
    assert stops[0].sum() < goes_on[0].sum()
    # They all find themselves.
    np.testing.assert_allclose(stops[0][:, 0], goes_on[0][:, 0], atol=2e-3)


def test_less_effort_finds_less(index: FingerprintIndex) -> None:
    asked = queries(index, 0.4)
    found = [recall(index, index.search(asked, K, e, every=True)[0], asked) for e in (0.1, 0.5, 1)]
    assert found[0] < found[1] < found[2]


def test_an_index_of_before_is_searched_as_before(index: FingerprintIndex, tmp_path: Path) -> None:
    content = json.loads((index.folder / "index.json").read_text())
    assert 0.2 < content.pop("strangers") < 0.8
    del content["sha256"]
    info = GenerationInfo.from_dict(
        {**content, "sha256": read_sha256(content)},
    )
    assert info.strangers == 1.0
    assert read_info(index.folder).strangers == index.info.strangers


def read_sha256(content: dict[str, object]) -> str:
    from index import generation

    return generation._sha256_of(content)


def test_strangers_are_of_other_recordings() -> None:
    # Ten windows of a sound, a third of another like it at 0.6, and silence.
    sound = Sound(1, 5.5).reference()
    other = noisy(sound, 0.6, np.random.default_rng(0))
    vectors = np.concatenate([sound, other, np.zeros((3, DIM))]).astype(np.float16)
    rows = pa.table(
        {
            "recording_id": ["a", "b", "c"],
            "uri": ["a", "b", "c"],
            "seconds": [5.5, 5.5, 2.0],
            "first_row": [0, 10, 20],
            "n_rows": [10, 10, 3],
            "labels": [None] * 3,
        },
        schema=ROWS,
    )
    found = similarity_of_strangers(Exact(vectors, live_rows(rows)), vectors, rows)
    assert 0.5 < found < 0.7
    alone = similarity_of_strangers(Exact(vectors[:10], live_rows(rows[:1])), vectors, rows[:1])
    assert alone == 1.0
