"""Detection says where new images are unlike those that its promise is of."""
import pytest
from conftest import good_images, save_image, tiny

from ddad.cli import main
from ddad.deploy.doubts import doubts
from ddad.detector import Detector
from ddad.evaluation.likeness import upper_tenth
from ddad.training import adapt

LIMITS = {"held_out_distances": {"far": 2.0, "dark": 90.0, "bright": 110.0}}


def lines(far=0, dark=0, bright=0, n=8):
    usual = {"distance": 1.0, "level": 100.0}
    odd = [{"distance": 3.0}] * far + [{"level": 80.0}] * dark + [
        {"level": 120.0}] * bright
    return [usual | one for one in odd + [{}] * (n - len(odd))]


@pytest.mark.parametrize("one, told", [
    (lines(), []), (lines(far=3), []), (lines(far=7, n=7)[:7], []),
    (lines(far=4), ["4 of 8 images lie farther"]),
    (lines(dark=4), ["4 of 8 images are darker"]),
    (lines(bright=8, n=16), ["8 of 16 images are brighter"]),
    (lines(far=4, dark=4), ["4 of 8 images lie farther", "4 of 8 images are darker"])])
def test_half_of_at_least_eight_images_are_told_of(one, told):
    said = doubts(LIMITS, [*one, {"error": "torn"}])
    assert len(said) == len(told)
    assert all(a.startswith(b) and "does not hold" in a for a, b in zip(said, told))


@pytest.mark.parametrize("record", [
    {}, {"held_out_distances": None}, {"held_out_distances": {"alike": True}},
    {"held_out_distances": "x"}, {"held_out_distances": {"far": None, "dark": "x"}}])
def test_of_a_detector_without_limits_nothing_is_said(record):
    assert doubts(record, lines(far=4, dark=4)) == []
    none = [{"distance": None}] * 8                 # lines of an earlier version
    assert doubts(LIMITS, none) == []


def test_a_tenth_lies_beyond_the_limit():
    values = good_images(1).flatten()[:99].unique()[:29].numpy()
    assert sum(values > upper_tenth(values)) == 2 and sum(
        values >= upper_tenth(values)) == 3
    assert upper_tenth(values[:8]) is None
    assert upper_tenth(values[:9]) == values[:9].max()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A detector with 12 held-out images."""
    folder = tmp_path_factory.mktemp("doubts") / "model"
    Detector.fit(good_images(24), tiny(held_out=0.5, seed=1), device="cpu"
                 ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("change, told", [
    (lambda x: x, None), (lambda x: 0.8 * (x + 1) - 1, "are darker"),
    (lambda x: 1.2 * (x + 1) - 1, "are brighter"), (lambda x: -x, "lie farther")])
def test_detect_warns_and_so_does_the_report(model, tmp_path, capsys, change, told):
    for n, image in enumerate(good_images(12, seed=7)):
        save_image(tmp_path / "new" / f"{n}.png", change(image).clamp(-1, 1))
    assert main(["detect", str(model), str(tmp_path / "new"), str(tmp_path / "out"),
                 "--device", "cpu"]) == 0
    out, said = capsys.readouterr()
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in (said, report):
        assert (f"12 images {told}" in text) if told else "does not hold" not in text
    for text in (out, report):
        assert ("p cannot be smaller than 0.0769, one in 13, as 12 images were held "
                "out; 7.7% false alarms are promised") in text


def test_the_limit_is_of_the_distances_that_the_detector_itself_gives(fitted):
    s, held_out = fitted.settings, good_images(20, seed=3)
    s = s.change(neighbour_stage=1 if s.neighbour_stage > 1 else 2)
    other = adapt(fitted, good_images(16), s, held_out)
    d = other.predict(held_out).distance
    assert other.record["held_out_distances"]["far"] == upper_tenth(d.cpu().numpy())
