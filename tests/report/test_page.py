"""The page in a browser: it requests nothing, every selection shows its numbers, names are text."""

import random
import re
from urllib.parse import quote

import pandas as pd
import pytest

from src.report.shown import pairs_of
from tests.report.conftest import drawn

SEED = 84


def select(tab, **selection) -> None:
    """Open an address of the page, and wait until everything is drawn."""
    text = "&".join(
        f"{name}={quote(f'{value}'.removesuffix('.0'), safe='')}"
        for name, value in selection.items()
    )
    tab.evaluate("text => { location.hash = text; }", text)
    tab.wait_for_function(
        "chosen => { const shown = JSON.parse(document.body.dataset.drawn);"
        " return Object.entries(chosen).every(([name, value]) => shown[name] === value); }",
        arg=selection,
    )


def percent(share) -> str:
    return f"{100 * share:.1f}"


def titles(tab) -> list[str]:
    return tab.locator("#results h2").all_inner_texts()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["defended", "ordinary", "targeted"])
def test_every_selection_shows_the_numbers_of_the_tables(opened, results_of_kind, made_up, kind):
    tab, page = opened(kind), made_up(kind).page
    results, axes = results_of_kind(kind), page["axes"]
    rates = pairs_of(results.shown)
    generator = random.Random(SEED)
    print(f"seed {SEED}")
    for _ in range(20 if kind == "ordinary" else 8):
        chosen = {name: generator.choice(axes[name]) for name in ("attack", "source", "target")}
        chosen |= {name: generator.choice(axes[name]) for name in ("defence", "protocol")}
        chosen |= {"eps": generator.choice(axes["eps_255"][1:])}
        chosen |= {"shown": generator.choice(["fooled", "correct"])}
        select(tab, **chosen)
        correct = chosen["shown"] == "correct"
        column, count = (
            ("robust_accuracy", "still_correct") if correct else ("success_rate", "success")
        )
        at = rates[rates["attack"] == chosen["attack"]]
        for name, value in (("defence", "defence"), ("protocol", "protocol"), ("eps_255", "eps")):
            at = at[at[name] == chosen[value]]
        for row in at.to_dict("records"):
            cell = tab.locator(f"#matrix [data-pair='{row['source']}>{row['target']}']")
            text = cell.inner_text().split()
            counts = f"{row[count]:.0f}", "/", f"{row['denominator']:.0f}"
            assert text == [percent(row[column]), *counts], (chosen, row["source"], row["target"])
        budget = f"{chosen['eps']:g}/255"
        tab.wait_for_function(
            "text => document.querySelector('#image .title').innerText.includes(text)", arg=budget
        )
        every = [*titles(tab)[:2], tab.inner_text("#image .title")]
        assert all(budget in text for text in every), (chosen, every)
        shown = " ".join([*titles(tab), tab.inner_text("#image .title")])
        shown += tab.inner_text("#ranking .note")
        assert set(re.findall(r"[\d.]+/255", shown)) == {budget}
        rows = results.rankings
        rows = rows[(rows["defence"] == chosen["defence"]) & (rows["eps_255"] == chosen["eps"])]
        mean = rows["sources"] > 1
        rows = rows[rows["source"] == chosen["source"] if chosen["source"] else mean]
        if chosen["protocol"] == "joint" and not chosen["target"] and not correct:
            levels = tab.locator("#ranking .ranked > .number > b").all_inner_texts()
            assert levels[: len(rows)] == [f"{percent(mean)} %" for mean in rows["mean"]]
        else:
            tested = chosen["protocol"] == "joint" and not correct  # sources, on the chosen target
            firsts = tab.locator("#ranking .ranked :text-is('first')").count()
            assert firsts <= (1 if tested else 0) or correct
            assert firsts == tab.locator("#ranking .whole:text('sources of')").count() or correct
        named = tab.locator("#tiles .tile > span:first-child").all_inner_texts()
        assert all(text.startswith(chosen["attack"]) for text in named)
        assert tab.locator("#controls [aria-pressed=true]").count() == 3


