"""Figures that others have published, in percent, each with its source: what a run of
this package is compared with.
"""

SOURCE = "Tebbe and Tayyub, CVPR 2024 workshops (arXiv 2401.04463)"
METRICS = ("i_auroc", "pro")

# data set -> category -> (I-AUROC, PRO)
PAPER = {
    "visa": {
        "candle": (95.6, 92.7), "capsules": (88.5, 95.7), "cashew": (94.2, 89.4),
        "chewinggum": (99.7, 94.1), "fryum": (96.5, 91.7), "macaroni1": (94.3, 99.3),
        "macaroni2": (92.5, 98.3), "pcb1": (97.7, 96.4), "pcb2": (98.3, 94.0),
        "pcb3": (97.4, 94.2), "pcb4": (99.8, 86.4), "pipe_fryum": (96.9, 97.2),
    },
    "btad": {"01": (98.9, 80.0), "02": (87.0, 71.7), "03": (99.7, 97.8)},
}

# the means over categories that the paper prints: (I-AUROC, PRO)
PAPER_MEAN = {"visa": (96.0, 94.1), "btad": (95.2, 83.2)}

# ablations on VisA, means over the categories: (I-AUROC, PRO, P-AUROC)
STEPS = {
    "25% of T_max": (95.2, 94.3, 96.7), "50% of T_max": (94.7, 94.1, 96.6),
    "75% of T_max": (95.0, 94.2, 96.7), "T_max": (95.4, 94.0, 96.7),
    "dynamic": (96.0, 94.1, 97.9),
}
SCALING_AND_TUNING = {
    "neither": (89.2, 82.0, 92.3), "scaling": (95.4, 92.0, 96.9),
    "fine-tuning": (90.8, 83.8, 93.2), "both": (96.0, 94.1, 97.9),
}
