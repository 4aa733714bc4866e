"""The page in a real browser: nothing goes wrong, nothing is fetched, and it fits a phone.

Needs Chromium; on Debian ``apt-get install chromium``.
"""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from phystrain.reliability import Curve, Result
from phystrain.report.comparison import Comparison, Variant
from phystrain.report.covered import Covered
from phystrain.report.page import write_report
from phystrain.verdict.grade import Verdict

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")

LONG = "a-name-without-a-space-that-is-much-too-long-for-the-width-of-any-telephone-" * 2


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a verdict, curves, a failing frame and names that are hard to fit."""
    folder = tmp_path_factory.mktemp("page")
    frame = Atoms("OSiO", [(0, 0, 0), (1.0, 0, 0), (2.6, 0, 0)], cell=[6, 6, 6], pbc=True)
    frame.info |= {"failure": "O-Si contact of 1.00 Å at 0.5 ps", "time_ps": 0.5, "temperature_K": 900}
    write(folder / "failed.xyz", frame, format="extxyz")
    r = np.linspace(0.8, 5, 50)
    curve = Curve(x=r.tolist(), y=(1 / r**6 - 1 / r**3).tolist(), x_label="distance, Å", y_label="energy, eV")
    figures: dict[str, float | int | str | None] = {f"figure {number}, Å": number / 7 for number in range(5)}
    figures["failures"] = f"3 x distance ({LONG})"
    result = Result(
        test="dimers", title="Pair curves", figures=figures, passed=False, threshold="sound",
        sentence=f"Faulty: {LONG}",
        curves={"O-Si": curve}, grade="limited", conditions=["O-Si below 1.10 Å is unsupported"],
    )  # fmt: skip
    verdict = Verdict(
        grade="limited", kelvin=900.0, sentence="Holes.", conditions=["O-Si below 1.10 Å"], reasons=[LONG],
        untested=[LONG],
    )  # fmt: skip
    covered = Covered(shortest={"O-Si": 1.5})
    variants = [
        Variant(name, results=[result], failing=folder / "failed.xyz", covered=covered, verdict=verdict)
        for name in ("labels only", LONG)
    ]
    run_file = f"# {LONG}{LONG}\npotential: {{kind: painn}}\n"
    return write_report(Comparison("A page", variants, f"Before {LONG}", run_file, "abc" * 30), folder)


def _browse(page: Path, folder: Path, *flags: str) -> tuple[str, list[str], list[str]]:
    """The document once loaded, messages of the console, addresses that were asked for."""
    network = folder / "network.json"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
        f"--log-net-log={network}", "--virtual-time-budget=5000", *(flags or ["--disable-gpu"]), "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # Chromium asks for things of its own (a dictionary, the time); the initiator of those is "not an origin".
    requests = re.findall(r'"initiator":"([^"]*)".*"url":"(https?://[^"]+)', network.read_text())
    return done.stdout, console, sorted({address for initiator, address in requests if initiator != "not an origin"})


def test_page_opens_quietly_and_whole(report: Path, tmp_path: Path):
    document, console, asked = _browse(report, tmp_path)
    assert console == []
    assert asked == []
    headings = [html.unescape(found) for found in re.findall(r"<h2>(.*?)</h2>", document)]
    assert headings == [
        *("In short", "Two atoms alone", "Where it failed", "Every test in detail", "How this was made"),
    ]
    assert document.count("Limited") == 2
    assert "Safe up to 900 K" in document


def test_faults_would_be_seen(tmp_path: Path):
    page = tmp_path / "faulty.html"
    page.write_text('<img src="http://planted.invalid/x.png"><script>console.error("planted")</script>')
    _, console, asked = _browse(page, tmp_path)
    assert any("planted" in line for line in console)
    assert asked == ["http://planted.invalid/x.png"]


def test_viewer_starts_when_asked(report: Path, tmp_path: Path):
    pytest.importorskip("chemiscope", reason="the optional viewer: pip install 'phystrain[report]'")
    # Presses the button; the page lets it run because its hash is added.
    press = """
    document.addEventListener('securitypolicyviolation', event => console.log('forbidden', event.violatedDirective));
    document.getElementById('viewer-open').click();
    setInterval(() => {
      const says = document.getElementById('viewer-says').textContent;
      const drawn = document.getElementById('viewer-structure').children.length;
      document.title = `${drawn} drawn; ${says}`;
    }, 100);"""
    allowed = base64.b64encode(hashlib.sha256(press.encode()).digest()).decode()
    text = report.read_text().replace("; script-src ", f"; script-src 'sha256-{allowed}' ")
    page = tmp_path / "pressed.html"
    page.write_text(text.replace("</body>", f"<script>{press}</script></body>"))
    document, console, asked = _browse(page, tmp_path, "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    assert re.search(r"<title>[1-9]\d* drawn; </title>", document), re.findall(r"<title>.*?</title>", document)
    assert not [line for line in console if "forbidden" in line or "rror" in line]
    assert asked == []


@pytest.mark.parametrize("width", [390, 820])
def test_page_fits_the_screen(report: Path, tmp_path: Path, width: int):
    found = _measured(report.read_text(), tmp_path, width)
    assert found["wide"] <= width, "the page scrolls sideways"
    assert found["over"] == [], "these stick out"
    assert found["pictures"] == found["drawn"] > 0


def test_what_is_too_wide_would_be_seen(report: Path, tmp_path: Path):
    broken = report.read_text().replace("overflow-wrap: anywhere", "overflow-wrap: normal")
    assert _measured(broken, tmp_path, 390)["wide"] > 390


def _measured(text: str, folder: Path, width: int) -> dict:
    """Sizes of the page in a frame of this width, after everything in it has been opened."""
    wrapper = folder / "wrapper.html"
    style, source = f"border:0;width:{width}px;height:900px", html.escape(text, quote=True)
    wrapper.write_text(
        f'<iframe id="f" style="{style}" srcdoc="{source}"></iframe>'
        """<pre id="found"></pre><script>
        document.getElementById('f').addEventListener('load', event => {
          const inside = event.target.contentDocument, wide = event.target.clientWidth;
          inside.querySelectorAll('details').forEach(part => { part.open = true; });
          const over = [...inside.querySelectorAll('main *')].filter(part =>
            part.getBoundingClientRect().right > wide + 1 && !part.closest('.scroll, pre, .headline thead'));
          const pictures = [...inside.images];
          document.getElementById('found').textContent = JSON.stringify({
            wide: inside.documentElement.scrollWidth, over: over.map(part => part.outerHTML.slice(0, 80)),
            pictures: pictures.length, drawn: pictures.filter(part => part.naturalWidth > 0).length });
        });</script>"""
    )
    document, _, _ = _browse(wrapper, folder)
    found = re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))
