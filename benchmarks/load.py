"""Sessions of four kinds of client clicking at once on one server: lost clicks, mixed-up masks, waiting times.

    python benchmarks/load.py [--seconds 300] [--sessions 32] [--model promise3d-small] [--memory-mb 4096]

A quarter of the sessions each speaks as our Python client, as MONAI Label's clients do, through the real
`nninteractive-client`, and as ITK-SNAP does. Every session has a synthetic scan of its own and clicks in and
around its tumour, undoes, and begins anew after some steps. In the end its mask is compared with what a new
session of the same kind answers to the same clicks, and its clicks with those that the server has. Prints a
Markdown table; the exit code is 1 if anything was lost or mixed up.
"""

import argparse
import base64
import gzip
import json
import os
import platform
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import write_scan
from clickvol.io.nifti.files import read_stored
from clickvol.io.volume import Volume
from clickvol.phantoms.phantom import Phantom, make_phantom
from clickvol.server.client import RemoteError, RemoteSession

MAX_STEPS = 8
"""After so many steps a session begins anew, as users do with another tumour."""

SAMPLE_SECONDS = 1.0
TIMEOUT_SECONDS = 600.0

T = TypeVar("T")
Sign = tuple[VoxelPoint, bool]
Start = Callable[[list[str]], subprocess.Popen[str]]


class BusyError(Exception):
    """The server says: come again."""


class ViewerClient(Protocol):
    """A client that clicks in one scan and has its mask."""

    def __init__(self, address: str, token: str | None, volume: Volume, ca_file: Path | None = None) -> None:
        """Send the scan."""

    def click(self, clicks: list[Sign]) -> None:
        """Make the last of the clicks, after the others."""

    def undo(self) -> None:
        """Take the last click back."""

    def reset(self) -> None:
        """Begin with another object."""

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask that the user sees: (D, H, W)."""

    def num_clicks(self) -> int | None:
        """Return how many clicks the server has; None where only the client has them."""

    def close(self) -> None:
        """End the session."""


class PythonClient:
    """Our own."""

    def __init__(self, address: str, token: str | None, volume: Volume, ca_file: Path | None = None) -> None:
        self._session = RemoteSession(address, token=token, ca_file=ca_file, timeout_seconds=TIMEOUT_SECONDS)
        self._ask(lambda: self._session.set_volume(volume))

    def click(self, clicks: list[Sign]) -> None:
        place, positive = clicks[-1]
        self._ask(lambda: self._session.click(place, positive=positive))

    def undo(self) -> None:
        self._ask(self._session.undo)

    def reset(self) -> None:
        self._ask(self._session.reset)

    def mask(self) -> NDArray[np.uint8]:
        return self._ask(self._session.mask).array

    def num_clicks(self) -> int | None:
        return len(self._session.objects[0].clicks)

    def close(self) -> None:
        self._session.close()

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except RemoteError as error:
            if error.status in (429, 503):
                raise BusyError from error
            raise


class _OverHttp:
    """What the clients that are rebuilt here share."""

    def __init__(self, address: str, token: str | None, ca_file: Path | None) -> None:
        self._http = httpx.Client(
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            verify=True if ca_file is None else ssl.create_default_context(cafile=ca_file),
        )
        self._address = address.rstrip("/")

    def _send(self, method: str, path: str, **words: object) -> httpx.Response:
        reply = self._http.request(method, f"{self._address}{path}", **words)
        if reply.status_code in (429, 503):
            raise BusyError
        if reply.status_code >= 400:
            raise RuntimeError(f"{method} {path.partition('?')[0]}: {reply.status_code} {reply.text}")
        return reply


class MonaiLabel(_OverHttp):
    """As 3D Slicer's MONAILabel module asks: an image by name, all clicks with every request."""

    def __init__(self, address: str, token: str | None, volume: Volume, ca_file: Path | None = None) -> None:
        super().__init__(address, token, ca_file)
        (self._model,) = self._send("GET", "/info/").json()["models"]
        self._image = f"image-{os.urandom(8).hex()}"
        self._shape, self._mask = volume.array.shape, np.zeros(volume.array.shape, np.uint8)
        self._clicks: list[Sign] = []
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "image.nii.gz"
            write_scan(volume, place)
            files = {"file": (place.name, place.read_bytes(), "application/octet-stream")}
        self._send("PUT", f"/datastore/?image={self._image}", files=files)

    def click(self, clicks: list[Sign]) -> None:
        signed = {sign: [place.to_ijk() for place, s in clicks if s is sign] for sign in (True, False)}
        params = {"foreground": signed[True], "background": signed[False], "result_extension": ".nii.gz"}
        target = f"/infer/{self._model}?image={self._image}&output=image"
        form = {"params": (None, json.dumps(params), "application/json")}
        reply = self._send("POST", target, files=form)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "result.nii.gz"
            place.write_bytes(reply.content)
            self._mask = read_stored(place).array.astype(np.uint8)
        self._clicks = list(clicks)

    def undo(self) -> None:
        if self._clicks[:-1]:
            self.click(self._clicks[:-1])
        else:
            self.reset()

    def reset(self) -> None:
        self._clicks, self._mask = [], np.zeros(self._shape, np.uint8)

    def mask(self) -> NDArray[np.uint8]:
        return self._mask

    def num_clicks(self) -> int | None:
        return None

    def close(self) -> None:
        self._send("DELETE", f"/datastore/?id={self._image}")
        self._http.close()


