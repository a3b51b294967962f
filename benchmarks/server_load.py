"""Several clients clicking at once on one server: lost clicks, mixed-up masks, memory, waiting times.

    python benchmarks/server_load.py [--seconds 300] [--clients 8] [--model promise3d-small] [--memory-mb 1024]

Every client has a synthetic scan of its own, clicks in and beside its tumour, undoes and redoes, and counts.
In the end the server's clicks are compared with what the client was told, its mask with that of a fresh
session with the same clicks, and the mask of every other client with it. Prints a Markdown table; the exit
code is 1 if anything was lost or mixed up.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import Phantom, make_phantom
from clickvol.server.client import RemoteError, RemoteSession

T = TypeVar("T")

SHAPE_DHW = (60, 128, 128)
MAX_STEPS = 30
"""After so many steps a client begins anew, as users do with another tumour."""

SAMPLE_SECONDS = 1.0


@dataclass
class Client:
    """What one client did and saw."""

    number: int
    phantom: Phantom
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    steps: int = 0
    clicks: list[tuple[VoxelPoint, bool]] = field(default_factory=list)
    lost: int = 0
    mixed_up: int = 0
    errors: list[str] = field(default_factory=list)
    mask: NDArray[np.uint8] | None = None


def patiently(client: Client, ask: Callable[[], T]) -> T:
    """Ask again while the server says that it is busy."""
    while True:
        started_at = time.perf_counter()
        try:
            answer = ask()
        except RemoteError as error:
            if error.status not in (429, 503):
                raise
            client.refused += 1
            time.sleep(0.5)
            continue
        client.seconds.append(time.perf_counter() - started_at)
        return answer


def work(client: Client, address: str, until: float) -> None:
    """Click until the time is over, then compare."""
    random = np.random.default_rng(client.number)
    inside = np.argwhere(client.phantom.truth.array)
    outside = np.argwhere(client.phantom.truth.array == 0)
    try:
        with RemoteSession(address) as session:
            patiently(client, lambda: session.open_path(f"{client.number}.nii.gz"))
            while time.monotonic() < until:
                if client.steps % MAX_STEPS == MAX_STEPS - 1:
                    patiently(client, session.reset)
                    client.clicks = []
                choice = random.random()
                positive = not client.clicks or choice < 0.6
                if choice < 0.85 or not client.clicks:
                    places = inside if positive else outside
                    point = VoxelPoint(*map(float, places[random.integers(len(places))]))
                    patiently(client, lambda p=point, s=positive: session.click(p, positive=s))
                    client.clicks.append((point, positive))
                else:
                    patiently(client, session.undo)
                    if choice < 0.93:
                        client.clicks.pop()
                    else:
                        patiently(client, session.redo)
                client.steps += 1
            compare(client, session, address)
    except (RemoteError, ClickError) as error:
        client.errors.append(str(error))


def compare(client: Client, session: RemoteSession, address: str) -> None:
    """Count clicks that the server does not have, and voxels that a fresh session would not give."""
    (known,) = session.objects
    client.lost = abs(len(known.clicks) - len(client.clicks))
    client.mask = session.mask().array
    with RemoteSession(address) as fresh:
        patiently(client, lambda: fresh.open_path(f"{client.number}.nii.gz"))
        for point, positive in client.clicks:
            patiently(client, lambda p=point, s=positive: fresh.click(p, positive=s))
        client.mixed_up = int(np.count_nonzero(fresh.mask().array != client.mask))


def resident_mb(pid: int) -> float:
    """Return the memory of a process; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Serve, let the clients click, print what came of it; return the exit code."""
    clients = []
    for number in range(arguments.clients):
        phantom = make_phantom(number, shape_dhw=SHAPE_DHW)
        write_volume(phantom.volume.array, phantom.volume.grid, folder / f"{number}.nii.gz")
        clients.append(Client(number, phantom))
    words = ["--root", folder, "--state-folder", folder / "state", "--port", "0", "--quiet"]
    words += ["--memory-mb", arguments.memory_mb, "--sessions", 2 * arguments.clients]
    words += ["--model", arguments.model] if arguments.model else []
    server = subprocess.Popen(
        [sys.executable, "-m", "clickvol", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    memory: list[float] = []
    try:
        address = "" if server.stdout is None else server.stdout.readline().strip()
        if not address:
            return 1
        until = time.monotonic() + arguments.seconds
        threads = [threading.Thread(target=work, args=(c, address, until)) for c in clients]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(resident_mb(server.pid))
            time.sleep(SAMPLE_SECONDS)
    finally:
        server.terminate()
        server.wait()
    return report(clients, memory, arguments)


def report(clients: list[Client], memory: list[float], arguments: argparse.Namespace) -> int:
    """Print the table; return 1 if anything was lost or mixed up."""
    seconds = sorted(s for client in clients for s in client.seconds)
    lost = sum(client.lost for client in clients)
    mixed_up = sum(client.mixed_up for client in clients)
    errors = [error for client in clients for error in client.errors]
    third = max(1, len(memory) // 3)
    rows = {
        "clients": len(clients),
        "duration, s": arguments.seconds,
        "answered requests": len(seconds),
        "told to come again (429, 503)": sum(client.refused for client in clients),
        "errors": len(errors),
        "lost clicks": lost,
        "voxels that differ from a fresh session": mixed_up,
        "waiting time, median / 95 % / longest, s": (
            f"{statistics.median(seconds):.2f} / {seconds[int(0.95 * len(seconds))]:.2f} / {seconds[-1]:.2f}"
        ),
        "server's memory, first third / last third / peak, MiB": (
            f"{max(memory[:third]):.0f} / {max(memory[-third:]):.0f} / {max(memory):.0f}"
        ),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    for error in errors[:5]:
        print(f"error: {error}", file=sys.stderr)
    return int(bool(lost or mixed_up or errors))


def main() -> int:
    """Read the words and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clickvol-load-") as folder:
        return run(arguments, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
