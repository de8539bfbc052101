"""The public data sets that `ddad` knows by name: where each comes from, under which
terms, and what it should hold.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """One data set."""

    name: str
    title: str
    page: str  # where it is described
    # its archive's addresses, tried in order: they move, the hash tells the file
    urls: tuple[str, ...]
    sha256: str | None  # the archive's, None where that is made anew on request
    size: int  # bytes of the archive, rounded up where nobody publishes the number
    licence: str
    terms: str  # what whoever downloads it agrees to
    citation: str
    unpacked: str  # folder under the root that the archive is unpacked into
    folder: str  # folder under the root that holds the categories' folders
    # category -> images (good for training, good for validation, good for testing,
    # defective)
    counts: dict[str, tuple[int, int, int, int]]

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(self.counts)


# Where the counts are from. MVTec AD and LOCO: two independent counts of the archives'
# files agree, and so do the published totals (LOCO's paper has 6 training images and 1
# validation image fewer than its archive). VisA: split_csv/1cls.csv. BTAD: one count of
# the archive's files, whose totals (1799 to train on, 741 to test on, 290 of them
# defective) a second one confirms; the archive's own README swaps 02 and 03. Magnetic
# tiles: the repository's files, split by `magnetic_tiles`.

_NON_COMMERCIAL = "CC BY-NC-SA 4.0"
_MVTEC_TERMS = ("You may not use it commercially, you share what you make of it under "
                "the same licence, and you name its authors.")
_MVTEC_FILES = "https://www.mydrive.ch/shares"
_BTAD = "https://avires.dimi.uniud.it/papers/btad/btad.zip"
_TILES = "https://github.com/abin24/Magnetic-tile-defect-datasets."
_OF_TILES = dict(
    page=_TILES,
    urls=(f"{_TILES}/archive/refs/heads/master.zip",),
    sha256=None,
    size=55_000_000,
    licence="none is stated",
    terms="Its authors welcome its use and ask for a citation; without a licence, do "
          "not pass the images on.",
    citation="Huang, Qiu and Yuan, Surface defect saliency of magnetic tile, The "
             "Visual Computer 36, 2020 (first at CASE 2018)",
    unpacked="mtd",
)

DATASETS = {data.name: data for data in (
    DataSet(
        name="mvtec_ad",
        title="MVTec AD",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        urls=(
            f"{_MVTEC_FILES}/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
            "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            f"{_MVTEC_FILES}/38536/3830184030e49fe74747669442f0f282/download/"
            "420938113-1629952094/mvtec_anomaly_detection.tar.xz",
        ),
        sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        size=5_264_982_680,
        licence=_NON_COMMERCIAL,
        terms=_MVTEC_TERMS,
        citation="Bergmann, Batzner, Fauser, Sattlegger and Steger, The MVTec Anomaly "
                 "Detection Dataset, IJCV 129, 2021",
        unpacked="mvtec_ad",
        folder="mvtec_ad",
        counts={
            "bottle": (209, 0, 20, 63),
            "cable": (224, 0, 58, 92),
            "capsule": (219, 0, 23, 109),
            "carpet": (280, 0, 28, 89),
            "grid": (264, 0, 21, 57),
            "hazelnut": (391, 0, 40, 70),
            "leather": (245, 0, 32, 92),
            "metal_nut": (220, 0, 22, 93),
            "pill": (267, 0, 26, 141),
            "screw": (320, 0, 41, 119),
            "tile": (230, 0, 33, 84),
            "toothbrush": (60, 0, 12, 30),
            "transistor": (213, 0, 60, 40),
            "wood": (247, 0, 19, 60),
            "zipper": (240, 0, 32, 119),
        },
    ),
    DataSet(
        name="visa",
        title="VisA",
        page="https://github.com/amazon-science/spot-diff",
        urls=("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/"
              "VisA_20220922.tar",),
        sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        size=2_000_000_000,
        licence="CC BY 4.0",
        terms="You name its authors.",
        citation="Zou, Jeong, Pemula, Zhang and Dabeer, SPot-the-Difference "
                 "Self-Supervised Pre-training for Anomaly Detection and Segmentation, "
                 "ECCV 2022",
        unpacked="visa",
        folder="visa",
        counts={
            "candle": (900, 0, 100, 100),
            "capsules": (542, 0, 60, 100),
            "cashew": (450, 0, 50, 100),
            "chewinggum": (453, 0, 50, 100),
            "fryum": (450, 0, 50, 100),
            "macaroni1": (900, 0, 100, 100),
            "macaroni2": (900, 0, 100, 100),
            "pcb1": (904, 0, 100, 100),
            "pcb2": (901, 0, 100, 100),
            "pcb3": (905, 0, 101, 100),
            "pcb4": (904, 0, 101, 100),
            "pipe_fryum": (450, 0, 50, 100),
        },
    ),
    DataSet(
        name="btad",
        title="BTAD (beanTech Anomaly Detection)",
        page=_BTAD,
        urls=(_BTAD,),
        sha256="461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        size=1_229_193_337,
        licence="CC BY-SA by the README in the archive, CC BY-NC-SA 4.0 by others: see "
                "there",
        terms="You name its authors, share what you make of it under the same licence, "
              "and, to be safe, do not use it commercially.",
        citation="Mishra, Verk, Fornasier, Piciarelli and Foresti, VT-ADL: A Vision "
                 "Transformer Network for Image Anomaly Detection and Localization, "
                 "ISIE 2021",
        unpacked="btad",
        folder="btad/BTech_Dataset_transformed",
        counts={
            "01": (400, 0, 21, 49),
            "02": (399, 0, 30, 200),
            "03": (1000, 0, 400, 41),
        },
    ),
    DataSet(
        name="mvtec_loco",
        title="MVTec LOCO AD",
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        urls=(f"{_MVTEC_FILES}/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
              "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",),
        sha256="9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        size=6_500_000_000,
        licence=_NON_COMMERCIAL,
        terms=_MVTEC_TERMS,
        citation="Bergmann, Batzner, Fauser, Sattlegger and Steger, Beyond Dents and "
                 "Scratches: Logical Constraints in Unsupervised Anomaly Detection and "
                 "Localization, IJCV 130, 2022",
        unpacked="mvtec_loco",
        folder="mvtec_loco",
        counts={
            "breakfast_box": (351, 62, 102, 173),
            "juice_bottle": (335, 54, 94, 236),
            "pushpins": (372, 69, 138, 172),
            "screw_bag": (360, 60, 122, 219),
            "splicing_connectors": (360, 60, 119, 193),
        },
    ),
    DataSet(
        name="mtd_by_tile",
        title="Magnetic tile defects, whole tiles held out",
        folder="mtd_by_tile",
        counts={"mtd": (615, 150, 187, 392)},
        **_OF_TILES,
    ),
    DataSet(
        name="mtd_random",
        title="Magnetic tile defects, images held out at random",
        folder="mtd_random",
        counts={"mtd": (762, 0, 190, 392)},
        **_OF_TILES,
    ),
)}