@pytest.mark.slow
def test_a_cell_sets_the_pair_of_the_image_and_not_the_ranking(opened):
    tab = opened("ordinary")
    before = tab.inner_text("#ranking")
    tab.click("#matrix [data-pair='resnet>vit']")
    tab.wait_for_function("document.querySelector('#image').innerText.includes('resnet → vit')")
    assert "pair=resnet%3Evit" in tab.url and tab.inner_text("#ranking") == before
    counts = tab.inner_text("#matrix .pair[data-pair='resnet>vit'] small")
    assert f"image: {counts} [" in tab.inner_text("#matrix .note")
    tab.go_back()
    tab.wait_for_function("location.hash === ''")
    assert tab.locator("#matrix .pair[data-pair='resnet>vit']").count() <= 1


@pytest.mark.slow
def test_parts_name_their_pair_and_show_only_controls_that_they_use(opened):
    tab = opened("ordinary", "#attack=bim&pair=resnet%3Evit&view=images")
    tab.wait_for_selector("#images .classes")
    headings = tab.locator("#images h2").all_inner_texts()
    named = [text for text in headings if text.startswith(("bim", "All images", "Exceptions"))]
    assert len(named) == 2 and all("resnet → vit" in text for text in named)
    assert "resnet → vit" in tab.inner_text("#images .title .second")
    assert "from resnet" in tab.inner_text("#images h3")
    assert tab.locator("#images .role").all_inner_texts() == ["", "bim", "fgsm"]
    select(tab, view="why")
    assert not tab.locator("#controls :is([aria-label=budget], [name=protocol])").count()


@pytest.mark.slow
def test_charts_without_rows_of_the_selection_are_not_drawn(opened):
    tab = opened("ordinary", "#attack=fgsm&view=why")  # the only attack with diagnostics
    chart = tab.locator("#figure-spectra .scroll")
    tab.wait_for_selector("#figure-spectra svg.marks")
    for attack in ("bim", "fgsm"):
        select(tab, attack=attack, view="why")
        assert chart.is_visible() == (attack == "fgsm")
        assert tab.inner_text("#figure-spectra figcaption")


@pytest.mark.slow
def test_groups_of_images_differ_in_line_and_marker(opened):
    tab = opened("ordinary", "#view=images")
    for choice in ("no", "yes"):
        tab.click(f"#images [aria-label=groups] [data-value={choice}]")
        looks = tab.locator("#images .legend svg").evaluate_all(
            "all => all.map((o) => o.innerHTML)"
        )
        assert len(set(looks)) == len(looks) > 1


@pytest.mark.slow
def test_class_names_keep_their_own_direction(opened):
    tab = opened("ordinary", "#view=images")
    tab.wait_for_selector("#images .classes")
    places = "#images .title h2 bdi, #images h3 bdi, #images .gallery bdi, #images .class > bdi"
    names = tab.locator(places).all_inner_texts()
    assert {*names} <= {"cat", "dog", "owl", "fox", "elk", "ape"}
    chips = tab.locator("#images .class").count()
    assert len(names) >= 2 + chips + tab.locator("#images .gallery button").count() > chips > 0


@pytest.mark.slow
def test_unknown_values_of_an_address_are_left_out(opened):
    tab = opened("ordinary", "#attack=fgsm&source=vgg&target=%3Cb%3E&eps=2&view=x&pair=y&image=-3")
    assert "fgsm at 2/255" in titles(tab)[1] and "from vgg" in titles(tab)[0]
    assert tab.input_value("select[name=target]") == ""


@pytest.mark.slow
def test_an_image_is_found_by_its_number_or_its_file(opened, results_of_kind):
    files = results_of_kind("image files").attacked[0][0].job.image_files
    names = [file.partition("/")[2] for file in files.values()]
    several = next(name for name in names if names.count(name) > 1)
    alike = [number for number, name in enumerate(names) if name == several]
    tab = opened("image files", "#view=images&image=0")
    field = tab.locator("#images .search input")
    for typed, number in (
        ("7", 7),
        (files[alike[0]], alike[0]),
        (f"/a/{files[alike[1]]}", alike[1]),
    ):
        field.fill(typed)
        field.press("Enter")
        tab.wait_for_function(
            "wanted => JSON.parse(document.body.dataset.drawn).image === wanted", arg=number
        )
    for typed, told in (
        (several, f"Choose from {', '.join(files[number] for number in alike)}."),
        ("png", "Image png is not one of the 60 images."),
    ):
        field.fill(typed)
        field.press("Enter")
        assert tab.inner_text("#images output") == told


