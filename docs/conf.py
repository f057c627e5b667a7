"""Settings of the site that `make docs` builds with Sphinx."""

project = html_title = "Transferability of adversarial examples"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
extensions += ["sphinx_reredirects"]
exclude_patterns = ["results"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures
default_role = "literal"  # of single backticks in docstrings
napoleon_use_ivar = True  # a list, not entries of the index
redirect_html_template_file = "redirect.html"
redirects = {  # old pages and their places
    "ask": "audit.html#a-target-i-can-only-ask",
    "cheatsheet": "index.html#commands",
    "clip": "models.html#clip-as-a-classifier",
    "coming-from": "api.html#coming-from-torchattacks-or-foolbox",
    "compare": "card.html#did-my-last-training-make-it-worse",
    "definitions": "report.html#definitions",
    "figures": "tables.html#figures",
    "findings/confidence": "studies.html#are-confident-images-harder-to-manipulate",
    "findings/fitted": "more-attacks.html#fitted-attacks",
    "findings/frequencies": "studies.html#frequencies-and-controls",
    "findings/matched-cost": "attacks.html#attacks-at-matched-cost-and-on-photographs",
    "findings/time": "../benchmarks.html#results",
    "formulas": "reference.html#reference",
    "first-run": "index.html#first-run",
    "fitted": "attacks.html#fitted-attacks",
    "images": "own-data.html#attack-towards-a-class",
    "keys": "options.html#all-keys",
    "new-attack": "own-attack.html#part-of-the-program",
    "new-measurement": "own-measurement.html#part-of-the-program",
    "own-defence": "defences.html#a-defence-of-your-own",
    "own-models": "models.html#models-of-your-own",
    "public-models": "models.html#public-models",
    "references": "reproducibility.html#attacks-beside-their-authors-code",
    "sources": "no-transfer.html#which-source-to-attack",
    "trust": "reproducibility.html#what-the-program-trusts",
}

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
