"""A little of what `python tests/trials.py` does for longer: kills, full disks, damage, and random input."""
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and their pipes enlarged")
def test_short_trials():
    script = Path(__file__).parent / "trials.py"
    done = subprocess.run([sys.executable, str(script), "short"], capture_output=True, text=True, cwd=script.parent.parent, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 unique foreign exceptions" in done.stdout and "onnx: 20 damages" in done.stdout
