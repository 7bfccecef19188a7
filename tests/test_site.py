"""The site: built from a small checkout, read in a browser from disk, rebuilt, and refused when a link is broken."""

import json
import shutil
from pathlib import Path

import pytest
from site_checks import ARGUMENTS, CHROMIUM, check_site
from site_fixture import code, make_checkout, make_run, markdown, write_notebook

from smml.course import site, site_notebook, site_stage, state
from smml.course.state import Outcome, RunState
from smml.errors import UserError

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: make system-deps"),
]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout with a built site in build/; tests only read it."""
    root = tmp_path_factory.mktemp("checkout")
    make_checkout(root)
    make_run(root / "build")
    site.build(root, root / "build")
    return root


def text_of(root: Path, page: str) -> str:
    return (root / "build" / "site" / page).read_text()


@pytest.fixture
def another(checkout: Path, tmp_path: Path) -> Path:
    """A copy of the checkout, site and cache included, that a test may change."""
    shutil.copytree(checkout, tmp_path / "checkout")
    return tmp_path / "checkout"


class TestPages:
    def test_index_maps_every_notebook_with_its_status(self, checkout: Path):
        page = text_of(checkout, "index.html")
        for words in (
            "What is this machine good for?",
            "Where is the roof?",
            "Why does batching cut the price?",
        ):
            assert words in page
        for words in (
            "✓ 1 passed",
            "✗ 1 failed",
            "○ 1 not run",
            "AMD EPYC",
            "21 November 2026",
            "1 min 11 s",
        ):
            assert words in page

    def test_failed_notebook_shows_its_error_first(self, checkout: Path):
        page = text_of(checkout, "00_getting_started/01_your_machine.html")
        assert page.index("ValueError: &lt;no&gt; peak") < page.index("2 minutes on a laptop")
        assert page.index('id="failing-cell"') < page.index("Traceback")

    def test_notebook_that_did_not_run_is_shown_without_outputs(self, checkout: Path):
        page = text_of(checkout, "01_leveraging_hardware/02_batching.html")
        assert "○ not run" in page
        assert "never shown" not in page

    def test_exercise_and_solution_are_marked(self, checkout: Path):
        page = text_of(checkout, "01_leveraging_hardware/01_roofline.html")
        assert "tag_exercise" in page
        folded = page[page.index('<details class="solution">') : page.index("</details>")]
        assert '<div class="highlight">' in folded

    def test_report_links_what_ran_and_draws_predictions(self, checkout: Path):
        page = text_of(checkout, "report.html")
        assert 'href="01_leveraging_hardware/01_roofline.html"' in page
        assert page.count("_images/") == 3

    def test_linked_files_come_along(self, checkout: Path):
        assert "One figure" in text_of(checkout, "docs/figure.html")
        assert list((checkout / "build" / "site" / "_downloads").rglob("code.py"))

    def test_no_page_names_another_host_for_what_it_loads(self, checkout: Path):
        for page in (checkout / "build" / "site").rglob("*.html"):
            assert 'src="http' not in page.read_text()

    def test_only_the_one_file_of_mathjax_is_shipped(self, checkout: Path):
        total = sum(
            path.stat().st_size
            for path in (checkout / "build" / "site").rglob("*")
            if path.is_file()
        )
        assert total < 8e6


class TestBrowser:
    pytestmark = needs_browser

    def test_site_reads_well_from_disk(self, checkout: Path):
        assert check_site(checkout / "build" / "site" / "index.html") == []

    def test_the_check_finds_what_is_planted(self, another: Path):
        index = another / "build" / "site" / "index.html"
        planted = """<img src="gone.png" alt="x"><a href="gone.html">a</a><a href="report.html#gone">b</a>
            <script src="https://example.invalid/x.js"></script><script>throw new Error("planted")</script>
            <span class="math">x</span><div style="width: 900px">wide</div></body>"""
        index.write_text(index.read_text().replace("</body>", planted))
        found = "\n".join(check_site(index))
        for words in (
            "image without a picture",
            "link to nothing",
            "link to no place",
            "leaves the disk",
            "planted",
            "formulas drawn",
            "pixels wide",
        ):
            assert words in found

    def test_plots_stand_on_white_in_dark_mode(self, checkout: Path):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
            page = browser.new_page(color_scheme="dark")
            page.goto((checkout / "build/site/01_leveraging_hardware/01_roofline.html").as_uri())
            colour = "e => getComputedStyle(e).backgroundColor"
            image = page.locator("article img").first.evaluate(colour)
            paper = page.locator("body").evaluate(colour)
            browser.close()
        assert image == "rgb(255, 255, 255)"
        assert paper != image


class TestRebuild:
    def test_only_what_changed_is_written_again(self, another: Path):
        site_folder = another / "build" / "site"
        site.build(another, another / "build")
        before = {path: path.stat().st_mtime_ns for path in site_folder.rglob("*.html")}
        notebook = another / "build/notebooks/01_leveraging_hardware/01_roofline.ipynb"
        notebook.write_text(notebook.read_text().replace("not attempted", "correct"))
        site.build(another, another / "build")
        changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
        assert "01_roofline.html" in changed
        assert "01_your_machine.html" not in changed

    def test_a_new_title_reaches_the_sidebar_of_every_page(self, another: Path):
        notebook = another / "build/notebooks/01_leveraging_hardware/01_roofline.ipynb"
        notebook.write_text(
            notebook.read_text().replace("Where is the roof?", "How high is the roof?")
        )
        site.build(another, another / "build")
        assert "How high is the roof?" in text_of(
            another, "00_getting_started/01_your_machine.html"
        )

    def test_broken_link_and_image_are_named_until_they_are_mended(self, another: Path):
        readme = another / "00_getting_started" / "README.md"
        whole = readme.read_text()
        readme.write_text(whole + "\n[gone](nowhere.md) and ![gone](nothing.png)\n")
        for _ in range(2):
            with pytest.raises(UserError) as error:
                site.build(another, another / "build")
            lines = str(error.value).splitlines()
            assert len(lines) == 3
            assert all(line.startswith("00_getting_started/README.md: ") for line in lines[1:])
            assert "nowhere.md" in str(error.value)
            assert "nothing.png" in str(error.value)
        readme.write_text(whole)
        assert site.build(another, another / "build").is_file()

    def test_damaged_notebook_is_named_and_shown_as_not_run(self, another: Path):
        (another / "build/notebooks/01_leveraging_hardware/01_roofline.ipynb").write_text(
            '{"cells": ['
        )
        with pytest.raises(UserError, match=r"01_roofline\.ipynb: not a readable notebook"):
            site.build(another, another / "build")
        assert "○ not run" in text_of(another, "01_leveraging_hardware/01_roofline.html")

    def test_removed_notebook_leaves_the_sources(self, another: Path):
        (another / "01_leveraging_hardware" / "02_batching.ipynb").unlink()
        site.build(another, another / "build")
        assert not (another / "build/site_source/01_leveraging_hardware/02_batching.ipynb").exists()
        assert "02_batching" not in text_of(another, "index.html")


def test_site_without_a_run_and_without_readmes(tmp_path: Path):
    write_notebook(
        tmp_path / "00_first_steps" / "01_one.ipynb", markdown("# One?"), code("1"), outputs=False
    )
    index = site.build(tmp_path, tmp_path / "build")
    assert "No notebook has been run on this machine yet" in index.read_text()
    assert "00 · First steps" in index.read_text()


class TestRun:
    def test_missing_is_none_and_damaged_is_named(self, tmp_path: Path):
        assert state.load(tmp_path / "run.json") is None
        (tmp_path / "run.json").write_text('{"profile": "cpu"}')
        with pytest.raises(UserError, match=r"run\.json is damaged .KeyError"):
            state.load(tmp_path / "run.json")

    def test_unknown_status_is_refused(self, tmp_path: Path):
        make_run(tmp_path)
        text = (tmp_path / "run.json").read_text()
        (tmp_path / "run.json").write_text(text.replace('"passed"', '"fine"'))
        with pytest.raises(UserError, match=r"status .fine. is none of pending"):
            state.load(tmp_path / "run.json")


class TestNotebook:
    def test_live_outputs_and_runner_cells_are_left_out(self):
        widget = {
            "output_type": "display_data",
            "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "100%"},
            "metadata": {},
        }
        notebook = {
            "cells": [
                markdown("failed!", "papermill-error-cell-tag"),
                markdown("# T"),
                code("x", outputs=(widget,)),
            ]
        }
        page = site_notebook.page(notebook, "01_t", Outcome("passed", 1.0), None)
        assert "failed!" not in json.dumps(page)
        assert page["cells"][1]["outputs"][0]["data"] == {"text/plain": "100%"}

    def test_figures_are_described_by_their_heading(self):
        image = {"output_type": "display_data", "data": {"image/png": "AA=="}, "metadata": {}}
        notebook = {"cells": [markdown("# T\n## Measure"), code("x", outputs=(image,))]}
        page = site_notebook.page(notebook, "01_t", Outcome("passed"), None)
        assert page["cells"][1]["metadata"]["mystnb"]["image"]["alt"] == "Plot: Measure"

    def test_title_is_added_where_there_is_none(self):
        page = site_notebook.page({"cells": [code("x")]}, "01_untitled", Outcome("pending"), None)
        assert page["cells"][0]["source"].startswith("# 01_untitled")

    def test_hostile_device_name_stays_text(self):
        from datetime import UTC, datetime

        run = RunState("cpu", "x", "<script>", datetime(2026, 1, 2, tzinfo=UTC))
        assert "&lt;script&gt;" in site_notebook.banner(Outcome("passed"), run)


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("[a](../README.md#run)", "[a](../README.md#run)"),
        ("[a](../docs/)", "[a](../docs/README.md)"),
        ("[a](../bare/)", "a"),
        ("[a](https://example.org/x)", "[a](https://example.org/x)"),
        ("[![b](https://example.org/b.svg)](../README.md)", "[b](../README.md)"),
        ("[a](missing.md)", "[a](missing.md)"),
        ("`x[i](j)`", "`x[i](j)`"),
    ],
)
def test_links_are_turned_to_where_their_targets_stand(tmp_path: Path, text: str, turned: str):
    for name in ("README.md", "docs/README.md", "bare/x.txt", "module/01_a.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert site_stage.Stage(tmp_path, tmp_path / "stage").linked(text, "module") == turned
