"""`ddad detect --skip-bad`."""

from cli_words import lines_of
from conftest import good_images, save_image

from ddad.cli import main

pytest_plugins = ["cli_fixtures"]


def test_bad_images_are_skipped_on_request(model, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    save_image(images / "good.png", good_images(1)[0])
    (images / "bad.png").write_bytes(b"no image")
    run = ["detect", str(model), str(images), str(out), "--device", "cpu"]
    assert main([*run, "--skip-bad"]) == 0
    assert "bad.png cannot be read" in capsys.readouterr().err
    assert main(run) == 2 and len(lines_of(out)) == 2
