"""The real course as a site, from disk, in a browser: README, modules and notebooks link to what exists."""

from pathlib import Path

import pytest
from site_checks import CHROMIUM, check_site

from smml.course import site

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: make system-deps")
def test_every_page_link_and_image_of_the_course_resolves(tmp_path):
    index = site.build(ROOT, tmp_path)
    assert check_site(index) == []
    pages = {str(p.relative_to(index.parent)) for p in index.parent.rglob("*.html")}
    assert {f"{n.parent.name}/{n.stem}.html" for n in ROOT.glob("[0-9]*_*/[0-9]*.ipynb")} <= pages
