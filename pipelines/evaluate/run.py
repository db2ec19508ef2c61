"""The whole evaluation: references, queries, Earmark, the peers, and what comes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from encoders.bundle import load_bundle
from encoders.corpus import read_corpus
from encoders.errors import EarmarkError
from index.identify import Identifier
from pipelines.evaluate.answers import Answered, AnswerLog, require_settings
from pipelines.evaluate.conditions import CONDITIONS, Resources
from pipelines.evaluate.queries import Query, list_queries, to_csv
from pipelines.evaluate.references import (
    Catalogs,
    Encoders,
    References,
    prepare_catalogs,
)
from pipelines.evaluate.selection import Selection, select
from pipelines.evaluate.work import Plan, Worker, Workers, open_workers
from pipelines.peers import Peer
from pipelines.progress import task_display

LENGTHS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
# Peers load their data base for each batch of clips; what is answered is kept after it.
_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate.

    Parameters
    ----------
    corpus : Path
        As for :func:`encoders.corpus.read_corpus`.
    out : Path
        Gets the list of queries, the answers and the report.
    cache : Path
        Where catalogs and decoded audio are kept for the next run.
    encoders : Encoders
    hours : float
        References, at least.
    conditions : sequence of str
        Names of :data:`~pipelines.evaluate.conditions.CONDITIONS`.
    lengths : sequence of float
        Of the queries, s.
    n_present, n_absent : int
        Queries of each condition and length that are in the data base, and that are not.
    seed : int
    jobs : int, optional
        Processes. [default: one per core]
    keep_audio : bool
        Write the queries as WAV files though no peer needs them.
    """

    corpus: Path
    out: Path
    cache: Path
    encoders: Encoders = dataclasses.field(default_factory=Encoders)
    hours: float = 31.0
    conditions: Sequence[str] = tuple(CONDITIONS)
    lengths: Sequence[float] = LENGTHS_S
    n_present: int = 20
    n_absent: int = 5
    seed: int = 0
    jobs: int | None = None
    keep_audio: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything that was asked and answered.

    Attributes
    ----------
    facts : dict
        What it was done with: settings, data base, encoder, peers.
    queries : list of Query
    answers : dict
        By system (``"earmark"`` is first), then by the id of the query.
    """

    facts: dict[str, Any]
    queries: list[Query]
    answers: dict[str, dict[str, Answered]]


def evaluate(options: Options, peers: Sequence[Peer] = ()) -> Evaluation:
    """Run the evaluation, or what an earlier run of it has left to do.

    Raises
    ------
    EarmarkError
        If the corpus does not do, or ``out`` holds something from other settings.
    KeyboardInterrupt
        On Ctrl-C; all answers so far are kept.
    """
    corpus = options.corpus.absolute()
    root = corpus if corpus.is_dir() else corpus.parent
    selection = select(read_corpus(corpus), root, options.hours)
    _make_folders(options)
    require_settings(_log_path("earmark", options), _settings(options) | _own_settings(options))
    catalogs = prepare_catalogs(selection, options.cache, options.encoders)
    with task_display("Decoding") as show:
        references = References(
            catalogs.full, root, options.cache, lambda done, n: show(done, n, {})
        )
    with_rooms = any(CONDITIONS[name].lead_s for name in options.conditions)
    resources = Resources.prepare(selection, options.cache, with_rooms)
    queries = list_queries(
        references,
        _names(selection.kept, references),
        _names(selection.withheld, references),
        resources.backgrounds,
        options.conditions,
        options.lengths,
        options.n_present,
        options.n_absent,
        options.seed,
    )
    settings = _settings(options) | {
        "references": _digest("\n".join(sorted(map(references.recording_id, references.names)))),
        "list": _digest(to_csv(queries)),
    }
    logs = [AnswerLog(_log_path("earmark", options), settings | _own_settings(options))]
    for peer in peers:
        path = _log_path(peer.name, options)
        logs.append(AnswerLog(path, settings | {"version": peer.version}))
    (options.out / "queries.csv").write_text(to_csv(queries), encoding="utf-8")
    audio = options.out / "queries" if peers or options.keep_audio else None
    encoder = options.encoders.fingerprint
    plan = Plan(selection, root, catalogs, encoder, options.cache, with_rooms, audio)
    with open_workers(plan, options.jobs or os.cpu_count() or 1) as workers:
        todo = [q for q in queries if q.id not in logs[0].answers]
        logs[0].append(_shown("earmark", todo, lambda some: workers(Worker.ask, some)))
        if audio is not None:
            audio.mkdir(exist_ok=True)
            list(_shown("Writing queries", queries, lambda todo: workers(Worker.write, todo)))
        for peer, log in zip(peers, logs[1:], strict=True):
            _ask_peer(peer, queries, log, plan, references, workers)
    systems = ["earmark", *(peer.name for peer in peers)]
    answers = {system: log.answers for system, log in zip(systems, logs, strict=True)}
    facts = _facts(settings, options, catalogs, references, selection, peers)
    return Evaluation(facts, queries, answers)


def _make_folders(options: Options) -> None:
    for folder in (options.out, options.cache):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EarmarkError(f"cannot write to {folder}: {error.strerror}") from None


def _names(paths: Sequence[Path], references: References) -> list[str]:
    # What cannot be decoded is no reference.
    names = (references.name(str(path)) for path in paths)
    return [name for name in names if name in references]


def _settings(options: Options) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "hours": options.hours,
        "conditions": list(options.conditions),
        "lengths": list(options.lengths),
        "queries": options.n_present,
        "absent": options.n_absent,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _own_settings(options: Options) -> dict[str, Any]:
    bundle = load_bundle(options.encoders.fingerprint, options.encoders.precision)
    return {
        "encoder": bundle.sha256,
        "precision": bundle.precision,
        "calibration": dataclasses.asdict(bundle.calibration),
    }


def _log_path(system: str, options: Options) -> Path:
    return options.out / f"answers-{system}.jsonl"


def _ask_peer(
    peer: Peer,
    queries: Sequence[Query],
    log: AnswerLog,
    plan: Plan,
    references: References,
    workers: Workers,
) -> None:
    for absent in (False, True):
        todo = [q for q in queries if q.absent == absent and q.id not in log.answers]
        if not todo:
            continue
        chosen = plan.selection.without_withheld if absent else plan.selection.references
        paths = [p for p in chosen if references.name(str(p)) in references]
        with task_display(f"{peer.name}: indexing") as show:
            folder = plan.cache / f"{peer.name}-{_digest(repr(paths))}"
            peer.index(paths, folder, lambda done, n: show(done, n, {}))

        def ask(some: Sequence[Query]) -> Iterator[Answered]:
            for start in range(0, len(some), _BATCH):
                batch = some[start : start + _BATCH]
                answers = peer.query([plan.clip(q) for q in batch])
                yield from workers(Worker.judge, list(zip(batch, answers, strict=True)))

        log.append(_shown(f"{peer.name}: {'absent' if absent else 'present'} queries", todo, ask))


def _shown(
    title: str, todo: Sequence[Query], do: Callable[[Sequence[Query]], Iterable[Any]]
) -> Iterator[Any]:
    with task_display(title) as show:
        for done, result in enumerate(do(todo), 1):
            yield result
            show(done, len(todo), {})


def _facts(
    settings: dict[str, Any],
    options: Options,
    catalogs: Catalogs,
    references: References,
    selection: Selection,
    peers: Sequence[Peer],
) -> dict[str, Any]:
    identifier = Identifier(catalogs.full, options.encoders.fingerprint)
    info, bundle = identifier.index.info, identifier.bundle
    return {
        "settings": settings,
        "recordings": len(references.names),
        "hours": float(references.seconds.sum()) / 3600,
        "withheld": len(selection.withheld),
        "windows": info.n_rows,
        "index": info.factory,
        "encoder": {
            "name": bundle.name,
            "sha256": bundle.sha256,
            "precision": bundle.precision,
            "threshold": bundle.calibration.threshold,
        },
        "peers": {peer.name: peer.version for peer in peers},
    }
