import re

from ddad.data.datasets import DATASETS
from ddad.data.magnetic_tiles import COUNTS


def test_totals_are_the_published_ones():
    totals = {name: tuple(map(sum, zip(*found.counts.values())))
              for name, found in DATASETS.items()}
    assert totals["mvtec_ad"] == (3629, 0, 467, 1258)
    assert totals["btad"] == (1799, 0, 451, 290)
    assert totals["visa"][0] + totals["visa"][2] == 9621 and totals["visa"][3] == 1200
    assert totals["mvtec_loco"] == (1778, 305, 575, 993)
    for name in ("mtd_by_tile", "mtd_random"):
        train, held_out, good, defective = totals[name]
        assert train + held_out + good == COUNTS["Free"]
        assert defective == sum(COUNTS.values()) - 952
    categories = [len(found.categories) for found in DATASETS.values()]
    assert categories == [15, 12, 3, 5, 1, 1]


def test_each_says_where_it_is_from_and_under_which_terms():
    for name, found in DATASETS.items():
        assert found.name == name
        assert all(url.startswith("https://") for url in found.urls)
        # what is kept, or laid by hand, has the one name
        assert len({url.rpartition("/")[2] for url in found.urls}) == 1
        assert found.sha256 is None or re.fullmatch("[0-9a-f]{64}", found.sha256)
        assert found.licence and found.terms and found.citation
