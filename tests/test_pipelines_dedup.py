"""``earmark dedup`` and ``earmark split`` from the command line; the pairs are made by hand."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from ingest_helpers import run, write_tone

from index.catalog import Catalog
from index.schema import CLUSTERS, PAIRS, DuplicateKind, DuplicatePair
from pipelines.cli import main
from pipelines.dedup import run as dedup_run
from pipelines.dedup.report import REPORT_FILE
from pipelines.deduplicate import find_pairs, to_table, write_table
from pipelines.progress import format_span

A, COPY, MP3, CUT, OTHER = (
    "in/a.wav",
    "in/copy.wav",
    "in/old/<a> & 'b'.mp3",
    "in/cut.wav",
    "in/o.wav",
)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seven files and the catalog c of them, by relative names."""
    folder = tmp_path_factory.mktemp("ingested")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tone(Path(A), 3.0, 300)
        shutil.copy(A, COPY)
        signal, rate = soundfile.read(A)
        Path("in/old").mkdir()
        soundfile.write(MP3, signal, rate, format="MP3")
        soundfile.write(CUT, signal[rate : 2 * rate], rate)
        write_tone(Path(OTHER), 2.0, 500)
        soundfile.write("in/silent.wav", np.zeros(rate), rate)
        Path("in/bad.wav").write_bytes(b"no audio at all")
        lines = ["uri,label,split"]
        for uri, label, split in (
            (A, "dog", "train"), (COPY, "dog", "test"), (MP3, "cat", "test"),
            (CUT, "dog", "train"), (OTHER, "cat", "test"), ("in/silent.wav", "dog", "train"),
            ("in/bad.wav", "", "test"),
        ):  # fmt: skip
            lines.append(f'"{uri}",{label},{split}')
        Path("files.csv").write_text("\n".join(lines) + "\n")
        run(["files.csv"], Path("c"))
    return folder


