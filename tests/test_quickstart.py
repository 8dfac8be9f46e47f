"""docs/quickstart.ipynb runs from top to bottom in a real kernel, on images and a network that tests can afford."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from conftest import make_images
from nbclient import NotebookClient

BOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"


def test_it_holds_no_outputs() -> None:
    """They would be of another day."""
    for cell in nbformat.read(BOOK, as_version=4).cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)


def test_it_runs(tmp_path: Path) -> None:
    """With the cell of parameters replaced; every result shows itself, and nothing goes to stderr."""
    book = nbformat.read(BOOK, as_version=4)
    (given,) = [cell for cell in book.cells if cell.source.startswith("data = ")]
    make_images(tmp_path / "photos")
    given.source = 'data = "photos"\nnetwork = {"arch": "timm/test_resnet", "pretrained": False, "size": 32, "bs": 8}'
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    pages = [
        one.data["text/html"]
        for cell in cells
        for one in cell.outputs
        if one.output_type == "execute_result" and "text/html" in one.data
    ]
    assert len(pages) >= 6
    assert sum("<img" in page for page in pages) >= 5
    streams = [one for cell in cells for one in cell.outputs if one.output_type == "stream"]
    assert not [one.text for one in streams if one.name == "stderr"]
    text = "".join(one.text for one in streams)
    assert "set stages.1.unfreze=1: Stage has no field 'unfreze'; did you mean 'unfreeze'?" in text
    assert "paused before stages.1" in text
    assert not re.search("\x1b", str(book))