@pytest.mark.slow
def test_next_goes_through_all_fooled_images_by_confidence(opened, made_up, results_of_kind):
    tab = opened("ordinary", "#attack=fgsm&source=vgg&target=vit&eps=8")
    place = {"attack": "fgsm", "source": "vgg", "target": "vit", "protocol": "joint"}
    rows = results_of_kind("ordinary").select(**place, eps_255=8.0)
    count = int(rows["success"].item())
    place = "#image [aria-label='images by confidence'] button:nth-child(2)"
    assert f"fooled {count}" in tab.inner_text("#image .title")
    assert "one of the" in tab.inner_text("#image .title")
    while tab.locator("#image [data-value=previous]").is_enabled():
        tab.click("#image [data-value=previous]")
    seen = []
    for number in range(1, count + 1):
        tab.wait_for_function(
            "([place, text]) => document.querySelector(place).textContent === text",
            arg=[place, f"{number} of {count}"],
        )
        label = tab.inner_text("#image h2")
        share = tab.locator("#image .here, #image .class.wrong").last.inner_text()
        seen.append((label, share))
        if number < count:
            tab.click("#image [data-value=next]")
    assert len({label for label, _ in seen}) == count


@pytest.mark.slow
def test_the_keyboard_reaches_every_control(opened):
    tab = opened("ordinary")
    controls = "main button:not(:disabled), main select, main input, nav a"
    count = tab.locator(controls).filter(visible=True).count()
    reached = set()
    for _ in range(count + 10):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)")
        )
    assert len(reached - {-1}) >= count
    tab.focus("#matrix [data-pair='vgg>vit']")
    tab.keyboard.press("Enter")
    tab.wait_for_function("location.hash.includes('pair=')")


@pytest.mark.slow
def test_the_focus_stays_on_a_control_that_was_used(opened):
    tab = opened("ordinary")
    name = "(() => { const one = document.activeElement; return one.textContent; })()"
    for control in (
        "#controls [data-value='2']",
        "#controls .chip[data-value=bim]",
        "#ranking button:has-text('fgsm')",
        "#matrix [data-pair='vgg>vit']",
        "#image [data-value=next]",
        "nav a:text-is('Images')",
    ):
        tab.focus(control)
        before, box = tab.evaluate(name), control.split()[0]
        tab.keyboard.press("Enter")
        drawn(tab)
        tab.wait_for_timeout(100)
        assert tab.evaluate(f"Boolean(document.activeElement.closest('{box}'))"), control
        assert tab.evaluate(name).split()[:1] == before.split()[:1] or "matrix" in box, control


def test_a_single_network_opens_with_its_images(opened, results_of_kind):
    tab = opened("one model")
    assert tab.locator("nav [aria-current]").inner_text() == "Images"
    assert tab.locator("#images .strip").first.locator("figure").count() == 4
    assert "Exceptions under fgsm" in tab.inner_text("#images")
    select(tab, view="results", eps=8)
    (row,) = (
        pairs_of(results_of_kind("one model").shown)
        .query("protocol == 'joint' and eps_255 == 8")
        .to_dict("records")
    )
    (tile,) = tab.locator("#tiles .tile.white").all_inner_texts()
    assert f"{percent(row['success_rate'])} %" in tile
    assert f"{row['success']:.0f} / {row['denominator']:.0f}" in tile
    select(tab, view="why")
    assert "diagnostics=full" in tab.inner_text("#why pre")