class ItkSnap(_OverHttp):
    """As ITK-SNAP asks: an image with its place, one click after the other, the whole mask back; no undo."""

    def __init__(self, address: str, token: str | None, volume: Volume, ca_file: Path | None = None) -> None:
        super().__init__(address, token, ca_file)
        self._id = self._send("GET", "/v2/start_session/clickvol").json()["session_id"]
        lps = volume.grid.affine_ijk_lps_mm
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        known = {
            "dimensions": volume.array.shape[::-1],
            "spacing": spacing.tolist(),
            "origin": lps[:3, 3].tolist(),
            "direction": (lps[:3, :3] / spacing).reshape(-1).tolist(),
            "components_per_pixel": 1,
        }
        content = gzip.compress(volume.array.astype("<f4").tobytes(), 1)
        form = {
            "file": ("image.gz", content, "application/gzip"),
            "metadata": ("metadata.json", json.dumps(known), "application/json"),
        }
        self._send("POST", f"/upload_raw/{self._id}?filename=upload.nii.gz", files=form)
        self._mask = np.zeros(volume.array.shape, np.uint8)

    def click(self, clicks: list[Sign]) -> None:
        place, positive = clicks[-1]
        where = "&".join(f"point={round(v)}" for v in place.to_ijk())
        target = f"/v2/process_point_interaction/{self._id}?{where}&foreground={str(positive).lower()}"
        data = gzip.decompress(base64.b64decode(self._send("GET", target).json()["result"]))
        self._mask = np.frombuffer(data, np.int8).reshape(self._mask.shape).astype(np.uint8)

    def undo(self) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        self._send("GET", f"/reset_interactions/{self._id}")
        self._mask = np.zeros_like(self._mask)

    def mask(self) -> NDArray[np.uint8]:
        return self._mask

    def num_clicks(self) -> int | None:
        return None

    def close(self) -> None:
        self._send("GET", f"/v2/end_session/{self._id}")
        self._http.close()


