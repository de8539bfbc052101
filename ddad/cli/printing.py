"""What several commands print."""
from __future__ import annotations

COLUMNS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO",
           "aupimo": "AUPIMO", "p_ap": "P-AP", "recall": "recall",
           "false_positive_rate": "false alarms"}


def table(results: dict[str, dict]) -> str:
    """One row a name, the metrics as columns; empty where a name has none."""
    width = max(map(len, results)) + 2

    def line(name: str, cells) -> str:
        return f"{name:<{width}}" + "".join(f"{cell:>13}" for cell in cells)

    def cells(metrics: dict):
        values = map(metrics.get, COLUMNS)
        return ("" if value is None else f"{value:.4f}" for value in values)

    rows = (line(name, cells(metrics)) for name, metrics in results.items())
    return "\n".join([line("", COLUMNS.values()), *rows])
