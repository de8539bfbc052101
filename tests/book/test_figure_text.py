"""The size of a figure's text is measured where it is drawn, and reaches the pages."""
import matplotlib
import nbformat
import pytest
from PIL import Image

pytest.importorskip("nbformat", reason="the book's packages are missing")
import figure_text  # noqa: E402
import run_notebooks  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

KEY, TEXT = figure_text.KEY, figure_text.TEXT


def drawn(**sizes):
    figure, _ = plt.subplots(figsize=(3, 2), dpi=100)
    for words, size in sizes.items():
        figure.text(0.5, 0.5, words, fontsize=size)
    figure.axes[0].axis("off")
    return figure


def test_the_smallest_text_is_measured_as_it_is_drawn():
    with figure_text.measured() as heights:
        drawn(large=18, small=7.2).canvas.draw()
    assert min(heights) == pytest.approx(7.2 / 72 * 100)
    drawn(smaller=5).canvas.draw()
    assert min(heights) == pytest.approx(10)


def test_a_saved_figure_carries_it(tmp_path):
    figure_text.save(drawn(small=9), tmp_path / "a.png", dpi=160)
    figure_text.save(drawn(), tmp_path / "b.png", dpi=160)
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert (a.info[KEY], b.info[KEY]) == ("20.0", "none")


def cell(height, picture):
    said = nbformat.v4.new_output("display_data", {TEXT: {KEY: height}})
    shown = nbformat.v4.new_output("display_data", {"image/png": "AAAA"})
    return nbformat.v4.new_code_cell(outputs=[shown, said] if picture else [said])


def test_the_next_picture_has_what_was_drawn_for_it():
    notebook = nbformat.v4.new_notebook(cells=[
        cell(None, True), cell(8.0, False), cell(12.5, True), cell(11.1, True)])
    figure_text.moved_to_metadata(notebook.cells)
    assert [one.metadata.get(KEY, "-") for one in notebook.cells] == [
        None, "-", 8.0, 11.1]
    assert [len(one.outputs) for one in notebook.cells] == [1, 0, 1, 1]


def test_another_size_is_another_output():
    one, other = (nbformat.v4.new_notebook(cells=[cell(size, True)]) for size in (8, 9))
    for notebook in (one, other):
        figure_text.moved_to_metadata(notebook.cells)
    assert run_notebooks.outputs(one) != run_notebooks.outputs(other)
