"""Eight clients at once: no click is lost, no mask is another's, and memory keeps its bound."""

import threading

import numpy as np
import pytest

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.session import InteractiveSession
from clickvol.phantoms.phantom import make_phantom
from clickvol.server.app import create_app
from clickvol.server.client import RemoteError, RemoteSession
from clickvol.server.settings import ServerSettings
from reference.live_server import served

NUM_CLIENTS = 8
SHAPE_DHW = (10, 24, 24)


@pytest.mark.slow
def test_eight_clients_click_at_once(tmp_path, tiny_model):
    phantoms = [make_phantom(seed, shape_dhw=SHAPE_DHW) for seed in range(NUM_CLIENTS)]
    settings = ServerSettings(state_folder=tmp_path / "state", memory_mb=1)
    app = create_app(tiny_model, settings)
    result, failed, most_bytes = {}, [], []

    def work(number, address):
        phantom = phantoms[number]
        background = VoxelPoint(phantom.inside.d, phantom.inside.h, phantom.inside.w + 2)
        try:
            with RemoteSession(address) as session:
                session.set_volume(phantom.volume, modality="CT")
                session.click(phantom.inside)
                session.click(background)
                session.undo()
                session.click(background, positive=False)
                (known,) = session.objects
                result[number] = (session.mask().array, len(known.clicks))
        except Exception as error:
            failed.append(error)
        most_bytes.append(app.state.sessions.num_bytes)

    with served(app) as address:
        threads = [threading.Thread(target=work, args=(n, address)) for n in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    masks = []
    for number, phantom in enumerate(phantoms):
        local = InteractiveSession(tiny_model)
        local.set_volume(phantom.volume, modality="CT")
        local.click(phantom.inside)
        background = VoxelPoint(phantom.inside.d, phantom.inside.h, phantom.inside.w + 2)
        local.click(background, positive=False)
        mask, num_clicks = result[number]
        assert num_clicks == 2
        # The grid was rounded to the 32 bits of NIfTI on its way, which may turn a voxel at the threshold.
        assert np.count_nonzero(mask != local.mask().array) <= 2
        masks.append(mask)
    differences = [np.count_nonzero(one != other) for one in masks for other in masks if one is not other]
    assert min(differences) > 20  # so that a mix-up would have shown
    # One session may be larger than all are allowed, but no two are kept.
    assert max(most_bytes) < 2 * settings.memory_bytes


@pytest.mark.slow
def test_a_full_queue_refuses_and_loses_nothing(tmp_path, tiny_model):
    phantom = make_phantom(1, shape_dhw=SHAPE_DHW)
    settings = ServerSettings(state_folder=tmp_path / "state", max_waiting=1)
    answered, refused = [], []

    def work(address):
        with RemoteSession(address) as session:
            while True:
                try:
                    if not session._opened:
                        session.set_volume(phantom.volume)
                    session.click(phantom.inside)
                except RemoteError as error:
                    refused.append(error.status)
                    threading.Event().wait(0.05)
                    continue
                answered.append(len(session.objects[0].clicks))
                return

    with served(create_app(tiny_model, settings)) as address:
        threads = [threading.Thread(target=work, args=(address,)) for _ in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answered == [1] * NUM_CLIENTS
    assert set(refused) == {429}
