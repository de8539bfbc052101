"""The recorded runs in book/results, and tables in Markdown."""
import json
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
PRODUCTS, REAL = ("blister", "board", "fabric"), ("loco_juice_bottle", "mtd")
METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO", "p_ap": "P-AP"}


def load(name: str):
    path = BOOK / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def recorded(*names: str) -> list[str]:
    """Those of the runs that have been made."""
    return [name for name in names if (BOOK / "results" / f"{name}.json").exists()]


def table(head: list[str], rows: list[list]) -> str:
    """Rows below a head; numbers with a fraction have three digits behind the point."""
    cells = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in row]
             for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
