"""Settings of the site for Sphinx. Everything a page loads stands beside it: it opens from disk, without a network."""

import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

# jsonschema, which comes with myst-nb, checks addresses with this grammar if it is there. Compiling it takes
# longer than the rest of a rebuild, and no notebook format asks for it: None makes its import fail, as if absent.
sys.modules.setdefault("rfc3987_syntax", None)

project = "smml"
html_title = "smml"
language = "en"
root_doc = "index"
extensions = ["myst_nb", "sphinx.ext.mathjax"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 4
smartquotes = False
# A file that only a link leads to is a page too; a page's heading levels and an unknown language name harm nobody.
suppress_warnings = ["toc.not_included", "myst.header", "misc.highlighting_failure"]

# The one MathJax file that holds all of TeX and draws without fonts, so that nothing is fetched at reading time.
_mathjax = (
    Path(find_spec("sphinx-mathjax-offline").origin).parent
    / "static"
    / "mathjax"
    / "tex-svg-full.js"
)
mathjax_path = _mathjax.name
mathjax3_config = {"options": {"enableMenu": False}, "loader": {"load": []}}

html_theme = "furo"
html_static_path = ["static", str(_mathjax)]
html_css_files = ["site.css"]
# "://" makes Sphinx take it for an address and leave it in the page.
html_favicon = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1.5 14 9 4.5h5.5' fill='none' stroke='%232962a8' stroke-width='2.2'/%3E%3C/svg%3E"
)
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#1f4e8c", "color-brand-content": "#1f5fae"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False
html_scaled_image_link = False
# Summaries are fetched page by page, which a browser refuses for pages opened from disk.
html_show_search_summary = False


def setup(app: Sphinx) -> dict[str, bool]:
    """Keep the files that myst-nb writes for itself beside the doctrees instead of beside the site."""

    def move(app: Sphinx) -> None:
        folder = Path(app.doctreedir).parent / "outputs"
        app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(folder))

    app.connect("builder-inited", move, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