@pytest.fixture
def collection(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these files are; the pairs of five of them are known, whatever is looked for."""
    folder = tmp_path / "collection"
    shutil.copytree(ingested, folder)
    monkeypatch.chdir(folder)
    rows = Catalog.open("c").recordings(["uri", "recording_id"]).to_pylist()
    ids = {row["uri"]: row["recording_id"] for row in rows}

    def known(a: str, b: str, kind: str, score: float, at: float, to: float) -> DuplicatePair:
        shift = 1.0 if kind == "excerpt" else 0.0
        return DuplicatePair(
            a, b, ids[a], ids[b], DuplicateKind(kind), score, at, to, at - shift, to - shift,
            1.0, 1.0, f"{kind} by hand",
        )  # fmt: skip

    pairs = [
        known(A, COPY, "identical", 1.0, 0.0, 3.0),
        known(A, MP3, "same-audio", 0.97, 0.0, 3.0),
        known(A, CUT, "excerpt", 0.9, 1.0, 2.0),
        known(CUT, OTHER, "overlap", 0.55, 0.0, 0.5),
    ]

    def find(catalogs: Any, out: Path, options: Any = None, log: Any = None) -> None:
        # What there is to say of groups and of single files is real.
        only_bytes = dataclasses.replace(options, kinds=(DuplicateKind.IDENTICAL,))
        find_pairs(catalogs, out, only_bytes, io.StringIO())
        write_table(to_table(p for p in pairs if p.kind in options.kinds), out / "pairs.parquet")

    monkeypatch.setattr(dedup_run, "find_pairs", find)
    return folder


def earmark(*args: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(list(args))
    return int(exited.value.code or 0)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def files(folder: str = "in") -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_the_contract(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert earmark("dedup", "c", "--out", "out", "--report-pairs", "0") == 0
    said = capsys.readouterr().out
    assert re.search(r"same-audio\s+│ 1", said)
    assert "1 of 3 files" in said
    assert "Look at: out/report.html" in said
    assert files() == before, "nothing is touched"

    pairs = lines("out/pairs.jsonl")
    assert pairs[2] == {
        "a": A, "b": MP3, "kind": "same-audio", "score": 0.97, "a_start_s": 0.0, "a_end_s": 3.0,
        "b_start_s": 0.0, "b_end_s": 3.0, "speed": 1.0,
    }  # fmt: skip
    assert list(pairs[0]) == [
        "a", "b", "kind", "score", "a_start_s", "a_end_s", "b_start_s", "b_end_s", "speed",
    ]  # fmt: skip
    table = pq.read_table("out/pairs.parquet")
    assert table.schema == PAIRS
    assert table.select(list(pairs[0])).to_pylist() == pairs

    n_bytes = Path(COPY).stat().st_size + Path(MP3).stat().st_size
    (cluster,) = lines("out/clusters.jsonl")
    name = cluster.pop("cluster_id")
    assert cluster == {
        "members": [A, COPY, MP3], "keep": A, "seconds_won": 6.0, "bytes_won": n_bytes,
    }  # fmt: skip
    table = pq.read_table("out/clusters.parquet")
    assert table.schema == CLUSTERS
    assert table.to_pylist() == [{"cluster_id": name, **cluster}]

    assert {row["uri"]: row["keep"] for row in lines("out/drop.jsonl")} == {COPY: A, MP3: A}
    kept = {row["uri"]: row["why"] for row in lines("out/keep.jsonl")}
    assert set(kept) == {A, CUT, OTHER, "in/silent.wav"}
    assert kept[A] == "oldest"
    assert [row["value"] for row in lines("out/conflicts.jsonl")] == ["cat", "dog", "dog"]
    assert {row["uri"]: row["class"] for row in lines("out/unpaired.jsonl")} == {
        "in/bad.wav": "failed", "in/silent.wav": "silent",
    }  # fmt: skip
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["files"], summary["clusters"], summary["seconds_won"]) == (7, 1, 6.0)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_lists_in_other_formats(collection: Path, form: str) -> None:
    assert earmark("dedup", "c", "--out", "out", "--report-pairs", "0") == 0
    assert earmark("dedup", "c", "--out", "out", "--report-pairs", "0", "--format", form) == 0
    assert not Path("out/drop.jsonl").exists(), "no lists of an earlier run"
    assert len(lines("out/pairs.jsonl")) == 4
    if form == "csv":
        with Path("out/drop.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with Path("out/clusters.csv").open(newline="") as file:
            assert json.loads(next(csv.DictReader(file))["members"]) == [A, COPY, MP3]
    else:
        rows = pq.read_table("out/drop.parquet").to_pylist()
    assert [row["uri"] for row in rows] == [COPY, MP3]


def test_kinds_and_policies(collection: Path) -> None:
    common = ["dedup", "c", "--out", "out", "--report-pairs", "0"]
    assert earmark(*common, "--kinds", "identical,excerpt", "--keep", "first") == 0
    assert [row["kind"] for row in lines("out/pairs.jsonl")] == ["identical", "excerpt"]
    assert earmark(*common, "--keep", "in/old") == 0
    assert lines("out/clusters.jsonl")[0]["keep"] == MP3


def test_leakage(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = ["--between", "split=train", "test"]
    assert earmark("dedup", "c", "--out", "out", "--report-pairs", "0", *groups) == 0
    assert "Leakage: split=train and test" in capsys.readouterr().out
    leakage = json.loads(Path("out/summary.json").read_text())["leakage"]
    assert leakage["n_files"] == [3, 4]
    by_kind = {leak["kind"]: leak for leak in leakage["leaks"]}
    assert by_kind["identical"]["n_files_b"] == 1
    assert by_kind["any"]["n_pairs"] == 4
    assert (by_kind["any"]["n_files_a"], by_kind["any"]["n_files_b"]) == (2, 3)
    assert by_kind["any"]["seconds_b"] == 8.0
    page = Path("out", REPORT_FILE).read_text()
    assert "3 of 4 (75.0%)" in page


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{a}\n" for a in answers)))


def test_judgements_are_remembered(
    collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["dedup", "c", "--out", "out", "--report-pairs", "0"]
    assert earmark(*common) == 0
    capsys.readouterr()
    answer(monkeypatch, "no", "what?", "s", "n")
    assert earmark("dedup", "judge", "out") == 0
    said = capsys.readouterr().out
    assert said.index("score 0.55") < said.index("score 0.90") < said.index("score 0.97")
    assert "2 verdicts kept" in said

    assert earmark(*common) == 0
    assert [row["kind"] for row in lines("out/pairs.jsonl")] == ["identical", "excerpt"]
    assert lines("out/clusters.jsonl")[0]["members"] == [A, COPY]
    assert json.loads(Path("out/summary.json").read_text())["pairs_judged_different"] == 2

    capsys.readouterr()
    answer(monkeypatch)  # The terminal is closed.
    assert earmark("dedup", "judge", "out") == 0
    said = capsys.readouterr().out
    assert "Pair 1 of 1" in said
    assert "0 verdicts kept" in said

    Path("v.csv").write_text(f'a,b,verdict\n"{MP3}",{A},yes\n')
    assert earmark("dedup", "judge", "out", "--csv", "v.csv") == 0
    assert earmark(*common) == 0
    assert len(lines("out/pairs.jsonl")) == 3, "a verdict can be taken back"
    assert earmark("dedup", "judge", "in") == 2
    assert "holds no results" in capsys.readouterr().err


def test_apply_and_undo(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    common = ["dedup", "c", "--out", "out", "--report-pairs", "0"]
    assert earmark(*common, "--apply", "move:aside") == 0
    said = capsys.readouterr().out
    assert "Moved 2 files" in said
    assert "earmark dedup --undo out" in said
    assert set(before) - set(files()) == {COPY, MP3}
    assert {f"aside/{uri}" for uri in (COPY, MP3)} == set(files("aside"))
    assert earmark("dedup", "--undo", "out") == 0
    assert "Brought back 2 files" in capsys.readouterr().out
    assert files() == before

    assert earmark(*common, "--apply", "hardlink") == 1
    said = capsys.readouterr()
    assert "Made hard links of 1 files" in said.out
    assert "only files of the same bytes" in said.err
    assert Path(A).samefile(COPY)
    assert earmark("dedup", "--undo", "out") == 0
    assert not Path(A).samefile(COPY)
    assert files() == before


def test_near_is_never_acted_upon(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = dedup_run.find_pairs

    def all_near(catalogs: Any, out: Path, options: Any = None, log: Any = None) -> Any:
        find(catalogs, out, options, log)
        table = pq.read_table(out / "pairs.parquet")
        kinds = [k if k == "identical" else "near" for k in table["kind"].to_pylist()]
        write_table(table.set_column(4, PAIRS.field("kind"), [kinds]), out / "pairs.parquet")

    monkeypatch.setattr(dedup_run, "find_pairs", all_near)
    common = ["dedup", "c", "--out", "out", "--report-pairs", "0", "--cluster-near"]
    assert earmark(*common, "--apply", "move:aside") == 0
    # The tone of 1 s is near to that of 3 s, but no copy of it.
    assert lines("out/clusters.jsonl")[0]["members"] == [A, COPY, MP3]
    assert set(files("aside")) == {f"aside/{COPY}"}


def test_split(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ratios = ["--ratios", "train=.7,test=.3", "--out", "splits.csv", "--stratify", "label"]
    assert earmark("split", "c", *ratios) == 0
    assert re.search(r"overlap\s+│ 1\s+│ 0", capsys.readouterr().out)
    with Path("splits.csv").open(newline="") as file:
        rows = {row["uri"]: row for row in csv.DictReader(file)}
    assert set(rows) == {A, COPY, MP3, CUT, OTHER, "in/silent.wav"}
    assert len({rows[uri]["group"] for uri in (A, COPY, MP3, CUT, OTHER)}) == 1
    assert rows["in/silent.wav"]["split"] != rows[A]["split"]
    proof = json.loads(Path("splits.proof.json").read_text())
    assert all(counts["across"] == 0 for counts in proof["pairs"].values())
    assert sum(counts["within"] for counts in proof["pairs"].values()) == 4
    assert proof["largest_group_share"] == pytest.approx(12 / 13, abs=0.001)
    assert earmark("split", "c", "--ratios", "a=.5", "--out", "s.csv") == 2
    assert "add up to 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["dedup"], "name at least one catalog"),
        (["dedup", "c", "--kind", "near"], "no such option: --kind"),
        (["dedup", "c", "--kinds", "same"], "'same' is none of"),
        (["dedup", "c", "--keep", "longst"], "no file is in 'longst'"),
        (["dedup", "c", "--apply", "delete"], "neither move:DIR nor hardlink"),
        (["dedup", "c", "--undo", "in"], "--undo goes alone"),
        (["dedup", "--undo", "in"], "nothing was ever applied"),
        (["dedup", "nowhere"], "no catalog at nowhere"),
        (["dedup", "c", "--between", "split=train", "x"], "no file is of the group 'x'"),
    ],
)
def test_wrong_use(
    collection: Path, capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    assert earmark(*args) == 2
    assert says in capsys.readouterr().err


def in_chromium(page: Path, profile: Path, script: str) -> str:
    """The document after its own scripts and one more, as headless Chromium sees it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    copy = page.absolute().with_name("opened.html")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={profile}",
            "--virtual-time-budget=3000", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return done.stdout


def test_the_report_in_a_browser(collection: Path) -> None:
    assert earmark("dedup", "c", "--out", "out") == 0
    page = Path("out", REPORT_FILE)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text), "it needs no network"
    # A file name must not become part of the page.
    assert "<a> &" not in text
    click = """
      all("img").forEach((img) => { img.loading = "eager"; });
      one(".verdict", one("#clusters")).click();
      one("#search").value = "CUT.wav"; filter();
      // The virtual time of the browser waits for what a page loads, not for what it decodes.
      window.addEventListener("load", () => {
        document.title = "widths " + all("img").map((img) => img.naturalWidth).join();
      });
    """
    seen = in_chromium(page, collection / "profile", click)
    assert "<title>widths 640,640,640</title>" in seen, "three pairs that can be told by eye"
    assert "2 of 3 shown" in seen
    assert re.search(r'<b id="judged">1</b>', seen)
    assert re.search(r'class="pair judged" data-a="in/a.wav"', seen)

    body = html.unescape(re.sub(r"<[^>]*>", " ", seen))
    for words in (
        "6.00 s", "1 clusters of 3 files", "same-audio by hand", "excerpt by hand", "0.97",
        "Labels that disagree", "silent: 1 files", "failed: 1 files", "no audio format",
        "0:01.0 – 0:02.0", "oldest",
    ):  # fmt: skip
        assert words in " ".join(body.split()), words
    sources = {html.unescape(s) for s in re.findall(r'data-src="([^"]+)"', seen)}
    assert all(Path("out", unquote(source)).is_file() for source in sources)
    assert len(sources) == 3


def test_the_report_without_files(collection: Path) -> None:
    shutil.rmtree("in")
    assert earmark("dedup", "c", "--out", "out") == 0
    text = Path("out", REPORT_FILE).read_text(encoding="utf-8")
    assert "data:image" not in text
    assert "not reachable" in text
    assert "same-audio by hand" in text


def test_only_so_many_pictures(collection: Path) -> None:
    for n in (0, 1, 2):
        assert earmark("dedup", "c", "--out", "out", "--report-pairs", str(n)) == 0
        assert Path("out", REPORT_FILE).read_text().count("data:image/webp") == n


def test_spans() -> None:
    words = [format_span(s) for s in (0.417, 42, 200, 40_000)]
    assert words == ["0.42 s", "42 s", "3.3 min", "11.1 h"]
