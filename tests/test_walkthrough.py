"""The walkthrough's stored figures are those that a run gives today. Takes minutes: set DISTILLNB_SLOW=1."""
import os
import re
from pathlib import Path

import nbformat
import pytest

WALKTHROUGH = Path(__file__).resolve().parent.parent / "nbs" / "tutorials" / "walkthrough.ipynb"
KEYS = ('table = pd.DataFrame(kept)', "for kind in (\"linear\", \"cnn\"):\n    print(verdict", "answers = torch.from_numpy")


def said(notebook, key):
    """What a cell printed and returned."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and key in cell.source)
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_key_figures_are_stored():
    notebook = nbformat.read(WALKTHROUGH, as_version=4)
    for key in KEYS:
        assert re.search(r"\.\d\d", said(notebook, key)), key


@pytest.mark.skipif("DISTILLNB_SLOW" not in os.environ, reason="takes minutes: set DISTILLNB_SLOW=1")
def test_key_figures_are_those_of_a_run(monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.delenv("IN_TEST", raising=False)
    stored = nbformat.read(WALKTHROUGH, as_version=4)
    fresh = nbformat.read(WALKTHROUGH, as_version=4)
    nbclient.NotebookClient(fresh, timeout=3600, resources={"metadata": {"path": str(WALKTHROUGH.parent)}}).execute()
    for key in KEYS:
        before, now = (said(notebook, key) for notebook in (stored, fresh))
        assert re.sub(r"[-+]?\d*\.\d+", "#", before) == re.sub(r"[-+]?\d*\.\d+", "#", now), "other words"
        numbers = [[float(number) for number in re.findall(r"[-+]?\d*\.\d+", text)] for text in (before, now)]
        assert all(abs(a - b) <= max(.01, .05 * abs(a)) for a, b in zip(*numbers)), (before, now)
