"""The exported detector does what the detector does.

What cannot be exported is refused with a sentence, and nothing is written.
"""
import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, save_image, tiny, tiny_vae

from ddad.cli import main
from ddad.deploy import export as exporting
from ddad.deploy.export import export, read
from ddad.detector import Detector
from ddad.dynamic_noise import bin_edges
from ddad.runtime.errors import ExportError, SettingsError

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MISSING = [package for package in PACKAGES if find_spec(package) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not installed: {', '.join(MISSING)}; pip install -e '.[export]'",
)
IMAGES = torch.cat([good_images(3, seed=7), bad_images(3)[0]])


@pytest.fixture(scope="module")
def detector():
    return Detector.fit(good_images(20), tiny(map_stages=(3,)), device="cpu")


@pytest.fixture(scope="module")
def graphs(detector):
    """Tracing takes most of an export's time; no test may change them."""
    return exporting.trace(detector)


@pytest.fixture(scope="module")
def exported(detector, graphs, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "disc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda _: graphs)
        return out, export(detector, out, IMAGES)


def test_measures_what_it_wrote(detector, exported):
    out, measured = exported
    assert measured["weights"] == "float16"
    assert measured["same_bin"] == measured["pictures"] == 6
    assert measured["map"] < 1e-2 and measured["score"] < 0.01
    networks = {f"{name}.onnx" for name in ("encoder", "decoder", "unet", "features")}
    assert set(measured["files"]) == {*networks, "detector.json", "detector.bin"}
    assert measured["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    expected, found = detector.predict(IMAGES), read(out).predict(IMAGES)
    assert torch.equal(found.bin, expected.bin)
    assert torch.equal(found.T_hat, expected.T_hat)
    torch.testing.assert_close(found.map, expected.map, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.score, expected.score, atol=0, rtol=0.01)


def test_arrays_and_manifest(detector, exported):
    out, _ = exported
    manifest = json.loads((out / "detector.json").read_text())
    content = (out / "detector.bin").read_bytes()
    assert manifest["settings"] == detector.settings.as_dict()
    assert manifest["threshold"] == detector.threshold
    assert manifest["stages"] == [2, 3] and manifest["latent"] == [192, 8, 8]
    distances = detector.memory_bank.distances
    arrays = {
        "bank": detector.memory_bank.y,
        "distances": distances,
        "edges": bin_edges(distances, detector.settings.bins),
        "alpha_bar": detector.abar,
    }
    assert list(manifest["arrays"]) == list(arrays)
    for name, expected in arrays.items():
        at = manifest["arrays"][name]
        assert at["offset"] % 4 == 0
        n = int(np.prod(at["shape"]))
        values = np.frombuffer(content, at["dtype"], n, at["offset"])
        values = values.reshape(at["shape"])
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def regional(detector):
    """The same networks, with a step for each region and the third map."""
    by_region = dict(step_rule="region", T_max=320, guidance=0.0, patch_share=0.25)
    other = detector.under(detector.settings.change(map_stages=(2, 3), **by_region))
    good = good_images(8, seed=3)
    other.set_banks(good_images(20), good)
    other.set_ranges(good)
    other.set_held_out_scores(good)
    return other


@pytest.fixture(scope="module")
def exported_regional(regional, graphs, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "disc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda _: graphs)
        return out, export(regional, out, IMAGES)


def test_a_step_for_each_region(regional, exported_regional):
    out, measured = exported_regional
    assert measured["same_bin"] == 6 and measured["same_steps"] >= 5
    expected, read_again = regional.predict(IMAGES), read(out)
    found = read_again.predict(IMAGES)
    assert len(expected.step_map.unique()) > 3
    # rounded to float16, a region at the edge of a bin may have the step beside it
    same = (found.step_map == expected.step_map).flatten(1)
    assert same.float().mean() > 0.99
    same = same.all(1)
    torch.testing.assert_close(found.map[same], expected.map[same], atol=1e-2, rtol=0)
    assert read_again.threshold == regional.threshold
    assert read_again.ranges == regional.ranges


def test_the_patches_lie_in_the_binary_file(regional, exported_regional):
    out, measured = exported_regional
    arrays = json.loads((out / "detector.json").read_text())["arrays"]
    n, D = regional.patch_bank.f.shape
    assert arrays["patch_bank"]["shape"] == [n, D]
    assert arrays["patch_bank"]["dtype"] == measured["weights"]
    content = (out / "detector.bin").read_bytes()
    for name, expected in (
        ("patch_bank", regional.patch_bank.f),
        ("patch_low_high", regional.patch_bank.low_high),
        ("patch_edges", bin_edges(regional.patch_bank.low_high, 10)),
    ):
        at = arrays[name]
        values = np.frombuffer(content, at["dtype"], expected.numel(), at["offset"])
        np.testing.assert_allclose(values, expected.flatten(), rtol=1e-3, atol=1e-6)


def test_names_and_shapes_of_the_graphs(exported):
    import onnx
    out, _ = exported
    manifest = json.loads((out / "detector.json").read_text())
    x0, z0 = ["x0", 1, 3, 64, 64], ["z0", 1, 192, 8, 8]
    sides = {
        "encoder": [x0, z0],
        "decoder": [z0, x0],
        "unet": [["z_t", 1, 192, 8, 8], ["t", 1], ["e", 1, 192, 8, 8]],
        "features": [x0, ["phi_2", 1, 40, 8, 8], ["phi_3", 1, 112, 4, 4]],
    }
    for name, expected in sides.items():
        path = out / f"{name}.onnx"
        graph = onnx.load(path).graph
        found = [(side.name, side.type.tensor_type)
                 for side in (*graph.input, *graph.output)]
        shapes = [[name, *(d.dim_value for d in of.shape.dim)] for name, of in found]
        assert shapes == expected
        assert {of.elem_type for _, of in found} == {onnx.TensorProto.FLOAT}
        assert manifest["files"][path.name]["bytes"] == path.stat().st_size


def test_drawn_latents_noise_and_fewer_calls(tmp_path):
    """The choices of `official` that draw, and `fast`: deviation exported, draws
    repeated.
    """
    import onnx
    draws = dict(posterior="sample", noise=True, call_every=4)
    settings = tiny(vae="given", tune_epochs=0, **draws)
    detector = Detector.fit(good_images(20), settings, device="cpu", vae=tiny_vae())
    measured = export(detector, tmp_path / "out", IMAGES)
    assert measured["same_bin"] == 6
    graph = onnx.load(tmp_path / "out/encoder.onnx").graph
    assert [side.name for side in graph.output] == ["z0", "std"]


def test_float32_where_float16_does_not_hold(detector, graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "trace", lambda _: graphs)
    monkeypatch.setattr(exporting, "halved", spoilt_weights)
    assert export(detector, tmp_path / "out", IMAGES)["weights"] == "float32"


def spoilt_weights(graph):
    """A copy whose weights are off by a tenth."""
    from onnx import ModelProto, numpy_helper
    model = ModelProto()
    model.CopyFrom(graph)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > 1:
            weight.CopyFrom(numpy_helper.from_array(1.1 * values, weight.name))
    return model


def test_an_export_that_differs_is_refused_and_the_older_one_stays(
    detector, graphs, exported, tmp_path, monkeypatch
):
    spoilt = graphs | {"unet": spoilt_weights(graphs["unet"])}
    monkeypatch.setattr(exporting, "trace", lambda _: spoilt)
    out, _ = exported
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refusal = "differs from PyTorch by .* in a map .* Nothing written"
    with pytest.raises(ExportError, match=refusal):
        export(detector, out, IMAGES)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    with pytest.raises(ExportError):
        export(detector, tmp_path / "new", IMAGES)
    assert not list(tmp_path.iterdir())


def test_refuses(detector, exported, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something that is no export"):
        export(detector, tmp_path, IMAGES)
    with pytest.raises(ExportError, match="holds no detector.json"):
        read(tmp_path)
    latent_alone = dict(step_rule="static", lam=1.0, decode=False)
    with pytest.raises(SettingsError, match="setting decode: false has no export"):
        export(detector.under(detector.settings.change(**latent_alone)), tmp_path)
    shutil.copytree(exported[0], tmp_path / "older")
    manifest = json.loads((tmp_path / "older/detector.json").read_text())
    (tmp_path / "older/detector.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(ExportError, match="not of format 2.* export the detector"):
        read(tmp_path / "older")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ExportError, match=r"onnxscript is not installed; .*ddad\[export\]"
    ):
        export(detector, exported[0], IMAGES)


def test_command_line(detector, graphs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "trace", lambda _: graphs)
    detector.save_pretrained(tmp_path / "model")
    for n, image in enumerate(IMAGES):
        save_image(tmp_path / "images" / f"{n}.png", image)
    run = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--images"]
    assert main([*run, str(tmp_path / "images")]) == 0
    said = capsys.readouterr().out
    assert "against PyTorch on 6 images: same bin on 6" in said and "unet.onnx" in said
    assert main([*run, str(tmp_path / "nowhere")]) == 2
    assert main(["export", str(tmp_path / "images"), str(tmp_path / "out")]) == 2
    refusals = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("ddad export: ") for line in refusals)


def test_results_of_a_detection_are_no_older_export(detector, tmp_path):
    (tmp_path / "detector.json").write_text("{}")
    (tmp_path / "results.jsonl").write_text("a line")
    with pytest.raises(FileExistsError, match="results.jsonl beside the export"):
        export(detector, tmp_path, IMAGES)
    assert (tmp_path / "results.jsonl").read_text() == "a line"