class NnInteractive:
    """The real client of napari and 3D Slicer, which keeps a mask and is told what changes in it."""

    def __init__(self, address: str, token: str | None, volume: Volume, ca_file: Path | None = None) -> None:
        from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

        if ca_file is not None:
            os.environ["SSL_CERT_FILE"] = str(ca_file)  # it has no word for it
        words = {"api_key": token, "read_timeout": TIMEOUT_SECONDS}
        self._session = self._ask(lambda: nnInteractiveRemoteInferenceSession(address, **words))
        spacing = [float(v) for v in volume.grid.spacing_dhw_mm]
        self._ask(lambda: self._session.set_image(volume.array[None], {"spacing": spacing}))
        self._mask = np.zeros(volume.array.shape, np.uint8)
        self._ask(lambda: self._session.set_target_buffer(self._mask))

    def click(self, clicks: list[Sign]) -> None:
        place, positive = clicks[-1]
        at = tuple(round(v) for v in (place.d, place.h, place.w))
        self._ask(lambda: self._session.add_point_interaction(at, positive))

    def undo(self) -> None:
        self._ask(self._session.undo)

    def reset(self) -> None:
        self._ask(self._session.reset_interactions)

    def mask(self) -> NDArray[np.uint8]:
        return self._mask.copy()

    def num_clicks(self) -> int | None:
        return None

    def close(self) -> None:
        self._session.close()

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Exception as error:
            if "ServerAtCapacity" in type(error).__name__ or "429" in str(error):
                raise BusyError from error
            raise


KINDS: dict[str, type[ViewerClient]] = {
    "Python": PythonClient,
    "MONAI Label": MonaiLabel,
    "nnInteractive": NnInteractive,
    "ITK-SNAP": ItkSnap,
}


@dataclass
class User:
    """What one user did and saw."""

    number: int
    kind: str
    phantom: Phantom
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    clicks: list[Sign] = field(default_factory=list)
    lost: int = 0
    mixed_up: int = 0
    compared: int = 0
    errors: list[str] = field(default_factory=list)


def patiently(user: User, ask: Callable[[], T]) -> T:
    """Ask again while the server says that it is busy; note how long the answer took."""
    while True:
        started_at = time.perf_counter()
        try:
            answer = ask()
        except BusyError:
            user.refused += 1
            time.sleep(0.5)
            continue
        user.seconds.append(time.perf_counter() - started_at)
        return answer


def work(user: User, address: str, until: float, min_steps: int, all_done: threading.Barrier) -> None:
    """Click until the time is over, then compare, when nobody else clicks any more."""
    random = np.random.default_rng(user.number)
    truth = user.phantom.truth.array
    inside, outside = np.argwhere(truth), np.argwhere(truth == 0)
    client = None
    try:
        client = patiently(user, lambda: KINDS[user.kind](address, None, user.phantom.volume))
        user.seconds.clear()  # sending a scan is no click
        steps = 0
        while steps < min_steps or time.monotonic() < until:
            if steps % MAX_STEPS == MAX_STEPS - 1:
                patiently(user, client.reset)
                user.clicks = []
            elif len(user.clicks) > 1 and user.kind != "ITK-SNAP" and random.random() < 0.2:
                patiently(user, client.undo)
                user.clicks.pop()
            else:
                positive = not user.clicks or bool(random.random() < 0.6)
                places = inside if positive else outside
                place = VoxelPoint(*map(float, places[random.integers(len(places))]))
                clicks = [*user.clicks, (place, positive)]
                patiently(user, lambda c=clicks: client.click(c))
                user.clicks = clicks
            steps += 1
    except Exception as error:
        user.errors.append(f"{user.kind}: {type(error).__name__} {error}")
    all_done.wait()
    if client is None or user.errors:
        return
    try:
        compare(user, client, address)
    except Exception as error:
        user.errors.append(f"{user.kind}, comparing: {type(error).__name__} {error}")


def compare(user: User, client: ViewerClient, address: str) -> None:
    """Count clicks that the server does not have, and voxels that a fresh session would not give."""
    waited = len(user.seconds)
    known = client.num_clicks()
    user.lost = 0 if known is None else abs(known - len(user.clicks))
    mask = client.mask()
    fresh = patiently(user, lambda: KINDS[user.kind](address, None, user.phantom.volume))
    sent = range(1, len(user.clicks) + 1) if user.kind != "MONAI Label" else [len(user.clicks)]
    for count in sent if user.clicks else ():
        patiently(user, lambda n=count: fresh.click(user.clicks[:n]))
    user.mixed_up = int(np.count_nonzero(fresh.mask() != mask))
    user.compared = int(mask.any())
    fresh.close()
    client.close()
    del user.seconds[waited:]  # nobody else clicked at that time


