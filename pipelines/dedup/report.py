"""The report: one HTML file to look at, which needs no network and no server."""

from __future__ import annotations

import dataclasses
import datetime
import os
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from encoders.errors import AudioError
from index.keep import FileFacts
from index.schema import DuplicateKind, DuplicatePair
from index.storage import write_atomically
from pipelines.commands.identify import clock
from pipelines.commands.output import format_bytes
from pipelines.dedup.pictures import View, draw_pair
from pipelines.dedup.results import Choice, Results
from pipelines.inputs import local_path
from pipelines.progress import format_span

REPORT_FILE = "report.html"
TEMPLATES = Path(__file__).parent / "template"

# What a browser shows without effort; the rest is in the lists.
_MAX_CLUSTERS, _MAX_PAIRS, _MAX_MEMBERS, _MAX_ROWS = 500, 500, 30, 500
_MAX_PAIRS_OF_CLUSTER = 6

Show = Callable[[int, int, Mapping[str, float]], None]


@dataclasses.dataclass
class PairView:
    """A pair as the report shows it."""

    pair: DuplicatePair
    a: FileView
    b: FileView
    view: View
    picture: str | None = None
    problem: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the picture ends before the stretch does."""
        end = self.view.start_s + self.view.seconds
        return self.picture is not None and end < self.pair.a_end_s - 0.01

    @property
    def times(self) -> tuple[str, str]:
        """The stretch in both files, in words."""
        p = self.pair
        return (
            f"{clock(p.a_start_s)} – {clock(p.a_end_s)}",
            f"{clock(p.b_start_s)} – {clock(p.b_end_s)}",
        )


@dataclasses.dataclass
class FileView:
    """A file as the report shows it."""

    uri: str
    folder: str
    name: str
    href: str | None
    path: Path | None
    length: str
    size: str
    quality: str
    labels: str


@dataclasses.dataclass
class ClusterView:
    """A cluster as the report shows it."""

    choice: Choice
    keep: FileView
    drop: list[FileView]
    n_more: int
    pairs: list[PairView]
    kinds: list[str]

    @property
    def score(self) -> float:
        """Of its weakest pair."""
        return min((view.pair.score for view in self.pairs), default=1.0)


def write_report(
    results: Results, out: Path, n_pictures: int = 100, show: Show | None = None
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    results : Results
    out : Path
        Its folder; links to audio are relative to it.
    n_pictures : int
        Pairs to draw, at most: half of them in clusters, half of the other pairs. The files are
        decoded for that.
    show : callable, optional
        Takes the number of pictures done, of all, and figures.
    """
    import jinja2

    files = _Files(results.facts, out)
    by_members = _by_cluster(results)
    clusters = [
        _cluster_view(choice, by_members.get(number, []), files)
        for number, choice in enumerate(results.choices[:_MAX_CLUSTERS])
    ]
    inside = {id(pair) for pairs in by_members.values() for pair in pairs}
    others = sorted(
        (pair for pair in results.pairs if id(pair) not in inside),
        key=lambda p: (p.a_start_s - p.a_end_s, p.a, p.b),
    )
    pairs = [files.pair(pair) for pair in others[:_MAX_PAIRS]]
    _draw(_to_draw([v for c in clusters for v in c.pairs], pairs, n_pictures), show)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        bytes=format_bytes, span=format_span, percent=lambda share: f"{share:.1%}"
    )
    page = environment.get_template("report.html.j2").render(
        results=results,
        summary=results.summary(),
        clusters=clusters,
        n_more_clusters=len(results.choices) - len(clusters),
        pairs=pairs,
        n_more_pairs=len(others) - len(pairs),
        cut=[files.pair(pair) for pair in results.cut[:_MAX_ROWS]],
        conflicts=results.conflicts[:_MAX_ROWS],
        unpaired=_by_class(results.unpaired),
        kinds=[kind.value for kind in DuplicateKind],
        made=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        max_rows=_MAX_ROWS,
    )
    path = out / REPORT_FILE
    with write_atomically(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


class _Files:
    """Views of files, each made once."""

    def __init__(self, facts: Mapping[str, FileFacts], out: Path) -> None:
        self._facts = facts
        self._out = out.absolute()
        self._views: dict[str, FileView] = {}

    def __getitem__(self, uri: str) -> FileView:
        if uri not in self._views:
            self._views[uri] = self._view(self._facts[uri])
        return self._views[uri]

    def pair(self, pair: DuplicatePair) -> PairView:
        a, b = self._facts[pair.a], self._facts[pair.b]
        return PairView(pair, self[pair.a], self[pair.b], View.of(pair, a.seconds, b.seconds))

    def _view(self, file: FileFacts) -> FileView:
        folder, slash, name = file.uri.rpartition("/")
        path = local_path(file.uri)
        if path is not None and not path.is_file():
            path = None
        return FileView(
            uri=file.uri,
            folder=folder + slash,
            name=name,
            href=_link(path.absolute(), self._out) if path else None,
            path=path,
            length=clock(file.seconds),
            size=format_bytes(file.n_bytes),
            quality=_quality(file),
            labels=", ".join(f"{key}: {value}" for key, value in sorted(file.labels.items())),
        )


def _link(path: Path, folder: Path) -> str:
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # Another drive.
        return path.as_uri()
    return "./" + urllib.parse.quote(os.fsencode(Path(relative).as_posix()))


def _quality(file: FileFacts) -> str:
    channels = {1: "mono", 2: "stereo"}.get(file.channels, f"{file.channels} channels")
    rate = f"{file.bit_rate / 1000:,.0f} kbit/s"
    codec = file.codec or "unknown"
    return f"{codec} · {file.sample_rate / 1000:g} kHz · {channels} · {rate}"


def _by_cluster(results: Results) -> dict[int, list[DuplicatePair]]:
    number = {uri: n for n, c in enumerate(results.choices) for uri in c.cluster.members}
    found: dict[int, list[DuplicatePair]] = {}
    for pair in results.pairs:
        mine = number.get(pair.a)
        if mine is not None and mine == number.get(pair.b):
            found.setdefault(mine, []).append(pair)
    return found


def _cluster_view(choice: Choice, pairs: list[DuplicatePair], files: _Files) -> ClusterView:
    keep = choice.cluster.keep
    # Those with the file to keep first, then what can be seen: equal bytes look alike.
    ranked = sorted(
        pairs,
        key=lambda p: (
            p.kind == DuplicateKind.IDENTICAL, keep not in (p.a, p.b), p.score, p.a, p.b
        ),
    )  # fmt: skip
    drop = choice.drop
    return ClusterView(
        choice,
        files[keep],
        [files[uri] for uri in drop[:_MAX_MEMBERS]],
        max(0, len(drop) - _MAX_MEMBERS),
        [files.pair(pair) for pair in ranked[:_MAX_PAIRS_OF_CLUSTER]],
        [kind.value for kind in DuplicateKind if any(pair.kind == kind for pair in pairs)],
    )


def _to_draw(
    in_clusters: list[PairView], others: list[PairView], n_pictures: int
) -> list[PairView]:
    able = [
        [v for v in views if v.a.path and v.b.path and v.pair.kind != DuplicateKind.IDENTICAL]
        for views in (in_clusters, others)
    ]
    n_first = max(n_pictures - n_pictures // 2, n_pictures - len(able[1]))
    first = able[0][:n_first]
    return [*first, *able[1][: n_pictures - len(first)]]


def _draw(views: list[PairView], show: Show | None) -> None:
    def draw(view: PairView) -> None:
        assert view.a.path is not None
        assert view.b.path is not None
        try:
            view.picture = draw_pair(view.a.path, view.b.path, view.pair, view.view)
        except AudioError as error:
            view.problem = error.reason

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for number, _ in enumerate(pool.map(draw, views), start=1):
            if show:
                show(number, len(views), {})
    finally:
        # When interrupted, those that have not begun are not waited for.
        pool.shutdown(cancel_futures=True)


def _by_class(unpaired: Iterable[Mapping[str, str]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in unpaired:
        found.setdefault(row["class"], []).append(row)
    return dict(sorted(found.items()))
