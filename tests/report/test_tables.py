import pandas as pd
import pytest
from rich.console import Console

from src.analysis.rates import CLEAN, format_cell
from src.report.tables import matrix_table, wide_matrix, write_matrix_csv


def matrix_of(sources, targets, k=1374, n=8139):
    """Every cell is k / n, plus the clean row."""
    rows = [
        {
            "source": source,
            "target": target,
            "eps_255": 0.0 if source == CLEAN else 8.0,
            "still_correct": k,
            "denominator": n,
            "robust_accuracy": k / n if n else float("nan"),
            "robust_accuracy_low": 0.16 if n else float("nan"),
            "robust_accuracy_high": 0.18 if n else float("nan"),
            "cell": format_cell(k, n),
        }
        for source in (CLEAN, *sources)
        for target in targets
    ]
    return pd.DataFrame(rows)


def shown(matrix, width=80, **changes):
    words = {"dataset": "cifar10", "attack": "fgsm", "protocol": "joint", "eps_255": 0.25}
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(matrix_table(matrix, width=width, **(words | changes)))
    return capture.get()


THREE = ["vgg16", "resnet50", "inception"]


def test_three_models_fit_eighty_columns_with_whole_cells():
    text = shown(matrix_of(THREE, THREE, k=8139, n=10_000))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.count("8139 / 10000 = 81.39%") == 12
    assert text.startswith("fgsm on cifar10, eps = 0.25/255, protocol: joint")
    for row, column in zip(THREE, THREE, strict=True):
        assert any(line.startswith(row) for line in text.splitlines())
        assert column in text.splitlines()[1]


def test_only_the_diagonal_is_marked_and_the_legend_says_so():
    text = shown(matrix_of(THREE, THREE))
    assert text.count("16.88%*") == 3
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "*" not in lines[CLEAN]
    assert [lines[name].split("%")[place][0] for place, name in enumerate(THREE, 1)] == ["*"] * 3
    assert "* white box: source = target" in text


def test_white_box_cells_are_bold_italic():
    table = matrix_table(
        matrix_of(THREE, THREE), dataset="d", attack="a", protocol="all", eps_255=8
    )
    cells = [list(column.cells) for column in table.columns[1:]]
    styles = [[str(cell.style) for cell in column] for column in cells]
    for place, column in enumerate(styles):
        assert [style == "bold italic" for style in column] == [
            row == place + 1 for row in range(4)
        ]


@pytest.mark.parametrize("models", [4, 5, 6, 8, 12, 20])
def test_more_models_lose_no_digit_at_eighty_columns(models):
    names = [f"model_{i:02d}" for i in range(models)]
    text = shown(matrix_of(names, names, k=8139, n=10_000))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\u2026" not in text
    cells = (models + 1) * models
    assert text.count("81.39%") == text.count("/ 10000") == cells
    assert text.count("8139") == cells


@pytest.mark.parametrize("models", [1, 3, 4])
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_cut(models):
    names = [f"model_{i:02d}" for i in range(models)]
    matrix = matrix_of(names, names)
    for width in range(48, 120):
        text = shown(matrix, width=width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert text.count("16.88%") == len(matrix)
        for part in ("1374 / 8139 = 16.88%", "1374 / 8139", "= 16.88%"):
            assert text.count(part) in (0, len(matrix))


def test_a_wide_terminal_keeps_many_models_on_one_line():
    names = [f"model_{i}" for i in range(6)]
    assert shown(matrix_of(names, names), width=160).count("1374 / 8139 = 16.88%") == 42


@pytest.mark.parametrize("models", [1, 20])
def test_brackets_in_names_are_shown(models):
    names = [f"[vgg16,m{i}]" for i in range(models)]
    text = shown(matrix_of(names, names), attack="[bold]")
    assert all(name in text for name in names) and text.startswith("[bold] on")


def test_empty_denominators_and_missing_pairs_are_shown():
    matrix = matrix_of(["a", "b"], ["a", "b"], k=0, n=0)
    text = shown(matrix[~((matrix["source"] == "b") & (matrix["target"] == "a"))])
    assert text.count("0 / 0 = n/a") == 5
    last = next(line for line in text.splitlines() if line.startswith("b"))
    assert last.split() == ["b", "-", "0", "/", "0", "=", "n/a*"]


def test_csv_holds_readable_cells_and_counts(tmp_path):
    matrix = matrix_of(["a", "b"], ["a", "b"])
    path = tmp_path / "new" / "matrix.csv"
    write_matrix_csv(matrix, path)
    table = pd.read_csv(path)
    assert list(table["made on"]) == ["clean", "a", "b"]
    assert list(table.columns[:3]) == ["made on", "a", "b"]
    assert set(table["b"]) == {"1374 / 8139 = 16.88%"}
    assert set(table["a still_correct"]) == {1374} and set(table["a denominator"]) == {8139}
    assert table["b robust_accuracy"].iloc[2] == 1374 / 8139
    assert table["b robust_accuracy_high"].iloc[0] == 0.18
    assert [file.name for file in path.parent.iterdir()] == ["matrix.csv"]


def test_a_pair_that_was_not_run_is_empty_in_the_csv():
    matrix = matrix_of(["a", "b"], ["a", "b"])
    wide = wide_matrix(matrix[~((matrix["source"] == "b") & (matrix["target"] == "a"))])
    row = wide[wide["made on"] == "b"].iloc[0]
    assert pd.isna(row["a"]) and pd.isna(row["a still_correct"])
    assert row["b still_correct"] == 1374
