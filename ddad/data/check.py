"""The report on a product's folder: what is there, and all that is wrong with it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from ..runtime.errors import DataError
from .images import decoded, defect_of, size_problem
from .layouts import CONFIG, PARTS, Item, beside, ignored, scan
from .masks import resize_mask
from .plausible import Plausible
from .product import read_groups


def check(root: str | Path, size: int) -> dict:
    """Reads every file and reports what is there and all that is wrong, ready for JSON.

    train, test: number of images of each kind
    validation: number of good images held out
    image_sizes, image_modes: number of readable images of each "WIDTHxHEIGHT" (upright)
        and of each Pillow mode
    masks: found (a number), and the images with a mask that is missing, empty, of
        another size (other_size), or not empty but gone at `size` by the rule "area"
        (vanishing); empty and vanishing masks are no problem in themselves
    unreadable: the files that were refused
    ignored: entries of the folders of images, and of those above, that are not used,
        each with the reason
    problems: a sentence each, which starts with the command that it blocks, "train: "
        or "evaluate: "
    usable_for: those of these commands that nothing blocks
    usable: whether that is both
    warnings: a sentence each about what blocks neither, such as masks or images that
        are hardly what they should be: see `plausible`
    warned_of: the files that each of these is of
    Files are named relative to `root`. Raises nothing for what is wrong in `root`.
    """
    root = Path(root)
    parts, blocked = {}, {"train": [], "evaluate": []}
    blocks = lambda part: blocked["evaluate" if part == "test" else "train"]
    for part in PARTS:
        parts[part], problems = scan(root, part)
        blocks(part).extend(problems)
    kinds = {part: Counter(item.kind for item in parts[part]) for part in PARTS}
    blocked["evaluate"] += _one_sided(root, kinds["test"])
    if not parts["train"] and not blocked["evaluate"]:
        blocked["evaluate"] += blocked["train"][:1]     # its record names them
    for beside_it in (lambda: read_groups(root, parts["test"]),
                      lambda: beside(root, CONFIG)):
        try:
            beside_it()
        except DataError as error:
            blocked["evaluate"].append(str(error))

    files = _Files(root, size)
    found = [(item, part) for part, items in parts.items() for item in items]
    for item, part in tqdm(found, "checking", leave=False, delay=2):
        files.read(item, part, blocks(part))

    doubts = [(few, []) for few in _too_few(root, len(parts["train"]),
                                            len(parts["validation"]))]
    doubts += files.looked.doubts(parts["test"])
    usable_for = [command for command, problems in blocked.items() if not problems]
    return {
        "root": str(root),
        "size": size,
        "train": dict(kinds["train"]),
        "validation": len(parts["validation"]),
        "test": dict(kinds["test"]),
        "image_sizes": dict(files.sizes),
        "image_modes": dict(files.modes),
        "masks": files.masks,
        "unreadable": files.unreadable,
        "ignored": ignored(root, {item.path for item, _ in found}),
        "problems": [f"{command}: {problem}"
                     for command, problems in blocked.items() for problem in problems],
        "warnings": [said for said, _ in doubts],
        "warned_of": [names for _, names in doubts],
        "usable_for": usable_for,
        "usable": len(usable_for) == len(blocked),
    }


class _Files:
    """Reads the images and masks of items, and counts what there is to say of them."""

    def __init__(self, root: Path, size: int):
        self.root, self.size, self.looked = root, size, Plausible(root, size)
        self.sizes, self.modes, self.unreadable = Counter(), Counter(), []
        self.masks = {"found": 0, "missing": [], "empty": [], "other_size": [],
                      "vanishing": []}

    def read(self, item: Item, part: str, problems: list[str]) -> None:
        """One item; what is wrong with it is added to `problems`."""
        look = lambda path: self._look(path, part, item)
        extent = self._attempt(look, item.path, problems)
        name, masks = _name(self.root, item.path), self.masks
        if item.mask is None:
            masks["missing"] += [name] * (item.kind != "good")
            return
        masks["found"] += 1
        defect = self._attempt(defect_of, item.mask, problems)
        if defect is None:
            return
        if not defect.any():
            masks["empty"].append(name)
        elif not resize_mask(defect, self.size, "area").any():
            masks["vanishing"].append(name)
        self.looked.mask(name, item.mask, defect)
        if extent and (problem := size_problem(item, extent, defect)):
            masks["other_size"].append(name)
            problems.append(problem)

    def _look(self, path: Path, part: str, item: Item) -> tuple[int, int]:
        """Width and height; the decoded image is let go of before its mask is read."""
        image, mode = decoded(path)
        self.sizes["{}x{}".format(*image.size)] += 1
        self.modes[mode] += 1
        self.looked.image(_name(self.root, path), part, item, image, mode)
        return image.size

    def _attempt(self, read: Callable, path: Path, problems: list[str]):
        """What `read(path)` returns; None, and a problem, where that is refused."""
        try:
            return read(path)
        except DataError as error:
            self.unreadable.append(_name(self.root, path))
            problems.append(str(error))


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _one_sided(root: Path, kinds: Counter) -> list[str]:
    """A problem where the test images are all good, or none of them is."""
    if not kinds or {"good"} < set(kinds):
        return []
    lacking = "defects" if "good" in kinds else "good"
    return [f"{root}: test holds only {', '.join(kinds)}: add {lacking} to tell good "
            "from bad."]


def _too_few(root: Path, train: int, held_out: int) -> list[str]:
    """A warning where the default settings find too few good images."""
    # an image and its 20 neighbours; where nothing is held out yet, a fifth will be
    needed = 21 if held_out else 26
    if not 0 < train < needed:
        return []
    return [f"{root} has {train} good images to train on; with the default settings "
            f"training needs {needed}: add some, or lower the setting neighbours."]
