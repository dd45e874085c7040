"""Linked cameras: what is dragged in one pane moves the other.

Setting a camera makes its browser report the new pose back a moment later.  Without care the two panes would then
pull at each other, so the pane that moved leads for a short while and reports from the other are not followed.
"""

import time
from collections.abc import Callable

from viser import CameraHandle, ClientHandle, ViserServer

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
        for server in servers:
            self._watch(server)

    def _watch(self, server: ViserServer) -> None:
        async def joined(client: ClientHandle) -> None:
            arrived = False

            async def moved(camera: CameraHandle) -> None:
                nonlocal arrived
                if not self.enabled:
                    arrived = True
                elif arrived:
                    self._lead(server, camera)
                else:  # a new or reloaded pane takes the pose the others already have
                    arrived = True
                    self._adopt(server, camera)

            client.camera.on_update(moved)

        server.on_client_connect(joined)

    def _lead(self, server: ViserServer, camera: CameraHandle) -> None:
        if self._lock.lead(server):
            for follower in self._others(server):
                copy_pose(camera, follower.camera)

    def _adopt(self, server: ViserServer, camera: CameraHandle) -> None:
        for other in self._others(server)[:1]:
            copy_pose(other.camera, camera)

    def _others(self, server: ViserServer) -> list[ClientHandle]:
        others = (other for other in self._servers if other is not server)
        return [client for other in others for client in other.get_clients().values()]

    def align(self) -> None:
        """Bring every pane to the first pane's camera, as when the link is switched on again."""
        first, *_ = self._servers
        clients = list(first.get_clients().values())
        if clients and self._lock.lead(first):
            for follower in self._others(first):
                copy_pose(clients[0].camera, follower.camera)


def copy_pose(source: CameraHandle, target: CameraHandle) -> None:
    """Give `target` the position, aim, up and field of view of `source`, in one message."""
    with target.client.atomic():
        target.position = source.position
        target.look_at = source.look_at
        target.up_direction = source.up_direction
        target.fov = source.fov