def test_the_page_of_an_audit_counts_the_images_that_the_target_classifies_correctly(
    opened, results_of_kind
):
    results = results_of_kind("audit")
    tries = {(job.attack, job.record.source): job.defended for job in results.jobs}
    rows = pd.concat(tries, names=["by", "from"]).reset_index(["by", "from"])
    rows = rows.assign(right=rows["predicted"] == rows["label"])
    rows = rows[rows["target"] == "vit"]
    clean = rows[rows["eps_255"] == 0].groupby("index")["right"].all()
    eps = results.jobs[0].record.reference
    attacked = rows[(rows["eps_255"] == eps) & rows["index"].map(clean)]
    fooled = ~attacked.groupby(["index", "by", "from"])["right"].all().unstack(["by", "from"])
    n, total, every = clean.sum(), len(clean), fooled.any(axis=1).sum()
    tab = opened("audit")
    assert f"A stranger fools {100 * every / n:.0f} % of the images" in tab.inner_text("#answer")
    attack = tab.inner_text("#matrix tr:nth-child(2) th").strip()
    heads = tab.locator("#matrix tr:first-child th").all_inner_texts()
    texts = tab.locator("#matrix tr:nth-child(2) button").all_inner_texts()
    for head, text in zip(heads[1:-1], texts, strict=True):
        k = fooled[attack, head].sum()
        assert text.split()[1:] == [percent(k / n), f"{k}", "/", f"{n}"]
    margins = tab.locator("#matrix .mean").all_inner_texts()
    assert margins[0] == percent(fooled[attack].any(axis=1).mean())
    assert margins[-1] == percent(every / n)
    left = [n - every, every, total - n]
    assert [int(text) for text in tab.inner_text("#ranking .bars").split()] == left
    tiles = tab.locator("#tiles .tile b").all_inner_texts()
    assert tiles == [f"{percent(share / total)} %" for share in (n, n - every)]
    tab.wait_for_selector("#image .strip")
    order = [(row.attack, row.source) for row in results.audits[0].tries.itertuples()]
    image = int(re.search(r"One image: (\d+)", tab.inner_text("#image h2"))[1])
    by = fooled.loc[image].sum()
    assert f"fooled by {by} of {len(order)} tries" in tab.inner_text("#image .title")
    shown = tab.locator("#image figcaption").all_inner_texts()[2:]
    assert shown == [f"{q} {', '.join(one)}" for q, one in enumerate(order[:5], 1)]
    select(tab, view="results")
    assert tab.inner_text("#answer") != results.audits[0].sentence


@pytest.mark.slow
def test_clean_images_have_a_page(opened):
    tab = opened("clean images")
    assert not tab.query_selector("#controls") and tab.query_selector("#figure-classes svg.marks")
    assert tab.inner_text("#answer").startswith("Correct: ")


@pytest.mark.parametrize(
    "view",
    [
        "results",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("images", "why", "data", "method")
        ),
    ],
)
def test_hostile_names_are_text(opened, view):
    name = "<script>alert(1)</script>"
    tab = opened("hostile names", f"#source={quote(name)}&target=%3Cimg%20src%3Dx%3E&view={view}")
    assert tab.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0
    assert name in tab.inner_text("main").replace("\u200b", "")


def test_the_page_is_whole_and_refers_to_nothing_outside(written):
    text = re.sub(
        r"(<script[^>]*>).*?</script>", r"\1", written("hostile names").read_text(), flags=re.S
    )
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert all(link.startswith(("data:", "#")) for link in links)
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_without_scripts_answer_ranking_and_method_are_there(
    chromium, written, made_up, results_of_kind
):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(written("ordinary").as_uri())
    assert tab.inner_text("#answer") == "".join(made_up("ordinary").answer[:2])
    assert tab.inner_text("#method") and "src.table" in tab.inner_text("noscript")
    rows = results_of_kind("ordinary").rankings.query("eps_255 == 8 and sources > 1")
    _, *shown = tab.locator("noscript tr").all_inner_texts()
    for text, (_, row) in zip(shown, rows.iterrows(), strict=True):
        rank, attack, mean, *_ = text.replace("=", "").split()
        expected = [f"{row['rank']:g}", row["attack"], f"{percent(row['mean'])}%"]
        assert [rank, attack, mean] == expected
    context.close()
