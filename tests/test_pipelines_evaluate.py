"""The whole evaluation, on the demo tracks with tiny bundles. No figure is judged here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click.testing
import pytest
import soundfile
from evaluate_helpers import FirstPeer, write_corpus
from ingest_helpers import FINGERPRINT, VAE

from encoders.errors import EarmarkError
from index.identify import Identifier
from pipelines.commands.evaluate import command
from pipelines.evaluate import run, selection
from pipelines.evaluate.references import SAMPLE_RATE, Encoders
from pipelines.evaluate.report import write_report
from pipelines.evaluate.results import Results
from pipelines.evaluate.run import Evaluation, Options, evaluate
from pipelines.evaluate.work import Worker

LEFT_OUT = 2
CONDITIONS = ("clean", "noise5", "speed-2")
N_QUERIES = 3 * 2 * (3 + 1)


@pytest.fixture(scope="module")
def options(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("evaluate")
    corpus = write_corpus(folder / "corpus", demo_tracks)
    return Options(
        corpus, folder / "out", folder / "cache", Encoders(FINGERPRINT, VAE),
        conditions=CONDITIONS, lengths=(2.0, 5.0), n_present=3, n_absent=1, jobs=1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _some_background_music(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LEFT_OUT", LEFT_OUT)


@pytest.fixture(scope="module")
def peer() -> FirstPeer:
    return FirstPeer()


@pytest.fixture(scope="module")
def evaluation(options: Options, peer: FirstPeer) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "LEFT_OUT", LEFT_OUT)
        return evaluate(options, [peer])


def test_every_query_is_answered(evaluation: Evaluation, options: Options) -> None:
    ids = [q.id for q in evaluation.queries]
    assert len(ids) == N_QUERIES
    assert set(evaluation.answers) == {"earmark", "first"}
    for answers in evaluation.answers.values():
        assert set(answers) == set(ids)
    lines = (options.out / "queries.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *ids]


def test_clean_queries_are_found(evaluation: Evaluation) -> None:
    clean = [q for q in evaluation.queries if q.condition == "clean" and not q.absent]
    for query in clean:
        answered = evaluation.answers["earmark"][query.id]
        assert answered.outcome.exact
        assert answered.reference == query.track
        assert answered.rank == 1
        assert answered.start_s == pytest.approx(query.start_sample / SAMPLE_RATE, abs=0.25)


def test_absent_queries_meet_a_data_base_that_lacks_them(
    evaluation: Evaluation, peer: FirstPeer
) -> None:
    full, half = map(set, peer.indexed)
    withheld = full - half
    assert half < full
    assert {q.track for q in evaluation.queries if q.absent} <= withheld
    for query in evaluation.queries:
        found = evaluation.answers["earmark"][query.id].reference
        assert not (query.absent and found in withheld)


def test_the_peer_hears_what_earmark_hears(evaluation: Evaluation, peer: FirstPeer) -> None:
    assert len(peer.clips) == N_QUERIES
    for clip in peer.clips:
        query = next(q for q in evaluation.queries if q.id == clip.stem)
        info = soundfile.info(clip)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert info.frames == query.n_samples
        outcome = evaluation.answers["first"][query.id].outcome
        assert outcome.accepted == (query.condition != "noise5")


def test_scores_and_evidence_are_those_of_identify(
    evaluation: Evaluation, options: Options, peer: FirstPeer
) -> None:
    catalogs = [p for p in options.cache.glob("catalog-*") if p.is_dir()]
    identifiers = [Identifier(path, FINGERPRINT) for path in catalogs]
    by_size = sorted(identifiers, key=lambda i: i.index.info.n_rows)
    for query in evaluation.queries:
        clip = next(c for c in peer.clips if c.stem == query.id)
        identifier = by_size[0 if query.absent else 1]
        (match,) = identifier.identify(clip, top=1, threshold=0.0)
        answered = evaluation.answers["earmark"][query.id]
        assert answered.outcome.score == pytest.approx(match.score, abs=1e-3)
        passes = bool(identifier.identify(clip, top=1))
        assert answered.outcome.accepted == passes
        assert answered.similarity is not None
        assert answered.margin is not None


def test_results_and_report(
    evaluation: Evaluation, options: Options, peer: FirstPeer, tmp_path: Path
) -> None:
    results = Results(evaluation)
    assert results.systems == ["earmark", "first"]
    assert results.cells["earmark", "clean", 2.0].shares["exact"].value == 1.0
    core = results.core("earmark", "exact", 5.0)
    assert core.value == results.cells["earmark", "noise5", 5.0].shares["exact"].value
    assert results.false_accepts("first").value == pytest.approx(2 / 3)
    assert results.false_accepts("first", 2.0).n == 3
    lost = results.lost(2.0)
    assert lost["n"] == 9
    missed = lost["wrong_place"] + lost["not_best"] + lost["no_candidate"]
    exact = sum(results.cells["earmark", c, 2.0].shares["exact"].value * 3 for c in CONDITIONS)
    assert missed == round(9 - exact)

    paths = write_report(results, tmp_path, "the command")
    assert all(path.stat().st_size > 0 for path in paths)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["command"] == "the command"
    assert content["peers"] == {"first": "1.0"}
    assert len(content["queries"]) == N_QUERIES
    assert content["systems"]["first"]["false_accepts"]["all"]["n"] == 6
    said = (tmp_path / "report.md").read_text()
    for words in ("the command", "first 1.0", "| clean |", "## Worse than a peer", "cells.png"):
        assert words in said


def better_peer(evaluation: Evaluation) -> Evaluation:
    """As if Earmark had found nothing, and the peer everything that Earmark has."""
    nothing = {q.id: evaluation.answers["first"][q.id] for q in evaluation.queries}
    return dataclasses.replace(
        evaluation, answers={"earmark": nothing, "first": evaluation.answers["earmark"]}
    )


def test_the_report_says_where_a_peer_is_better(evaluation: Evaluation, tmp_path: Path) -> None:
    results = Results(better_peer(evaluation))
    write_report(results, tmp_path, "")
    said = (tmp_path / "report.md").read_text()
    assert "- exact, clean, 5 s: first has 100.0" in said


@pytest.mark.parametrize("in_part", [False, True])
def test_an_absent_recording_that_is_there_after_all_does_not_count(
    evaluation: Evaluation, in_part: bool
) -> None:
    query = next(q for q in evaluation.queries if q.absent and q.seconds == 2.0)
    answered = evaluation.answers["first"][query.id]
    there = dataclasses.replace(
        answered.outcome, recording=not in_part, shares=in_part, accepted=True
    )
    answers = evaluation.answers["first"] | {query.id: dataclasses.replace(answered, outcome=there)}
    results = Results(
        dataclasses.replace(evaluation, answers=evaluation.answers | {"first": answers})
    )
    absent = [q for q in evaluation.queries if q.absent]
    gone = {q.id for q in absent if q.track == query.track}
    assert results.present_after_all == gone
    assert results.same_after_all == (set() if in_part else gone)
    left = sum(q.seconds == 2.0 and q.id not in gone for q in absent)
    assert results.false_accepts("earmark", 2.0).n == results.false_accepts("first", 2.0).n == left
    with_parts = results.false_accepts("first", 2.0, parts=True)
    asked = sum(q.seconds == 2.0 for q in absent)
    assert with_parts.n == (asked if in_part else left)


def test_nothing_is_asked_twice(
    evaluation: Evaluation, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "ask", None)
    idle = FirstPeer(patience=0)
    assert evaluate(options, [idle]).answers == evaluation.answers
    assert idle.indexed == []


def test_other_settings_are_refused(
    evaluation: Evaluation, options: Options, peer: FirstPeer
) -> None:
    queries = (options.out / "queries.csv").read_text()
    with pytest.raises(EarmarkError, match=r"seed was 0 and is 1.*name another --out"):
        evaluate(dataclasses.replace(options, seed=1))
    with pytest.raises(EarmarkError, match=r"precision was 'int8' and is 'float32'"):
        evaluate(dataclasses.replace(options, encoders=Encoders(FINGERPRINT, VAE, "float32")))
    assert (options.out / "queries.csv").read_text() == queries
    assert len(list(options.cache.glob("catalog-*"))) == 2, "refused before anything is ingested"


def test_an_interrupted_run_goes_on(
    evaluation: Evaluation, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_BATCH", 4)
    ask = Worker.ask
    asked: list[str] = []

    def ask_some(self: Worker, query: Any) -> Any:
        if len(asked) == 10:
            raise KeyboardInterrupt
        asked.append(query.id)
        return ask(self, query)

    again = dataclasses.replace(options, out=tmp_path)
    monkeypatch.setattr(Worker, "ask", ask_some)
    with pytest.raises(KeyboardInterrupt):
        evaluate(again)
    monkeypatch.setattr(Worker, "ask", ask)
    impatient = FirstPeer(patience=9)
    with pytest.raises(KeyboardInterrupt):
        evaluate(again, [impatient])
    assert len(impatient.clips) == 8
    patient = FirstPeer()
    result = evaluate(again, [patient])
    assert len(patient.clips) == N_QUERIES - 8
    assert result.answers == evaluation.answers
    assert result.queries == evaluation.queries


def test_processes_give_the_same(evaluation: Evaluation, options: Options, tmp_path: Path) -> None:
    result = evaluate(dataclasses.replace(options, out=tmp_path, jobs=2))
    assert result.answers == {"earmark": evaluation.answers["earmark"]}


def test_the_command(
    evaluation: Evaluation, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.peers.installed_peers", lambda: [FirstPeer()])
    arguments = [
        "fingerprints", "--corpus", str(options.corpus), "--out", str(options.out),
        "--cache", str(options.cache), "--encoder", FINGERPRINT, "--vae", VAE,
        "--conditions", ",".join(CONDITIONS), "--lengths", "5,2", "--queries", "3",
        "--absent", "1", "--jobs", "1",
    ]  # fmt: skip
    done = click.testing.CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    for words in ("Mean over the core cells", "earmark: exact at threshold", "first: exact",
                  "noise 5 dB", "Absent queries", str(options.out / "report.md")):  # fmt: skip
        assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--conditions", "clean,rain"], "'rain' is none of clean, mp3-64k"),
        (["--lengths", "1,two"], "give seconds from 0.1 to 600"),
        (["--lengths", "0"], "give seconds from 0.1 to 600"),
        (["--queries", "0"], "0 is not in the range"),
    ],
)
def test_wrong_use(options: Options, arguments: list[str], words: str) -> None:
    fixed = ["fingerprints", "--corpus", str(options.corpus), "--out", "x", "--no-peers"]
    done = click.testing.CliRunner().invoke(command, [*fixed, *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_help_shows_an_example() -> None:
    done = click.testing.CliRunner().invoke(command, ["fingerprints", "--help"])
    assert "earmark evaluate fingerprints --corpus corpus.csv --out evaluation" in done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,role\na.ogg,music\n", "lacks the column"),
        ("path,role,split\na.ogg,noise,dev\n", "at least two files of music"),
        ("path,role,split\na.ogg,music,dev\nb.ogg,music,dev\n", "at least two files of music"),
    ],
)
def test_a_corpus_that_does_not_do(tmp_path: Path, content: str, words: str) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text(content)
    with pytest.raises(EarmarkError, match=words):
        evaluate(Options(corpus, tmp_path / "out", tmp_path / "cache"))
