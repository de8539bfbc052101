"""The recorded runs in book/results, and tables in Markdown."""
import json
from pathlib import Path

from sklearn.metrics import roc_auc_score

BOOK = Path(__file__).resolve().parents[1]
PRODUCTS, REAL = ("blister", "board", "fabric"), ("loco_juice_bottle", "mtd")
# what a record is compared by: metrics; ratios of times; what is counted
FIGURES = (
    "i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "p_f1_max", "pro", "pro_005",
    "pro_exact", "spro", "spro_030", "aupimo", "recall", "false_positive_rate",
    "false_alarms",
    "unet_calls_saved", "detect_over_networks", "official_over_ours_cpu",
    "official_over_ours_gpu", "pro200_over_exact",
    "steps", "passes", "parameters", "operations", "disk", "found")
# what each run of a record holds
RUN = ("settings", "commit", "versions", "device", "data", "weights", "result")
IMAGES = ("score", "overlap", "false", "T_hat")
TRIED = ("table", "calibration")
METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO", "p_ap": "P-AP"}


def load(name: str):
    path = BOOK / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def recorded(*names: str) -> list[str]:
    """Those of the runs that have been made."""
    return [name for name in names if (BOOK / "results" / f"{name}.json").exists()]


def name_of(data: str) -> str:
    """A data set's name in a figure or a table."""
    return data.removeprefix("loco_").replace("_", " ")


def figures(record, wanted: tuple[str, ...] = FIGURES) -> dict[str, float]:
    """The numbers of a record that stand under one of the wanted names, by where they
    stand: "runs.0.result.pro" -> 0.9. What was only tried (TRIED) is left out.
    """
    found = {}

    def walk(value, place: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                if name not in TRIED:
                    walk(part, (*place, str(name)))
        elif isinstance(value, list):
            for i, part in enumerate(value):
                walk(part, (*place, str(i)))
        elif isinstance(value, (int, float)) and {*wanted} & {*place}:
            found[".".join(place)] = float(value)

    walk(record, ())
    return found


def incomplete(record) -> list[str]:
    """What a record lacks of the form of a receipt, and which of its figures are not
    those of its images.
    """
    if isinstance(record, list):
        return ["settings, versions and images for each run"]
    said = []
    for run in record.get("runs", [record]):
        lacks = [name for name in RUN if name not in run]
        lacks += [f"images.{name}" for name in IMAGES
                  if name not in run.get("images", {})]
        said += [name for name in lacks if name not in said]
        if not lacks and (wrong := not_of_its_images(record, run)):
            said.append(wrong)
    return said


def not_of_its_images(record: dict, run: dict) -> str:
    """Which of I-AUROC and PRO the images of a run do not give."""
    images = run["images"] | record.get("test", {}).get(run.get("category"), {})
    defective = [kind != "good" for kind in images["kind"]]
    made = {"i_auroc": roc_auc_score(defective, images["score"]),
            "pro_exact": sum(images["overlap"]) / sum(images["regions"])}
    return ", ".join(name for name, value in made.items()
                     if not abs(value - run["result"][name]) <= 1e-5)


def table(head: list[str], rows: list[list]) -> str:
    """Rows below a head; numbers with a fraction have three digits behind the point."""
    cells = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in row]
             for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compact(one: str) -> str:
    """A table in smaller letters, so that a wide one fits the page."""
    return f":::{{div}} ddad-compact\n{one}\n:::"