def resident_mb(pid: int) -> float:
    """Return the memory of a process; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start_server(words: list[str]) -> subprocess.Popen[str]:
    """Start `clickvol` in a new Python."""
    return subprocess.Popen([sys.executable, "-m", "clickvol", *words], stdout=subprocess.PIPE, text=True)


def run(arguments: argparse.Namespace, folder: Path, start: Start) -> int:
    """Serve, let the users click, print what came of it; return the exit code."""
    kinds = list(KINDS)
    users = [
        User(number, kinds[number % len(kinds)], make_phantom(number, shape_dhw=tuple(arguments.shape)))
        for number in range(arguments.sessions)
    ]
    words = ["--state-folder", folder / "state", "--port", "0", "--quiet", "--memory-mb", arguments.memory_mb]
    words += ["--sessions", arguments.sessions]
    words += ["--model", arguments.model] if arguments.model else []
    server = start(["serve", *map(str, words)])
    memory: list[float] = []
    try:
        address = "" if server.stdout is None else server.stdout.readline().strip().rstrip("/")
        if not address:
            return 1
        until = time.monotonic() + arguments.seconds
        all_done = threading.Barrier(len(users))
        words = (address, until, arguments.min_steps, all_done)
        threads = [threading.Thread(target=work, args=(user, *words)) for user in users]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(resident_mb(server.pid))
            time.sleep(SAMPLE_SECONDS)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()
    return report(users, memory, arguments)


def report(users: list[User], memory: list[float], arguments: argparse.Namespace) -> int:
    """Print the tables; return 1 if anything was lost or mixed up, or nothing was compared."""
    print("| client | sessions | answers | told to come again | errors | lost clicks | voxels that differ | "
          "waiting, median / 95 % / longest, s |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for kind in KINDS:
        of_kind = [user for user in users if user.kind == kind]
        seconds = sorted(s for user in of_kind for s in user.seconds) or [0.0]
        waiting = (
            f"{statistics.median(seconds):.2f} / {seconds[int(0.95 * len(seconds))]:.2f} / {seconds[-1]:.2f}"
        )
        numbers = [len(of_kind), sum(len(user.seconds) for user in of_kind)]
        numbers += [sum(user.refused for user in of_kind), sum(len(user.errors) for user in of_kind)]
        numbers += [sum(user.lost for user in of_kind), sum(user.mixed_up for user in of_kind)]
        print(f"| {kind} | {' | '.join(map(str, numbers))} | {waiting} |")
    third = max(1, len(memory) // 3)
    peaks = f"{max(memory[:third]):.0f} / {max(memory[-third:]):.0f} / {max(memory):.0f}"
    print(f"\nserver's memory, first third / last third / peak: {peaks} MiB; {arguments.seconds:g} s; "
          f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; "
          f"{sum(user.compared for user in users)} masks compared")  # fmt: skip
    errors = [error for user in users for error in user.errors]
    for error in errors[:5]:
        print(f"error: {error}", file=sys.stderr)
    is_bad = errors or any(user.lost or user.mixed_up for user in users)
    return int(bool(is_bad) or not any(user.compared for user in users))


def main(words: list[str] | None = None, start: Start = start_server) -> int:
    """Read the words, those of the command line if None, and run; `start` starts `clickvol` with its words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--min-steps", type=int, default=1, help="of each session, however long it takes")
    parser.add_argument("--memory-mb", type=int, default=4096)
    parser.add_argument("--shape", type=int, nargs=3, default=(60, 128, 128), help="of the scans, D H W")
    parser.add_argument("--model")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="clickvol-load-") as folder:
        return run(arguments, Path(folder), start)


if __name__ == "__main__":
    sys.exit(main())
