import json

import pytest
from lookalikes import make_tiles
from serving import serving

from ddad.data import magnetic_tiles
from ddad.data.fetch import check_dataset, fetch
from ddad.data.images import read_item
from ddad.data.images import test_items as items_to_test
from ddad.data.layouts import PARTS
from ddad.data.magnetic_tiles import number, parts, tiles
from ddad.data.product import load_test
from ddad.runtime.errors import DataError
from ddad.settings import preset


@pytest.fixture
def serve(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path) as serve:
        yield serve


def exposures(count):
    """Names of so many tiles at six exposures each, 400 numbers apart."""
    return [f"exp{e}_num_{tile * 400 + e * 15}"
            for tile in range(count) for e in range(1, 7)]


def tiles_of(stems):
    """Which of those tiles the names are of."""
    return {number(stem) // 400 for stem in stems}


def test_tiles_are_grouped_by_number():
    stems = ["exp1_num_1000", "exp2_num_1300", "exp1_num_1601", "exp6_num_20",
             "exp2_num_25"]
    assert tiles(stems) == [["exp6_num_20", "exp2_num_25"],
                            ["exp1_num_1000", "exp2_num_1300"], ["exp1_num_1601"]]
    with pytest.raises(DataError, match="magnetic tile 0001 is not named"):
        tiles(["0001"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_tile_is_on_both_sides(seed):
    good = exposures(50)
    defective = ["exp1_num_900", f"exp2_num_{7 * 400 - 200}"]
    split = parts("mtd_by_tile", good, defective, seed)
    assert [len(part) for part in split.values()] == [192, 48, 60]
    assert sorted(sum(split.values(), [])) == sorted(good)
    for part in split.values():
        assert all(len({stem in part for stem in tile}) == 1 for tile in tiles(good))
    assert {2, 6, 7} <= tiles_of(split["test"])  # within 300 of a defective image
    again = parts("mtd_by_tile", good, defective, seed + 1)
    assert all(tiles_of(split[part]) != tiles_of(again[part]) for part in split)
    drawn = parts("mtd_random", good, defective, seed)
    assert [len(part) for part in drawn.values()] == [240, 0, 60]
    assert any(len({stem in drawn["test"] for stem in tile}) == 2
               for tile in tiles(good))


def test_every_tile_near_a_defective_image_is_tested():
    good = exposures(10)
    defective = [f"exp1_num_{tile * 400 + 50}" for tile in range(5)]
    test = parts("mtd_by_tile", good, defective)["test"]
    assert tiles_of(test) == {0, 1, 2, 3, 4} and len(test) == 30 > 0.2 * len(good)


def test_tiles_are_fetched_once_and_arranged_twice(serve, tmp_path, monkeypatch):
    counts = {"Free": 60, "Blowhole": 3, "Break": 2, "Crack": 2, "Fray": 2, "Uneven": 2}
    monkeypatch.setattr(magnetic_tiles, "COUNTS", counts)
    made = make_tiles(tmp_path / "made", counts)
    server = serve("mtd_by_tile", made, ".zip", counts={"mtd": (42, 6, 12, 11)})
    serve("mtd_random", archive=server.path, counts={"mtd": (48, 0, 12, 11)})
    root = tmp_path / "root"
    home = fetch("mtd_by_tile", root, consent=True)
    assert fetch("mtd_random", root, consent=True) == root / "mtd_random"
    assert server.asked == [None]
    splits = {}
    for name in magnetic_tiles.RULES:
        report = check_dataset(name, root, 8)
        assert report["usable"], report
        split = json.loads((root / name / "mtd" / "split.json").read_text())
        held = 6 * (name == "mtd_by_tile")      # one tile: two would be over a fifth
        assert [len(split[part]) for part in PARTS] == [48 - held, held, 12]
        assert split["seed"] == 0 and "fifth" in split["rule"]
        for part in PARTS:
            there = (root / name / "mtd" / part / "good").glob("*")
            assert sorted(path.stem for path in there) == split[part]
        splits[name] = split
    item = next(i for i in items_to_test(home / "mtd") if i.kind == "crack")
    assert read_item(item, 8)[1].sum() == 4  # the grey edge is no defect
    assert item.path.stat().st_nlink == 3  # unpacked once, linked twice
    assert "exp1_num_1000" in splits["mtd_by_tile"]["test"]
    # the first tile's six good exposures, and the first defects, near it
    test = load_test(home / "mtd", preset("clean", image_size=32))
    first = [path.stem for path, group in zip(test.paths, test.groups)
             if group == "exp1_num_1000"]
    good = [f"exp{e}_num_{985 + 15 * e}" for e in range(1, 7)]
    assert sorted(first) == sorted([*good, *["exp1_num_1200"] * 5])
    stems = [path.stem for path in test.paths]
    assert len(set(test.groups)) == len(tiles(stems)) < len(stems)


def test_tiles_that_are_missing_are_noticed(serve, tmp_path, monkeypatch):
    counts = {"Free": 12, "Blowhole": 3, "Break": 2, "Crack": 2, "Fray": 2, "Uneven": 2}
    monkeypatch.setattr(magnetic_tiles, "COUNTS", counts | {"Crack": 3})
    serve("mtd_by_tile", make_tiles(tmp_path / "made", counts), ".zip")
    with pytest.raises(DataError, match=r"holds 2 \.jpg files in MT_Crack/Imgs, not 3: "
                                        r".*kept as .*mtd\.zip\.bad"):
        fetch("mtd_by_tile", tmp_path / "root", consent=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["mtd.zip.bad"]
