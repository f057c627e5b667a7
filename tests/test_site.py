"""The documentation: its generated tables, and the whole site in a browser, opened from disk."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_python
from tests.report.conftest import CHROMIUM, FLAGS

DOCS, CONF = REPOSITORY / "docs", REPOSITORY / "conf"
TABLES = ("attack", "defence", "model")


@pytest.fixture(scope="module", autouse=True)
def modules_of_the_pages():
    """Let tests import what makes the pages' tables and the attacks' files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        yield


def test_files_of_attacks_are_those_that_make_configs_writes():
    from attack_files import attack_files

    made, by_hand = (
        attack_files(),
        {"none", "saved", "torchattack", "torchattacks", "foolbox", "transferattack"},
    )
    files = {path.stem: path for path in (CONF / "attack").glob("*.yaml")}
    assert files.keys() == made.keys() | by_hand
    for name, text in made.items():
        assert files[name].read_text(encoding="utf-8") == text


def test_pages_are_those_that_make_docs_tables_writes():
    from write_tables import START, TABLE, pages

    texts = {page: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    made = pages()
    old = [page.name for page, text in made.items() if texts[page] != text]
    assert not old, f"{', '.join(old)}: run `make docs-tables`"
    for text in texts.values():
        assert text.count(START) == len(TABLE.findall(text))


def test_the_front_door_needs_no_sphinx():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") <= 120
    pages = re.findall(r"(?<!!)\[[^]]*\]\(([^)#]+\.md)[)#]", readme)
    texts = {page: (REPOSITORY / page).read_text(encoding="utf-8") for page in pages}
    assert texts["docs/attacks.md"].count("\n| ") > 50
    shell = re.compile(r"\{\{|```\{(?!toctree)|\{\w+:\w+\}`")
    assert [page for page, text in texts.items() if shell.search(text)] == []


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, list[str]]]:
    """Cells of each table by the name that its row begins with."""
    found = {}
    for group in TABLES:
        page = (DOCS / f"{group}s.md").read_text(encoding="utf-8")
        text = re.search(rf"<!-- {group}s: .*-->\n\n(.*?)\n\n<!-- end", page, re.DOTALL)[1]
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
        found[group] = {re.sub(r".*`([\w]+)[ `].*", r"\1", cells[0]): cells for cells in rows[2:]}
    return found


def test_every_file_of_the_config_has_its_place(tables):
    keys = (DOCS / "options.md").read_text(encoding="utf-8").partition("## All keys")[2]
    common = {"_common", "_saved", "_small_network", "_network_with_stem", "config", "report"}
    for path in CONF.rglob("*.yaml"):
        group, name = path.relative_to(CONF).parts[0], path.stem
        if group in TABLES and name not in ("none", "saved") and not name.startswith("_"):
            assert name in tables[group]
        elif path.parent.name not in ("help", "job_logging") and name not in common:
            folder = path.relative_to(CONF).parent
            assert f"{'targets=panel/' if group == 'panel' else f'{folder}='}{name}`**" in keys


def test_tables_say_what_files_and_their_classes_do(tables):
    attack, defence, model = (tables[group] for group in TABLES)
    assert attack["svre"][5:] == ["2 + K ((2 + inner_steps - 1 / M) steps - 2)", "2 sources"]
    link = "[1710.06081](https://arxiv.org/abs/1710.06081)"
    assert attack["mi"][1:4] == ["Momentum Iterative FGSM", "2018", link]
    assert all(
        cells[1] and (cells[2] or cells[1] == "TransferAttack")
        for cells in attack.values()
        if cells[0][:2] != "**"
    )
    assert "(../src/attacks/zoo/gradient_steps.py)" in attack["llc"][0]
    assert attack["llc"][6] == "target labels"
    assert defence["smoothing"][3:] == ["100", "random numbers"]
    assert defence["jpeg"][2:] == ["`quality` 75, `offset` 0, `temperature` 0.12", "1", ""]
    assert "(https://arxiv.org/abs/1711.01991)" in defence["random_resize_pad"][1]
    assert model["vgg_small"][3:] == ["[in the package](#small-networks-with-weights)", "MIT"]
    assert model["vit"][2] == "224 pixels" and model["vit"][4] == "apache-2.0"
    assert model["resnet50"][1:3] == ["ResNet-50", "the data's"] and not model["resnet50"][4]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site; a warning is an error."""
    for name in ("furo", "myst_nb", "sphinx_copybutton", "sphinx_reredirects"):
        pytest.importorskip(name, reason=f"{name} is in the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    run_python("-m", "sphinx", "-W", "--keep-going", "-q", "docs", folder, folder=REPOSITORY)
    return folder


def test_the_list_on_the_command_line_is_that_of_the_page(tables, run_in, tmp_path, capsys):
    assert run_in(tmp_path, module="src.attacks.__main__") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        name for name in tables["attack"] if name[0] != "*"
    ]


def test_the_design_names_what_there_is():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    frames = re.findall(r"^\| `(src/\S+)` \| `(\w+)` \|", text, re.M)
    assert frames
    for file, name in frames:
        assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8")
    for name, file in re.findall(r"`(\w+)` \(`(\S+\.py)`\)", text):
        assert f"class {name}" in (REPOSITORY / "src" / file).read_text(encoding="utf-8")
    from house import floors

    picture = (DOCS / "house.svg").read_text(encoding="utf-8")
    assert all(f">{name}</text>" in picture for floor in floors() for name in floor)


@pytest.mark.slow
def test_old_addresses_lead_to_places(site):
    from docs.conf import redirects

    for old, new in redirects.items():
        page, _, place = new.partition("#")
        target = (site / old).parent / page
        assert f'id="{place}"' in target.read_text(encoding="utf-8")
        assert new in (site / f"{old}.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_works_from_disk(site):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    noise: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("request", lambda request: noise.append(request.url))
        for page in site.rglob("*.html"):
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, page.name
        tab.goto(f"{(site / 'search.html').as_uri()}?q=smoothing")
        tab.wait_for_selector("#search-results a[href^='defences.html']")
        tab.goto(f"{(site / 'search.html').as_uri()}?q=images_mb")
        tab.wait_for_selector("#search-results a[href^='options.html']")
        tab.goto((site / "findings" / "board.html").as_uri())
        table = tab.locator(".sortable table").first
        cells = table.locator("tbody tr td:nth-child(3)")
        costs = {text for text in cells.all_inner_texts() if text.isdigit()}
        for _ in range(2):  # descending, then ascending
            table.locator("thead th").nth(2).click()
        assert cells.first.inner_text() == min(costs, key=int)
        browser.close()
    assert [line for line in noise if not line.startswith(("file:", "data:"))] == []
