"""Look at a site as a reader does, in a browser that opens it from disk: `check_site(index)` lists what is wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PHONE = {"width": 390, "height": 800}
SCREEN = {"width": 1280, "height": 900}

# What one page holds; MathJax has drawn when its promise is kept.
_LOOK = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  const details = [...document.querySelectorAll('details')];
  const folded = details.filter(d => d.open).length;
  const height = d => d.getBoundingClientRect().height;
  const stuck = details.filter(d => {
    const before = height(d);
    d.querySelector('summary').click();
    return !(d.open && height(d) > before);
  });
  return {
    title: document.querySelector('h1')?.firstChild?.textContent ?? '',
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    anchors: [...document.querySelectorAll('[id], [name]')].flatMap(e => [e.id, e.getAttribute('name')]),
    blank: images.filter(i => i.naturalWidth === 0).map(i => i.src),
    nameless: images.filter(i => !i.alt).map(i => i.src),
    formulas: document.querySelectorAll('.math').length,
    drawn: document.querySelectorAll('.math mjx-container svg').length,
    wrong: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
    open: folded,
    stuck: stuck.length,
  };
}"""


@dataclass
class Look:
    """One page: what it holds and what went wrong while it was open."""

    holds: dict
    problems: list[str] = field(default_factory=list)


def check_site(index: Path) -> list[str]:
    """Every problem of the site around `index`, one line each; empty when there is none."""
    root = index.resolve().parent
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=ARGUMENTS
        ).new_context()
        looks = {path: _look(browser, path) for path in sorted(root.rglob("*.html"))}
        problems += _search(browser, root, _word(looks[root / "index.html"]))
        browser.close()
    for path, look in looks.items():
        name = path.relative_to(root)
        problems += [f"{name}: {problem}" for problem in [*look.problems, *_links(path, looks)]]
    return problems


def _look(browser: BrowserContext, path: Path) -> Look:
    problems: list[str] = []
    page = browser.new_page()
    page.set_viewport_size(SCREEN)
    _listen(page, problems)
    page.goto(path.as_uri())
    holds = page.evaluate(_LOOK)
    problems += [f"image without a picture: {source}" for source in holds["blank"]]
    problems += [f"image without a text alternative: {source}" for source in holds["nameless"]]
    if holds["drawn"] != holds["formulas"] or holds["wrong"]:
        problems.append(
            f"{holds['drawn']} of {holds['formulas']} formulas drawn, {holds['wrong']} in error"
        )
    if holds["open"]:
        problems.append(f"{holds['open']} details stand open")
    if holds["stuck"]:
        problems.append(f"{holds['stuck']} details do not unfold")
    page.set_viewport_size(PHONE)
    wide = page.evaluate("document.scrollingElement.scrollWidth")
    if wide > PHONE["width"]:
        problems.append(f"{wide} pixels wide on a phone of {PHONE['width']}")
    page.close()
    return Look(holds, problems)


def _listen(page: Page, problems: list[str]) -> None:
    page.on("console", lambda m: m.type == "error" and problems.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"request failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:"))
            or problems.append(f"leaves the disk: {request.url}")
        ),
    )


def _links(path: Path, looks: dict[Path, Look]) -> list[str]:
    problems = []
    for link in sorted(set(looks[path].holds["links"])):
        address, anchor = urldefrag(urljoin(path.as_uri(), link))
        if urlsplit(address).scheme != "file":
            continue
        target = Path(unquote(urlsplit(address).path))
        if not target.is_file():
            problems.append(f"link to nothing: {link}")
        elif anchor and target in looks and unquote(anchor) not in looks[target].holds["anchors"]:
            problems.append(f"link to no place on its page: {link}")
    return problems


def _word(look: Look) -> str:
    """A long word of the first page's title: something that a search must find."""
    return max(look.holds["title"].split(), key=len).strip(",.:;?!")


def _search(browser: BrowserContext, root: Path, word: str) -> list[str]:
    problems: list[str] = []
    page = browser.new_page()
    page.set_viewport_size(SCREEN)
    _listen(page, problems)
    page.goto(f"{(root / 'search.html').as_uri()}?q={quote(word)}")
    page.locator("#search-results .search-summary", has_text=" ").wait_for()
    if not page.locator("#search-results li a").count():
        problems.append(f"search.html: does not find {word!r}")
    page.close()
    return problems
