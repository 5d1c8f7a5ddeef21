"""Every page of the gallery runs and keeps the promises in its own asserts."""

import runpy
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / "gallery"
PAGES = sorted(GALLERY.rglob("*.py"))


@pytest.mark.gallery
# Where there is a screen but no window to draw in, showing a figure warns.
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}"
)
def test_gallery_page_runs(page, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    with plt.rc_context():
        runpy.run_path(str(page), run_name="__main__")
    plt.close("all")
