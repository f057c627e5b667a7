"""A mutation check: how many of 150 stored faults do the fast tests notice?

    python -m tests.mutants reach FOLDER   # which fast test runs which line (twice `make test`)
    python -m tests.mutants choose FOLDER  # writes tests/mutants.csv anew
    python -m tests.mutants run FOLDER     # writes FOLDER/killed.csv, and goes on after a stop

Each fault changes one operator, number or statement of analysis, attacks, measure, images or cache.
Only the tests that reach its line run, the quickest first, for at most 60 seconds of CPU time.
It needs `pip install coverage pytest-cov`. Run it in a worktree: it edits the files of `src`.
"""

import ast
import csv
import json
import os
import random
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
STORED = Path(__file__).with_suffix(".csv")
PACKAGES = ["analysis", "attacks", "measure", "images", "cache"]
COUNT, SEED, SECONDS = 150, 110, 60
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
COVER = ["-m", "not slow", "-n", "2", "--dist", "worksteal", "-p", "tests.mutants"]
OPERATORS = {
    **{ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="},
    **{ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in"},
    **{ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*"},
    **{ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&", ast.And: "or", ast.Or: "and"},
}


class Mutant(NamedTuple):
    """A fault: a line of a file, and what stands in its place."""

    path: str
    number: int
    line: str
    mutated: str


class Reach:
    """Records which test or shared fixture runs a line; a plugin of pytest beside pytest-cov."""

    def __init__(self) -> None:
        self.contexts = [""]
        self.seconds: dict[str, float] = defaultdict(float)
        self.fixtures: dict[str, list[str]] = {}

    def switch(self) -> None:
        import coverage

        if current := coverage.Coverage.current():
            current.switch_context(self.contexts[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self.fixtures[item.nodeid] = list(item.fixturenames)
        self.contexts.append(item.nodeid)
        self.switch()
        try:
            return (yield)
        finally:
            self.contexts.pop()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        self.contexts.append(f"fixture {fixturedef.argname}")
        self.switch()
        try:
            return (yield)
        finally:
            self.contexts.pop()
            self.switch()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        place = Path(os.environ["REACH"]) / f"{os.environ.get('PYTEST_XDIST_WORKER', 'all')}.json"
        place.write_text(json.dumps({"seconds": self.seconds, "fixtures": self.fixtures}))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reach())


def reach(folder: Path) -> None:
    """Run the fast tests with coverage, a context for each test and shared fixture."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"REACH": str(folder), "COVERAGE_FILE": str(folder / "coverage")}
    command = [*PYTEST, *COVER, "--cov=src", "--cov-report="]
    subprocess.run(command, cwd=ROOT, env=os.environ | places, check=False)


def tests_by_line(folder: Path) -> tuple[dict[tuple[str, int], set[str]], dict[str, float]]:
    """Return the tests that reach each line of `src`, and the seconds of each test."""
    import coverage

    seconds: dict[str, float] = {}
    users = defaultdict(set)
    for place in folder.glob("gw*.json"):
        records = json.loads(place.read_text())
        seconds |= records["seconds"]
        for test, names in records["fixtures"].items():
            for name in names:
                users[f"fixture {name}"].add(test)
    data = coverage.CoverageData(str(folder / "coverage"))
    data.read()
    found = defaultdict(set)
    for file in data.measured_files():
        path = file[file.rindex("/src/") + 1 :]
        for number, contexts in data.contexts_by_lineno(file).items():
            for context in filter(None, contexts):
                found[path, number] |= users.get(context, {context})
    return found, seconds


def mutants_of(path: str) -> Iterator[Mutant]:
    """Yield every fault of a file, one after another: each changes a single line."""
    lines = (ROOT / path).read_text().splitlines()
    tree = ast.parse("\n".join(lines))
    hints: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        hints |= {child for part in parts if part for child in ast.walk(part)}
    for node in ast.walk(tree):
        for start, end, number, new in () if node in hints else changes(node, lines):
            line = lines[number - 1]
            yield Mutant(path, number, line, line[:start] + new + line[end:])


def changes(node: ast.AST, lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """Yield (first column, end column, line number, new text) of the changes to a node."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            pairs = [(left, op, right)]
        case ast.BoolOp(op=op, values=values):
            pairs = [(first, op, second) for first, second in pairwise(values)]
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = list(zip([left, *others], ops, others, strict=False))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            if node.lineno == operand.lineno:
                yield node.col_offset, operand.col_offset, node.lineno, ""
            return
        case ast.Constant(value=bool(value)):
            yield node.col_offset, node.end_col_offset or 0, node.lineno, str(not value)
            return
        case ast.Constant(value=int() | float() as value):
            yield node.col_offset, node.end_col_offset or 0, node.lineno, str(value + 1)
            return
        case ast.Expr(value=ast.Call()) if node.lineno == node.end_lineno:
            yield node.col_offset, node.end_col_offset or 0, node.lineno, "pass"
            return
        case _:
            return
    for left, op, right in pairs:
        if left.end_lineno == right.lineno:
            start, end = left.end_col_offset or 0, right.col_offset
            between = lines[right.lineno - 1][start:end]
            if between.strip(" ()") and type(op) in OPERATORS:
                sign = between.strip(" ()")
                yield start, end, right.lineno, between.replace(sign, OPERATORS[type(op)])


def compiles(mutant: Mutant) -> bool:
    """Tell whether a file with a fault still is Python, other than the file itself."""
    lines = (ROOT / mutant.path).read_text().splitlines()
    before = ast.dump(ast.parse("\n".join(lines)))
    lines[mutant.number - 1] = mutant.mutated
    try:
        return ast.dump(ast.parse("\n".join(lines))) != before
    except SyntaxError:
        return False


def choose(folder: Path) -> None:
    """Choose faults at random among the lines that a fast test reaches, and store them."""
    reached, _ = tests_by_line(folder)
    paths = [path for name in PACKAGES for path in sorted((ROOT / "src" / name).rglob("*.py"))]
    every = [fault for path in paths for fault in mutants_of(str(path.relative_to(ROOT)))]
    every = [fault for fault in every if reached[fault.path, fault.number] and compiles(fault)]
    with STORED.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Mutant._fields)
        writer.writerows(sorted(random.Random(SEED).sample(every, COUNT)))


def stored() -> list[Mutant]:
    """Return the stored faults, each at the line where its text is now."""
    faults = []
    with STORED.open(newline="") as file:
        for row in csv.DictReader(file):
            wanted, lines = int(row["number"]), (ROOT / row["path"]).read_text().splitlines()
            places = [number for number, line in enumerate(lines, 1) if line == row["line"]]
            assert places, f"{row['path']}: no line {row['line']!r}; choose the faults anew"
            number = min(places, key=lambda place, wanted=wanted: abs(place - wanted))
            faults.append(Mutant(row["path"], number, row["line"], row["mutated"]))
    return faults


def run(folder: Path) -> None:
    """Run the tests that reach each fault's line; a line of killed.csv for each fault."""
    reached, seconds = tests_by_line(folder)
    table = folder / "killed.csv"
    done = len(table.read_text().splitlines()) if table.exists() else 0
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}  # no stale bytecode
    limit = partial(resource.setrlimit, resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    for fault in stored()[done:]:
        place = ROOT / fault.path
        text = place.read_text()
        lines = text.splitlines(keepends=True)
        lines[fault.number - 1] = fault.mutated + "\n"
        tests = sorted(reached[fault.path, fault.number], key=lambda test: seconds[test])
        (folder / "tests.txt").write_text("\n".join(tests))
        command = [*PYTEST, "-x", f"@{folder / 'tests.txt'}"]
        place.write_text("".join(lines))
        try:
            ended = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | quiet,
                preexec_fn=limit,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            place.write_text(text)
        with table.open("a", newline="") as file:
            names = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
            row = [fault.path, fault.number, len(tests), ended.returncode, *names[:1]]
            csv.writer(file, lineterminator="\n").writerow(row)


if __name__ == "__main__":
    step, target = sys.argv[1], Path(sys.argv[2]).resolve()
    {"reach": reach, "choose": choose, "run": run}[step](target)
