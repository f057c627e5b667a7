"""Files that readers and spreadsheets take as they are."""

import pandas as pd

from src.utils.files import write_csv


def test_names_are_no_formulas_and_numbers_stay(tmp_path):
    names = ["=1+1", "b", None]
    table = pd.DataFrame({"=a": names, "kind": pd.Categorical(["@x", "y", "y"])})
    write_csv(tmp_path / "a.csv", table.assign(number=[-1.5, 2, float("nan")]))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["'=a,kind,number", "'=1+1,'@x,-1.5", "b,y,2.0", ",y,"]
