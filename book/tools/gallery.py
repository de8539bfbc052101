"""The gallery's sets and outcomes, its tables on book/gallery.md, and whether what the
page shows is what was recorded.

What the page shows lies in book/static/gallery, made by make_gallery.py; the tables
count the same outcomes in the recorded runs.
"""
import json
from collections import Counter

from records import BOOK, PRODUCTS, load, table
from sklearn.metrics import roc_auc_score

from ddad.runtime.manifest import read_manifest
from ddad.synthetic.weights import BEYOND, OF_BEYOND, WEIGHTS

FOLDER = BOOK / "static/gallery"
# a shipped detector -> the product it knows, and what the page calls it
SETS = {"blister": "blister", "board": "board", BEYOND: OF_BEYOND, "fabric": "fabric"}
TITLES = {name: name for name in SETS} | {BEYOND: "board, a step per region"}
OUTCOMES = ("hit", "miss", "false alarm", "true negative")
ROUNDING = 1e-3                 # of scores, between two runs of one detector


def outcome(kind: str, score: float, threshold: float) -> str:
    """One of OUTCOMES, for an image of this kind."""
    flagged = score > threshold
    if kind == "good":
        return "false alarm" if flagged else "true negative"
    return "hit" if flagged else "miss"


def read() -> dict[str, dict]:
    """What the page shows, by detector."""
    return json.loads((FOLDER / "gallery.json").read_text(encoding="utf-8"))


# --- the recorded runs

def result(detector: str) -> dict:
    """The recorded metrics of a shipped detector."""
    if detector in PRODUCTS:
        return load(detector)["result"]
    return json.loads((WEIGHTS / "results.json").read_text("utf-8"))[detector]


def recorded_outcomes(detector: str) -> dict[str, int]:
    """How many test images had each outcome, by the recorded rates."""
    found = result(detector)
    defective, good = found["defective"], found["images"] - found["defective"]
    hits = round(found["recall"] * defective)
    alarms = round(found["false_positive_rate"] * good)
    return dict(zip(OUTCOMES, (hits, defective - hits, alarms, good - alarms)))


def by_kind(product: str) -> dict[str, Counter]:
    """The outcomes of each kind of defect, counted in the product's record."""
    record, kinds = load(product), {}
    for kind, score in zip(record["images"]["kind"], record["images"]["score"]):
        found = outcome(kind, score, record["result"]["threshold"])
        kinds.setdefault(kind, Counter())[found] += 1
    return {kind: count for kind, count in kinds.items() if kind != "good"}


# --- on the page

def answer() -> str:
    """How often the detectors are right and wrong."""
    counts = {name: recorded_outcomes(name) for name in SETS}
    total = Counter()
    for product in PRODUCTS:
        total.update(counts[product])
    rows = [[TITLES[name], *(count[one] for one in OUTCOMES)]
            for name, count in counts.items()]
    good = total["false alarm"] + total["true negative"]
    said = (f"Of {total['hit'] + total['miss']} defective test images the paper's "
            f"method flags {total['hit']} and misses {total['miss']}; of {good} good "
            f"ones it flags {total['false alarm']}. {small()}")
    return f"{said}\n\n" + table(["detector", *map(plural, OUTCOMES)], rows)


def plural(one: str) -> str:
    return one + ("es" if one.endswith("s") else "s")


def small() -> str:
    """How many of the smallest and of the largest defects are missed."""
    missed = []
    for size in (0, -1):
        of = [result(product)["by_size"][size] for product in PRODUCTS]
        count = sum(one["images"] - round(one["recall"] * one["images"]) for one in of)
        missed.append(f"{count} of {sum(one['images'] for one in of)}")
    return (f"Small defects are missed: {missed[0]} of the smallest third of each "
            f"product's defects, {missed[1]} of the largest third.")


def kinds() -> str:
    """Hits and misses of each kind of defect; those most often missed stand first."""
    rows = [[product, kind.replace("_", " "), sum(count.values()), count["hit"],
             count["miss"]]
            for product in PRODUCTS for kind, count in by_kind(product).items()]
    rows.sort(key=lambda row: (-row[-1] / row[2], row[:2]))
    return table(["product", "kind", "images", "hits", "misses"], rows)


TABLES = {"gallery": answer, "gallery_kinds": kinds}


# --- the page beside the records

def apart(shown: dict[str, dict]) -> list[str]:
    """Where what the page shows is not what was recorded."""
    said = [] if shown.keys() == SETS.keys() else ["other detectors are shown"]
    for detector, one in shown.items():
        same = compared(detector, one)
        if detector in PRODUCTS:
            same |= compared_by_image(load(detector), one)
        said += [f"{detector}: {what} differs from the record"
                 for what, holds in same.items() if not holds]
    return said


def compared(detector: str, shown: dict) -> dict[str, bool]:
    """Whether the page shows, of all images together, what was recorded."""
    found, images = result(detector), shown["images"]
    outcomes = Counter(one["outcome"] for one in images)
    i_auroc = roc_auc_score([one["kind"] != "good" for one in images],
                            [one["score"] for one in images])
    return {
        "the threshold": near([shown["threshold"]], [found["threshold"]], ROUNDING),
        "the I-AUROC": near([i_auroc], [found["i_auroc"]], ROUNDING),
        "a number of outcomes": recorded_outcomes(detector) == {
            one: outcomes[one] for one in OUTCOMES},
        "the detector": shown["weights"] == read_manifest(WEIGHTS / detector)["sha256"],
        "the data set": shown["data"] == load(SETS[detector])["data"]["sha256"]}


def compared_by_image(record: dict, shown: dict) -> dict[str, bool]:
    """The same for each image, where there is a record of each."""
    of, images = record["images"], shown["images"]
    bound = record["result"]["threshold"]
    column = lambda name: [one[name] for one in images]
    outcomes = [outcome(*one, bound) for one in zip(of["kind"], of["score"])]
    return {
        "the recorded detector": shown["weights"].items() <= record["weights"].items(),
        **{f"{name} of an image": column(name) == of[name]
           for name in ("image", "kind", "T_hat")},
        "an outcome": column("outcome") == outcomes,
        "an area": near(column("area"), of["area"], 1e-6),
        "a score": near(column("score"), of["score"], ROUNDING)}


def near(a: list[float], b: list[float], bound: float) -> bool:
    """Whether numbers are the same, up to `bound`."""
    return len(a) == len(b) and all(abs(x - y) <= bound for x, y in zip(a, b))
