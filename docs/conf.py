"""Settings of the site that `make docs` builds with Sphinx."""

project = html_title = "Transferability of adversarial examples"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["results"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!transferability\.).*")]  # Python's and the libraries' own

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test runs it

highlight_language = "text"  # of blocks that name none: commands, and what they print
default_role = "code"  # `this` in docstrings
add_module_names = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, not objects of their own
napoleon_use_rtype = False  # what comes before a colon is no type

html_theme = "furo"
html_static_path = html_css_files = ["site.css"]
html_show_search_summary = False  # browsers fetch no pages from a disk
html_show_copyright = html_show_sourcelink = html_copy_source = False
