"""Python environments of the peers: build/peers/NAME, from the pinned requirements/NAME.txt.

The lists are whole closures, so nothing is resolved: some peers name packages that need a GPU.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

from bench.peers.measure import say
from bench.peers.peer import ROOT, Contender

REQUIREMENTS = pathlib.Path(__file__).parent / "requirements"
# What a source distribution wants: one peer has a package that is nothing else.
TOOLS = ("setuptools==80.10.2", "wheel==0.48.0")
LOG_LINES = 5


def install(peer: type[Contender]) -> bool:
    """Makes the peer's environment anew; says what failed and answers False when it does."""
    if peer.environment is None:
        say(f"{peer.name} needs nothing")
        return True
    folder = peer.folder()
    log = ROOT / "build" / "peers" / f"{peer.environment}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{peer.name}: installing into {folder.relative_to(ROOT)} ({log.relative_to(ROOT)})")
    requirements = REQUIREMENTS / f"{peer.environment}.txt"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    steps = (
        ["/usr/bin/python3", "-m", "venv", "--clear", str(folder)],
        [*pip, *TOOLS],
        [*pip, "--no-deps", "--no-build-isolation", "-r", str(requirements)],
    )
    with log.open("w") as output:
        for step in steps:
            done = subprocess.run(
                step, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
            if done.returncode != 0:
                tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                print(*tail, sep="\n", file=sys.stderr)
                say(f"{peer.name} could not be installed")
                return False
    (folder / ".installed").touch()
    return True
