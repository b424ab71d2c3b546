"""Runs ``docs/quickstart.ipynb`` from its first cell to its last; an error in any of them is an error here.

python -m scripts.notebook            # as CI does
python -m scripts.notebook --write    # and keep the outputs, which readers and the documentation site see
"""

import argparse
import base64
import io
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "quickstart.ipynb"
CELL_SECONDS = 900
"""That a cell may take before it is given up, on a machine that has much else to do."""
WIDTH, COLOURS = 640, 64
"""Of the figures that are kept."""


def main(args: list[str] | None = None) -> int:
    """Runs it.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebook")
    options = parser.parse_args(args)
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    start = time.monotonic()
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"error: {NOTEBOOK.name}: {error}", file=sys.stderr)
        return 1
    print(f"{NOTEBOOK.name}: {len(notebook.cells)} cells in {time.monotonic() - start:.0f} s")
    if options.write:
        tidy(notebook)
        nbformat.write(notebook, NOTEBOOK)
    return 0


def tidy(notebook: Any) -> None:
    """Leaves of the outputs what readers look at, small: figures without addresses of objects, no warnings."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output["data"], output["metadata"] = {"image/png": smaller(output["data"]["image/png"])}, {}


def smaller(image: str) -> str:
    """A PNG file in Base64, at most `WIDTH` wide and with few colours: the history keeps every one."""
    picture = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
    picture.thumbnail((WIDTH, picture.height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.quantize(COLOURS).save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
