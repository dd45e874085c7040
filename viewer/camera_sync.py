"""Linked cameras: what is dragged in one pane moves the other.

Setting a camera makes its browser report that pose back, a moment later or, over a slow line, much later.  Followed,
such an echo would pull the pane in hand back to where it was.  So a report that repeats a pose we sent is not
followed, and the pane that moved last keeps the lead for a short while.
"""

import time
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
from viser import CameraHandle, ClientHandle, ViserServer

ECHOES_KNOWN = 128  # poses sent to one browser that it may still report back: seconds of dragging
ECHO_TOLERANCE = 1e-3  # in units of the scene radius: float32 there and back
LEAD_SECONDS = 0.3  # longer than a round trip to a remote browser, shorter than changing panes by hand


class LeaderLock:
    """Which of the panes is being dragged right now."""

    def __init__(self, hold_s: float = LEAD_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold_s = hold_s
        self._clock = clock
        self._leader: object = None
        self._last_move = float("-inf")

    def lead(self, pane: object) -> bool:
        """True if `pane` leads, or takes the lead because nobody has moved for a while."""
        now = self._clock()
        if pane is not self._leader and now - self._last_move < self._hold_s:
            return False
        self._leader, self._last_move = pane, now
        return True


class CameraLink:
    """Keeps the cameras of several viser servers together while `enabled`."""

    def __init__(self, servers: tuple[ViserServer, ...], lock: LeaderLock | None = None) -> None:
        self.enabled = True
        self._servers = servers
        self._lock = lock or LeaderLock()
        self._sent: WeakKeyDictionary[ClientHandle, deque[np.ndarray]] = WeakKeyDictionary()
        for server in servers:
            self._watch(server)

    def _watch(self, server: ViserServer) -> None:
        async def joined(client: ClientHandle) -> None:
            arrived = False

            async def moved(camera: CameraHandle) -> None:
                nonlocal arrived
                first, arrived = not arrived, True
                if not self.enabled:
                    return
                if first:  # a new or reloaded pane takes the pose the others already have
                    for other in self._others(server)[:1]:
                        self._copy(other.camera, client)
                elif not self._is_echo(client, camera) and self._lock.lead(server):
                    for follower in self._others(server):
                        self._copy(camera, follower)

            client.camera.on_update(moved)

        server.on_client_connect(joined)

    def _is_echo(self, client: ClientHandle, camera: CameraHandle) -> bool:
        """Whether the pose is one that we gave this browser ourselves."""
        pose = _pose(camera)
        return any(np.allclose(pose, sent, atol=ECHO_TOLERANCE) for sent in tuple(self._sent.get(client, ())))

    def _copy(self, source: CameraHandle, target: ClientHandle) -> None:
        """Give the browser the position, aim, up and field of view of `source`, in one message."""
        self._sent.setdefault(target, deque(maxlen=ECHOES_KNOWN)).append(_pose(source))
        camera = target.camera
        with target.atomic():
            camera.position = source.position
            camera.look_at = source.look_at
            camera.up_direction = source.up_direction
            camera.fov = source.fov

    def _others(self, server: ViserServer) -> list[ClientHandle]:
        others = (other for other in self._servers if other is not server)
        return [client for other in others for client in other.get_clients().values()]

    def align(self) -> None:
        """Bring every pane to the first pane's camera, as when the link is switched on again."""
        first, *_ = self._servers
        clients = list(first.get_clients().values())
        if clients and self._lock.lead(first):
            for follower in self._others(first):
                self._copy(clients[0].camera, follower)


def _pose(camera: CameraHandle) -> np.ndarray:  # [6] position, look_at
    return np.concatenate([camera.position, camera.look_at])
