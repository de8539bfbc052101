"""The tables of book/results.md on the magnetic tiles: what was tried, in order."""
from itertools import zip_longest

from records import load, table

from ddad.calibration import CHOSEN

# record -> how its held-out tiles were drawn
ATTEMPTS = {"mtd_random_held_out": "at random", "mtd_by_tile": "by tile",
            "mtd_larger_unet": "by tile, drawn anew", "mtd": "as the third",
            "mtd_larger_unet_blur": "as the third"}
LINES = ("U-Net", "held-out pictures", "training steps x batch", "its loss",
         "chosen T_max", "blur of the latent map", "lambda", "held-out: I-AUROC",
         "held-out: PRO", "test: I-AUROC", "test: PRO", "of small defects",
         "of medium ones", "of large ones", "test: recall", "of small defects",
         "of medium ones", "of large ones", "test: false alarms")


def attempts() -> str:
    columns = [attempt(load(name), drawn) for name, drawn in ATTEMPTS.items()]
    rows = [list(row) for row in zip_longest(LINES, *columns, fillvalue="–")]
    return table(["", "first", "second", "third", "fourth", "fifth"], rows)


def attempt(found: dict, drawn: str) -> list:
    """A column: how it was trained and chosen, and its figures on the test tiles."""
    used, trained = found["settings"], found["record"]["training"]
    same = lambda row: all(row.get(k, 0) == used.get(k, 0) for k in CHOSEN)
    held_out = next(row for row in found["record"]["calibration"] if same(row))
    column = [f"{trained['parameters'] / 1e6:.0f} M", drawn,
              f"{trained['steps']} x {used['train_batch']}", trained["loss"],
              used["T_max"], used.get("latent_blur", 0.0), used["lam"],
              held_out["i_auroc"], held_out["pro"]]
    result = found.get("result")             # the third was never run on the test set
    if result:
        thirds = result["by_size"]
        column += [result["i_auroc"], result["pro"], *(one["pro"] for one in thirds),
                   result["recall"], *(one["recall"] for one in thirds),
                   result["false_positive_rate"]]
    return column


def flips() -> str:
    """The sixth attempt: what held-out images with either kind of defect choose, the
    best on the test images, and the baselines there.
    """
    found = load("mtd_flips")
    total = lambda part: lambda row: row[part]["i_auroc"] + row[part]["pro"]
    ways = {"held-out, synthetic defects": total("held_out"),
            "held-out, faint defects": total("faint"),
            "test, I-AUROC and PRO": total("test"),
            "test, I-AUROC": lambda row: row["test"]["i_auroc"]}
    rows = [[way, *flip(max(found["rows"], key=key))] for way, key in ways.items()]
    names = {"neighbours": "neighbours alone", "patchcore": "PatchCore"}
    for features, others in found["floors"].items():
        rows += [[names[name], "", "", "", features, "", "", "", both(one)]
                 for name, one in others.items()]
    head = ["best of all by", "step", "lambda", "blur", "features", "one scale for",
            "held-out", "faint", "test"]
    told = f"{len(found['rows'])} combinations; each cell gives I-AUROC / PRO."
    return table(head, rows) + f"\n\n{told}"


def flip(row: dict) -> list:
    blocks = ", ".join(map(str, row["map_stages"] or ()))
    blur = "–" if row["latent_blur"] is None else row["latent_blur"]
    return [row["T"], row["lam"], blur,
            f"{row['features']}, blocks {blocks}" if row["lam"] < 1 else "–",
            "each position" if row["ranges"] == "position" else "whole map",
            *(both(row[part]) for part in ("held_out", "faint", "test"))]


def both(one: dict) -> str:
    return f"{one['i_auroc']:.3f} / {one['pro']:.3f}"


def blur() -> str:
    rows = []
    for row in load("latent_blur"):
        figures = [row[part][metric] for part in ("held_out", "test")
                   for metric in ("i_auroc", "pro")]
        rows.append([row["data"], f"{row['blur']:g}", row["lam"], *figures])
    head = ["data", "blur, cells", "lambda", "held-out: I-AUROC", "PRO",
            "test: I-AUROC", "PRO"]
    return table(head, rows)


def corners() -> str:
    rows = [[row[name] for name in ("variant", "lam", "i_auroc", "p_auroc", "pro")]
            for row in load("mtd_corners")["rows"]]
    return table(["the maps' scale", "lambda", "I-AUROC", "P-AUROC", "PRO"], rows)


def corner_share() -> str:
    found = load("mtd_corners")
    shares = [f"{found[name]:.0%}"
              for name in ("corner_area", "held_out_good", "test_good")]
    head = ["the corners' share", "of the picture", "of the scores of held-out good "
            "tiles", "of good test tiles"]
    return table(head, [["", *shares]])


def variants() -> str:
    rows = [[row["variant"], row["i_auroc"], row["p_auroc"], row["pro"],
             *(third["pro"] for third in row["by_size"])]
            for row in load("mtd_variants")]
    return table(["changed", "I-AUROC", "P-AUROC", "PRO", "PRO, small", "medium",
                  "large"], rows)


TABLES = {make.__name__: make for make in (attempts, flips, blur, corners, corner_share,
                                           variants)}
