"""How time and memory of the program's sweep grow with images, budgets and targets."""

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.bench import OURS, Bench
from benchmarks.compare import records, show
from benchmarks.inputs import Input


def growth(bench: Bench, given: Input) -> dict[str, Any]:
    """Time the program's FGSM while one number doubles; print and return what it took."""
    images = [bench.batch * factor for factor in (1, 2, 4, 8)]
    grids = {number: list(range(number + 1)) for number in (1, 2, 4, 8)}
    targets = {number: given.models[:number] for number in (1, 2, 4) if number <= len(given.models)}
    words = {
        **{("images", number): f"n_images={number}" for number in images},
        **{("budgets", n): f"epsilon.grid=[{','.join(map(str, g))}]" for n, g in grids.items()},
        **{("targets", n): f"targets=[{','.join(names)}]" for n, names in targets.items()},
    }
    runs = [bench.ours(given, "fgsm", OURS, 0, [word]) for word in words.values()]
    keys = pd.MultiIndex.from_tuples(words, names=["what", "number"])
    columns = {name: f"{{{name}:.1f}}" for name in ("seconds", "loop", "megabytes")}
    table = pd.DataFrame(runs, index=keys)[[*columns]].astype(float)
    show(f"{given.name}, fgsm of {OURS}: what doubles", table, columns)
    rising = table.loc["images"]
    exponents = {
        name: float(np.polyfit(np.log(rising.index), np.log(rising[name]), 1)[0])
        for name in ("loop", "megabytes")
    }
    print(f"By images, the loop grows as n^{exponents['loop']:.2f}, ", end="")
    print(f"the peak memory as n^{exponents['megabytes']:.2f}.")
    return {"input": given.name, "growth": records(table), "exponents": exponents}
