"""What the documentation says of results is what the stored tables hold."""

import json

from findings.__main__ import DOCS, RESULTS, page
from findings.numbers import Sweep


def test_the_page_is_what_the_tables_say():
    assert (DOCS / "findings.md").read_text(encoding="utf-8") == page()


def test_the_first_run_in_the_readme_is_what_the_tables_say():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    printed = {" ".join(line.split()) for line in readme.splitlines()}
    heading, columns, _, *rows = Sweep([RESULTS / "demo"]).matrix("fgsm").splitlines()
    for line in (heading, columns, *rows[:4]):
        assert " ".join(line.split()) in printed


def test_the_formula_of_time_and_memory_is_what_the_benchmark_fitted():
    stored = json.loads((RESULTS / "benchmarks" / "growth.json").read_text(encoding="utf-8"))
    page = " ".join((DOCS / "scaling.md").read_text(encoding="utf-8").split())
    formulas = stored["results"][0]["formulas"]
    seconds, megabytes = formulas["seconds"], formulas["megabytes"]
    assert "seconds = {:.1f} + {:.2g} n + {:.2g} n T (B + 1)".format(*seconds) in page
    assert "megabytes = {:,.0f} + {:.0f} T + {:.2g} n T (B + 1)".format(*megabytes) in page
