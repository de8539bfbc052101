"""The exported detector does what the detector does; what cannot be exported is refused with a sentence, and nothing is written."""
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, save_picture, tiny, tiny_vae

from ddad import cli
from ddad import export as exporting
from ddad.detector import Detector
from ddad.export import ExportError, export, read

MISSING = [package for package in ("onnx", "onnxruntime", "onnxscript") if find_spec(package) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; pip install -e '.[export]'")
IMAGES = torch.cat([good_images(3, seed=7), bad_images(3)[0]])


@pytest.fixture(scope="module")
def detector():
    return Detector.fit(good_images(20), tiny(map_stages=(3,)), device="cpu")


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "disc"
    return out, export(detector, out, IMAGES)


def test_measures_what_it_wrote(detector, exported):
    out, measured = exported
    assert measured["weights"] == "float16" and measured["same_bin"] == measured["pictures"] == 6
    assert measured["map"] < 1e-2 and measured["score"] < 0.01
    assert set(measured["files"]) == {"encoder.onnx", "decoder.onnx", "unet.onnx", "features.onnx", "detector.json", "detector.bin"}
    assert measured["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    expected, found = detector.predict(IMAGES), read(out).predict(IMAGES)
    assert torch.equal(found.bin, expected.bin) and torch.equal(found.T_hat, expected.T_hat)
    torch.testing.assert_close(found.map, expected.map, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.score, expected.score, atol=0, rtol=0.01)


def test_names_shapes_and_arrays(detector, exported):
    import onnx
    out, _ = exported
    manifest, content = json.loads((out / "detector.json").read_text()), (out / "detector.bin").read_bytes()
    assert manifest["settings"] == detector.settings.as_dict() and manifest["threshold"] == detector.threshold
    assert manifest["stages"] == [2, 3] and manifest["latent"] == [192, 8, 8]
    for name, expected in (("bank", detector.dynamic_noise.bank), ("distances", detector.dynamic_noise.distances),
                           ("edges", detector.dynamic_noise.edges), ("alpha_bar", detector.abar)):
        at = manifest["arrays"][name]
        values = np.frombuffer(content, at["dtype"], int(np.prod(at["shape"])), at["offset"]).reshape(at["shape"])
        assert at["offset"] % 4 == 0
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-6)
    sides = {"encoder": [["x0", 1, 3, 64, 64], ["z0", 1, 192, 8, 8]], "decoder": [["z0", 1, 192, 8, 8], ["x0", 1, 3, 64, 64]],
             "unet": [["z_t", 1, 192, 8, 8], ["t", 1], ["e", 1, 192, 8, 8]],
             "features": [["x0", 1, 3, 64, 64], ["phi_2", 1, 40, 8, 8], ["phi_3", 1, 112, 4, 4]]}
    for name, expected in sides.items():
        graph = onnx.load(out / f"{name}.onnx").graph
        assert [[side.name, *(d.dim_value for d in side.type.tensor_type.shape.dim)] for side in (*graph.input, *graph.output)] == expected
        assert {side.type.tensor_type.elem_type for side in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
        assert manifest["files"][f"{name}.onnx"]["bytes"] == (out / f"{name}.onnx").stat().st_size


def test_drawn_latents_noise_and_fewer_calls(tmp_path):
    """The choices of `official` that draw, and `fast`: deviation exported, draws repeated."""
    settings = tiny(vae="given", posterior="sample", noise=True, call_every=4, tune_epochs=0)
    detector = Detector.fit(good_images(20), settings, device="cpu", vae=tiny_vae())
    measured = export(detector, tmp_path / "out", IMAGES)
    assert measured["same_bin"] == 6
    assert [out.name for out in exporting.Onnx(tmp_path / "out/encoder.onnx").session.get_outputs()] == ["z0", "std"]


def test_float32_where_float16_does_not_hold(detector, tmp_path, monkeypatch):
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


def test_an_export_that_differs_is_refused_and_the_older_one_stays(detector, exported, tmp_path, monkeypatch):
    graphs = {name: spoilt_weights(graph) if name == "unet" else graph for name, graph in exporting.trace(detector).items()}
    monkeypatch.setattr(exporting, "trace", lambda _: graphs)
    out, _ = exported
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ExportError, match="differs from PyTorch by .* in a map .* Nothing written"):
        export(detector, out, IMAGES)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before and [path.name for path in out.parent.iterdir()] == [out.name]
    with pytest.raises(ExportError):
        export(detector, tmp_path / "new", IMAGES)
    assert not list(tmp_path.iterdir())


def test_refuses(detector, exported, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something that is no export"):
        export(detector, tmp_path, IMAGES)
    with pytest.raises(ExportError, match="holds no detector.json"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"onnxscript is not installed; .*ddad\[export\]"):
        export(detector, exported[0], IMAGES)


def test_command_line(detector, tmp_path, capsys):
    detector.save_pretrained(tmp_path / "model")
    for n, image in enumerate(IMAGES):
        save_picture(tmp_path / "pictures" / f"{n}.png", image)
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--images"]
    assert cli.main([*arguments, str(tmp_path / "pictures")]) == 0
    said = capsys.readouterr().out
    assert "against PyTorch on 6 pictures: same bin on 6" in said and "unet.onnx" in said
    assert cli.main([*arguments, str(tmp_path / "nowhere")]) == 2
    assert cli.main(["export", str(tmp_path / "pictures"), str(tmp_path / "out")]) == 2
    assert all(line.startswith("ddad export: ") for line in capsys.readouterr().err.strip().splitlines())
