"""Rankings of results and folders, and the numbers of images that they ask for."""

import pandas as pd
import pytest

from src import images_needed, load_sweep, rankings
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "docs" / "results" / "demo"


@pytest.mark.parametrize("of", ["attack", pytest.param("source", marks=pytest.mark.slow)])
def test_results_have_the_rankings_of_their_folder(of):
    ranked = rankings(DEMO, of=of)
    pd.testing.assert_frame_equal(rankings(load_sweep(DEMO), of=of), ranked)
    assert ranked["eps_255"].iloc[0] == 4 and ranked["eps_255"].nunique() > 1
    assert (
        ranked.groupby(["eps_255", "attack" if of == "source" else "source"])["rank"]
        .min()
        .eq(1)
        .all()
    )


@pytest.mark.slow
def test_images_are_counted_from_the_discordance_seen():
    first = rankings(DEMO).query("eps_255 == 4 and source == 'mean of 3 sources'")
    discordance = first["discordance"].median()
    assert images_needed(0.01, frame=DEMO) == images_needed(0.01, discordance, len(first))
    assert images_needed(0.01, attacks=36, frame=DEMO) > images_needed(0.01, frame=DEMO)
    with pytest.raises(ValueError, match="attacks=None"):
        images_needed(0.01, discordance=0.2)
    for results in (DEMO, load_sweep(DEMO)):
        with pytest.raises(ValueError, match=r"^difference must be a number .* frame=results.$"):
            images_needed(results, discordance=0.2, attacks=3)
