"""The card of a saved detector: what it says is what the manifest and the results say,
and its head is what the hub reads.
"""
import json
import re

import pytest
from conftest import good_images, tiny
from huggingface_hub import ModelCard

from ddad.detector import Detector
from ddad.runtime.errors import ModelError
from ddad.runtime.manifest import CARD, MANIFEST, read_manifest
from ddad.runtime.model_card import write_card
from ddad.settings import Settings

RESULTS = {"i_auroc": 0.97849, "p_auroc": 0.5, "pro": 0.25, "images": 150,
           "defective": 90, "threshold": 1.0}


def text_of(folder):
    return (folder / CARD).read_text(encoding="utf-8")


def rows_of(text):
    return dict(re.findall(r"^\| `?([\w-]+)`? \| `?(.*?)`? \|$", text, re.M))


def changed(folder, **entries):
    """The card of the detector with other entries of its manifest."""
    manifest = read_manifest(folder) | entries
    (folder / MANIFEST).write_text(json.dumps(manifest))
    write_card(folder)
    return text_of(folder)


def test_its_head_is_what_the_hub_reads(saved):
    card = ModelCard.load(saved / CARD)
    assert card.data.to_dict() == {
        "license": "unknown", "library_name": "ddad",
        "pipeline_tag": "image-segmentation",
        "tags": ["anomaly-detection", "anomaly-localization", "industrial-inspection",
                 "latent-diffusion"]}
    assert card.text.startswith("\n# model\n")
    write_card(saved, licence="mit")
    assert ModelCard.load(saved / CARD).data.license == "mit"


def test_it_says_what_the_manifest_says(fitted, saved):
    text, settings = text_of(saved), fitted.settings.as_dict()
    rows = rows_of(text)
    told = {name: value for name, value in rows.items() if name in settings}
    assert len(told) > 10
    for name, value in told.items():
        assert value in (str(settings[name]), json.dumps(settings[name])), name
    for sentence in (
            "16 good ones, 4 of them held out, at 64 x 64 pixels",
            "`pixels`, which comes with the package", "3 steps, loss",
            f"The threshold is {fitted.threshold:.4f}.", "None were recorded.",
            "promises at most 20.0% false alarms, from 4 good images:",
            "gives a score, an anomaly map, the reconstruction and", "(N, 3, 64, 64)"):
        assert sentence in text, sentence
    assert "{" not in text and "None " not in text.replace("None were", "")
    assert max(map(len, text.splitlines())) <= 88


def test_it_tells_the_figures_that_are_given(saved):
    write_card(saved, "Board", trained_on="Boards drawn by ddad.", figures=RESULTS)
    text, rows = text_of(saved), rows_of(text_of(saved))
    assert {rows[name] for name in ("I-AUROC", "P-AUROC", "PRO")} == {
        "0.978", "0.500", "0.250"}
    assert "On 90 defective and 60 good test images." in text
    assert "\n# Board\n" in text and "Boards drawn by ddad." in text
    assert "None were recorded" not in text


def test_saving_again_writes_it_anew(fitted, saved):
    write_card(saved, figures=RESULTS)
    fitted.under(fitted.settings.change(lam=0.125)).save_pretrained(saved)
    rows = rows_of(text_of(saved))
    assert rows["lam"] == "0.125" and "I-AUROC" not in rows


@pytest.mark.parametrize("vae, says", [
    ("given", "has to be passed as `vae`"), ("mine.py:make", "has to be passed as"),
    ("embedded", "comes with the package"),
    ("stabilityai/sd-vae-ft-mse", "is loaded by that name")])
def test_it_says_where_the_autoencoder_comes_from(saved, vae, says):
    settings = read_manifest(saved)["settings"]
    assert says in changed(saved, settings=settings | {"vae": vae})


def test_a_detector_of_which_little_is_recorded(saved):
    text = changed(saved, record={}, threshold=None, held_out_scores=None)
    for sentence in ("images: not recorded", "U-Net: given, not trained",
                     "The threshold is not set", "Its threshold promises nothing:"):
        assert sentence in text


def test_it_promises_the_rate_where_there_are_images_enough(saved):
    for M, rate in ((18, "5.3%"), (19, "5.0%"), (200, "5.0%")):
        told = f"at most {rate} false alarms, from {M} good images"
        assert told in changed(saved, held_out_scores=[0.5] * M)


def test_of_one_call_it_says_that_nothing_is_reconstructed(saved):
    settings = read_manifest(saved)["settings"]
    text = changed(saved, settings=settings | {"decode": False})
    assert "reconstruct" not in text and "gives a\nscore and an anomaly map" in text


def test_no_value_breaks_out_of_its_place(saved):
    settings = read_manifest(saved)["settings"]
    hostile = "x`|\n\n# <script>alert(1)</script>\n---\nlicense: mit\n---"
    text = changed(saved, settings=settings | {"vae": hostile, "features": hostile})
    assert ModelCard.load(saved / CARD).data.license == "unknown"
    assert not re.search(r"^(# <script>|license: mit)", text, re.M)
    row, = re.findall(r"^\| `features` .*$", text, re.M)
    assert row == ("| `features` | `x'/ # <script>alert(1)</script> --- license: mit "
                   "---` |")
    write_card(saved, "two\nlines\n---")
    assert "\n# two lines ---\n" in text_of(saved)


def test_a_detector_of_older_settings_or_none_at_all(saved, tmp_path):
    settings = read_manifest(saved)["settings"]
    del settings["bins"]
    assert "bins" not in rows_of(changed(saved, settings=settings))
    with pytest.raises(ModelError, match="holds no manifest.json"):
        write_card(tmp_path)
    assert not list(tmp_path.glob(CARD))


def test_what_matters_are_settings():
    from ddad.runtime.model_card import MATTER
    assert set(MATTER) <= set(Settings.__dataclass_fields__)


def test_a_fitted_detector_without_held_out_images(tmp_path):
    settings = tiny("official", held_out=0.0, tune_epochs=0)
    one = Detector.fit(good_images(12), settings, device="cpu")
    one.save_pretrained(tmp_path / "model")
    assert "12 good ones, 0 of them held out" in text_of(tmp_path / "model")
    assert "not set, since no image was held out" in text_of(tmp_path / "model")
