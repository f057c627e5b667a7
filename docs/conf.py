"""Settings of the site that `make docs` builds with Sphinx."""

project = html_title = "Transferability of adversarial examples"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["results"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures
default_role = "literal"  # of single backticks in docstrings
napoleon_use_ivar = True  # a list, not entries of the index

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # a test runs it

highlight_language = "text"  # of blocks that name none: commands, and what they print

html_theme = "furo"
html_static_path = ["site.css", "sort.js"]
html_css_files = ["site.css"]
html_js_files = [("sort.js", {"defer": "defer"})]
html_show_search_summary = False  # browsers fetch no pages from a disk
html_show_copyright = html_show_sourcelink = html_copy_source = False
