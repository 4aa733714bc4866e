"""Failing frames in chemiscope's viewer, packed into the page, if chemiscope is installed.

The viewer is one script of 3.2 MB, which is packed to 1.3 MB of text and unpacked when the reader asks for it. The
page allows this script and the few lines that start it, each by its hash, and nothing else.
"""

import base64
import gzip
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from phystrain.report.drawing import ALARM
from phystrain.report.failing import Failing

MOST_FRAMES = 60
MOST_ATOMS = 20_000
"""Of all frames together: about 1 MB of text."""

HOW_TO = "pip install 'phystrain[report]', then 'phystrain compare RUN' (a run or audit folder)"
"""What gives a page with the viewer."""

START = """
const open = document.getElementById('viewer-open');
const say = text => { document.getElementById('viewer-says').textContent = text; };
open.addEventListener('click', async () => {
  open.disabled = true;
  say('Unpacking…');
  try {
    const packed = Uint8Array.from(atob(document.getElementById('viewer-code').textContent), c => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    document.getElementById('viewer').hidden = false;
    const warnings = new Chemiscope.Warnings();
    warnings.addHandler(message => say(message));
    const places = { meta: 'viewer-meta', structure: 'viewer-structure', info: 'viewer-info' };
    const frames = JSON.parse(document.getElementById('viewer-data').textContent);
    await Chemiscope.StructureVisualizer.load(places, frames, warnings);
    say('');
    open.hidden = true;
  } catch (error) {
    open.disabled = false;
    say('The viewer does not start in this browser: ' + error.message);
  }
});
"""
"""Starts the viewer when its button is pressed."""


class Viewer(NamedTuple):
    """What the page needs.

    Attributes:
        code: the viewer's script, gzip in base64.
        data: the frames as JSON that may stand inside a script element.
        shown: how many frames.
        version: of chemiscope.
        licence: its text, with those of what it is built from.
        policy: hashes of the two scripts, for the Content-Security-Policy.
    """

    code: str
    data: str
    shown: int
    version: str
    licence: str
    policy: str


def viewer(frames: Sequence[Failing]) -> Viewer | None:
    """The viewer with as many of the frames as :data:`MOST_FRAMES` and :data:`MOST_ATOMS` allow.

    Returns:
        ``None`` without frames, or if chemiscope is not installed.
    """
    try:
        import chemiscope
    except ImportError:
        return None
    total = np.cumsum([len(frame.atoms) for frame in frames[:MOST_FRAMES]])
    shown = list(frames[: int((total <= MOST_ATOMS).sum())])
    if not shown:
        return None
    script = (resources.files("chemiscope") / "sphinx" / "static" / "chemiscope.min.js").read_text(encoding="utf-8")
    data = json.dumps(_dataset(chemiscope, shown), allow_nan=False).replace("<", "\\u003c")
    return Viewer(
        code=base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode("ascii"),
        data=data,
        shown=len(shown),
        version=importlib.metadata.version("chemiscope"),
        licence=_licence(),
        policy=f"script-src {_hash(START)} {_hash(script)}",
    )


def _dataset(chemiscope: Any, frames: Sequence[Failing]) -> dict[str, Any]:
    """What chemiscope reads: structures with the failing contact as a coloured stick."""
    structures, sticks = [], []
    for frame in frames:
        atoms = frame.atoms.copy()
        atoms.info, atoms.calc = {}, None
        # chemiscope knows full periodicity or none
        atoms.pbc = atoms.pbc.all()
        if not atoms.pbc.all():
            atoms.cell = None
        structures.append(atoms)
        start = np.zeros(3) if frame.contact is None else atoms.positions[frame.contact.first]
        vector = np.array([0.0, 0.0, 1e-3]) if frame.contact is None else frame.contact.vector
        sticks.append({"position": start.tolist(), "vector": vector.tolist()})
    properties = {
        "variant": [frame.name for frame in frames],
        "failure": [frame.reason for frame in frames],
    }
    shape = {
        "kind": "cylinder",
        "parameters": {"global": {"radius": 0.22, "color": int(ALARM.removeprefix("#"), 16)}, "structure": sticks},
    }
    found: dict[str, Any] = chemiscope.create_input(
        structures=structures,
        metadata={"name": "Failing frames"},
        properties={name: {"target": "structure", "values": values} for name, values in properties.items()},
        shapes={"failing contact": shape},
        settings={"structure": [{"shape": "failing contact", "unitCell": True, "bonds": True, "spaceFilling": False}]},
    )
    return found


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"


def _licence() -> str:
    """Of chemiscope, and the notices of what its script is built from."""
    own = importlib.metadata.distribution("chemiscope").read_text("licenses/LICENSE") or "BSD-3-Clause"
    parts = resources.files("chemiscope") / "static" / "chemiscope-widget.mjs.LICENSE.txt"
    notices = re.findall(r"/\*.*?\*/", parts.read_text(encoding="utf-8"), re.DOTALL) if parts.is_file() else []
    told = [notice for notice in notices if re.search(r"licen[cs]e|copyright|author|\(c\)", notice, re.IGNORECASE)]
    return "\n\n".join([own.strip(), *told])
