import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.parametrize(
    "terms",
    [
        {"energy": {}, "forces": {}, "stress": {}, "pitc": {}, "pisc": {}},
        {"forces": {}},
        {"energy": {}, "forces": {"of": "guide"}, "pitc": {"weight": "auto", "every": 2}, "pisc": {"part": 0.3}},
    ],
    ids=["all", "forces", "lazy"],
)
def test_two_processes_have_the_gradient_of_one(terms, tmp_path):
    script = Path(__file__).with_name("gradients.py")
    results = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}.safetensors"
        command = [sys.executable, script, str(processes), json.dumps(terms), output]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(load_file(output))
    one, two = results
    assert one.keys() == two.keys()
    scale = max(float(gradient.abs().max()) for gradient in one.values())
    assert scale > 0
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-6, atol=1e-10 * scale, msg=name)
    if "pisc" in terms and "part" in terms["pisc"]:
        weights = [float(one[f"{step}.weight.unlabelled_pisc"]) for step in range(3)]
        assert weights[0] == weights[1] != weights[2]
