"""Linked cameras, with browsers that answer late."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from viewer.camera_sync import CameraLink, LeaderLock


class Camera:
    """A browser's camera as the server knows it."""

    def __init__(self) -> None:
        self.position = np.array([3.0, 3.0, 3.0])
        self.look_at = np.zeros(3)
        self.up_direction = np.array([0.0, 0.0, 1.0])
        self.fov = 1.0
        self.moved: Callable[[Camera], Awaitable[None]] | None = None

    def on_update(self, callback: Callable[["Camera"], Awaitable[None]]) -> None:
        self.moved = callback


class Client:
    def __init__(self) -> None:
        self.camera = Camera()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        yield

    def report(self, position: list[float] | np.ndarray) -> None:
        """What a browser does when its camera stands there."""
        self.camera.position = np.array(position, dtype=float)
        assert self.camera.moved is not None
        asyncio.run(self.camera.moved(self.camera))  # pyright: ignore[reportArgumentType]


class Server:
    """As much of a viser server as the link uses."""

    def __init__(self) -> None:
        self._clients: dict[int, Client] = {}
        self._joined: Callable[[Client], Awaitable[None]] | None = None

    def on_client_connect(self, callback: Callable[[Client], Awaitable[None]]) -> None:
        self._joined = callback

    def get_clients(self) -> dict[int, Client]:
        return self._clients

    def join(self, client: Client) -> Client:
        self._clients[len(self._clients)] = client
        assert self._joined is not None
        asyncio.run(self._joined(client))  # pyright: ignore[reportArgumentType]
        client.report(client.camera.position)
        return client


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def panes(now: list[float]) -> tuple[CameraLink, Client, Client]:
    left, right = Server(), Server()
    link = CameraLink((left, right), LeaderLock(clock=lambda: now[0]))  # pyright: ignore[reportArgumentType]
    return link, left.join(Client()), right.join(Client())


Panes = tuple[CameraLink, Client, Client]


def test_what_is_dragged_moves_the_other(panes: Panes) -> None:
    _, left, right = panes
    left.report([1, 2, 3])
    assert np.allclose(right.camera.position, [1, 2, 3])


def test_a_late_echo_does_not_pull_the_dragged_pane_back(panes: Panes, now: list[float]) -> None:
    _, left, right = panes
    path = [np.array([3 - 0.1 * step, 3, 3]) for step in range(1, 20)]
    for position in path:
        left.report(position)
    now[0] = 5.0  # long after the lead has lapsed, the slow browser reports an early part of the way
    right.report(path[3] + 1e-5)
    assert np.allclose(left.camera.position, path[-1])


def test_a_hand_on_the_other_pane_takes_over(panes: Panes, now: list[float]) -> None:
    _, left, right = panes
    left.report([1, 2, 3])
    now[0] = 5.0
    right.report([0, 2, 3])
    assert np.allclose(left.camera.position, [0, 2, 3])


def test_apart_means_apart_and_linking_again_brings_them_together(panes: Panes) -> None:
    link, left, right = panes
    link.enabled = False
    left.report([1, 2, 3])
    assert np.allclose(right.camera.position, [3, 3, 3])
    link.enabled = True
    link.align()
    assert np.allclose(right.camera.position, [1, 2, 3])


def test_a_reloaded_pane_takes_the_others_pose(now: list[float]) -> None:
    left, right = Server(), Server()
    _link = CameraLink((left, right), LeaderLock(clock=lambda: now[0]))  # pyright: ignore[reportArgumentType]
    left.join(Client()).report([1, 2, 3])
    assert np.allclose(right.join(Client()).camera.position, [1, 2, 3])


def test_the_pane_that_moved_leads_until_it_rests() -> None:
    now = [0.0]
    lock = LeaderLock(hold_s=0.3, clock=lambda: now[0])
    assert lock.lead("left")
    now[0] = 0.2
    assert not lock.lead("right")
    assert lock.lead("left")  # still dragging: the lead goes on
    now[0] = 0.45
    assert not lock.lead("right")
    now[0] = 0.55
    assert lock.lead("right")  # the left pane rested, now a hand is on the right one
    assert not lock.lead("left")
