"""The page: one file with everything in it, and nothing that a name could break."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from xml.etree import ElementTree

import pytest

from snn_core import config as configuration
from snn_core.cli import main
from snn_core.cli.trained import load_trained
from snn_core.errors import RunFolderError
from snn_metrics.report import count_operations
from snn_metrics.report.numbers import count, joules, percent
from snn_metrics.report.page import render, write_page

VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


class Page(HTMLParser):
    """A parsed page: its tags with attributes, the text of each, and whether every tag is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.words: Dict[str, List[str]] = {}
        self._open: List[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.words.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words[self._open[-1]][-1] += data

    def images(self) -> List[Dict[str, Optional[str]]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def text(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["report", str(runs.budget), "--compare", str(runs.plain), "--output", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it(text: str) -> None:
    page = Page(text)
    references = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "background")
    ]
    assert references
    assert [value for value in references if not value.startswith("data:image/svg+xml;base64,")] == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"} == set()
    outside = re.sub(r'"data:[^"]*"', "", text)
    assert re.findall(r"https?:|//|url\(|@import", outside) == []


def test_the_images_are_whole_figures_that_refer_to_nothing_outside(text: str) -> None:
    images = Page(text).images()
    assert len(images) == 5
    for image in images:
        source = image["src"] or ""
        root = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        links = [v for node in root.iter() for k, v in node.attrib.items() if k.endswith("href")]
        assert [link for link in links if not link.startswith("#")] == []
        assert len(image["alt"] or "") > 40


def test_the_page_holds_the_counted_numbers(text: str, runs: Any) -> None:
    found = load_trained(str(runs.budget), with_terms=False)
    report = count_operations(found.trainer, found.data)
    page = Page(text)
    cells = page.words["td"]
    for row in (*report.layers, report.total):
        for name in ("synops_per_sample", "dense_per_sample", "acs_per_sample", "macs_per_sample"):
            assert count(getattr(row, name)) in cells
    assert {"features.conv", "head.full", "features.spikes", "head.spikes"} <= set(page.words["th"])
    assert joules(report.energy[0].joules_per_sample) in page.words["b"]
    assert percent(report.accuracy or 0.0) in page.words["b"]
    assert any("Horowitz" in cell for cell in cells)
    assert page.words["pre"] == [configuration.dumps(found.config)]


def test_before_training_is_the_network_that_the_configuration_and_its_seed_make(text: str, runs: Any) -> None:
    config = configuration.load(runs.budget / "config.toml")
    made = configuration.build(config)
    before = count_operations(made.trainer, made.test).total.synops_per_sample
    captions = Page(text).words["figcaption"]
    assert any(f"by layer: {count(before)} before and " in caption for caption in captions)


def test_the_page_tells_how_the_run_went(text: str) -> None:
    page = Page(text)
    facts = dict(zip(page.words["dt"], page.words["dd"]))
    assert facts["epochs"] == "2 of 2, 4 optimiser steps"
    assert facts["trained on"].startswith("backend eager (torch ")
    assert facts["best epoch"].endswith(" %")
    assert "snn-core" in facts["versions"]


def test_the_page_is_readable_on_a_phone_and_on_paper(text: str) -> None:
    page = Page(text)
    metas = {a.get("name"): a.get("content") for tag, a in page.tags if tag == "meta"}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert ("html", {"lang": "en"}) in page.tags
    assert "@media print" in text
    assert len(page.words["h1"]) == 1


def test_the_same_run_gives_the_same_page(text: str, runs: Any, tmp_path: Path) -> None:
    path = tmp_path / "again.html"
    assert main(["report", str(runs.budget), "--compare", str(runs.plain), "--output", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == text


def test_names_are_escaped(runs: Any, tmp_path: Path) -> None:
    odd = tmp_path / "<script>alert(1)<&>"
    shutil.copytree(str(runs.plain), str(odd))
    assert main(["report", str(odd)]) == 0
    text = (odd / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.words["h1"] == ["Run <script>alert(1)<&>"]
    assert "script" not in {tag for tag, _ in page.tags}


def test_a_quote_in_an_image_s_words_stays_in_its_attribute(runs: Any) -> None:
    from snn_metrics.report.page import Image

    found = load_trained(str(runs.plain), with_terms=False)
    report = count_operations(found.trainer, found.data)
    image = Image("data:image/svg+xml;base64,", 'a "quoted" <name> onerror=x', "caption")
    page = Page(render("t", "s", report, [("fact", "<b>")], [image], "x = '</pre>'"))
    assert page.images() == [{"src": image.source, "alt": image.alt}]
    assert page.words["pre"] == ["x = '</pre>'"]


def test_a_run_without_terms_has_a_page_without_terms(runs: Any) -> None:
    assert main(["report", str(runs.plain)]) == 0
    page = Page((runs.plain / "report.html").read_text(encoding="utf-8"))
    assert page.words["figcaption"][0].startswith("Course of the task's loss; the run had no terms")
    assert len(page.images()) == 5


def test_a_run_without_classes_and_spikes_has_a_page_without_their_plots(runs: Any, tmp_path: Path) -> None:
    changes = [
        'model={factory = "report_nets:readout"}', 'data={factory = "report_nets:values"}', "loss=OutputMSE",
        f"train.folder={tmp_path}", "train.name=values", "train.epochs=1", "train.batch_size=4",
        "train.progress=false", "train.plots=false",
    ]  # fmt: skip
    assert main(["train", *(word for change in changes for word in ("--set", change))]) == 0
    assert main(["report", str(tmp_path / "values")]) == 2  # its data have no split "test"
    assert main(["report", str(tmp_path / "values"), "--split", "train"]) == 0
    page = Page((tmp_path / "values" / "report.html").read_text(encoding="utf-8"))
    assert [caption.split()[0] for caption in page.words["figcaption"]] == ["Course", "Operations"]
    assert "Neurons" not in page.words["h2"]
    assert [word for word in page.words["span"] if word.startswith("accuracy")] == []


def test_an_earlier_report_is_replaced_and_another_file_is_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.html"
    write_page(path, text)
    write_page(path, text + "\n")
    assert path.read_text(encoding="utf-8") == text + "\n"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(RunFolderError, match="is no report of `snn report`; move it"):
        write_page(path, text)
    assert path.read_text(encoding="utf-8") == "mine"
    with pytest.raises(RunFolderError, match="its folder does not exist"):
        write_page(tmp_path / "none" / "report.html", text)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
