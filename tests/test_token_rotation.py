"""Refresh tokens that are replaced when they are used: retries are forgiven, theft is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sessions import (
    DAY_S,
    another_process,
    carries_on,
    next_token,
    refresh,
    revoke,
    sign_in,
    signed_in,
    somebody,
    works,
)
from tests.world import World, open_world


@pytest.fixture(params=["compatible", "strict"])
async def rotating(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(refresh_rotation=request.param) as world:
        yield world


@pytest.fixture
async def compatible() -> AsyncIterator[World]:
    async with open_world(refresh_rotation="compatible") as world:
        yield world


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    async with open_world(refresh_rotation="strict") as world:
        yield world


class TestRotation:
    async def test_the_reply_also_carries_a_refresh_token(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        reply = await refresh(rotating, tokens["refresh_token"])
        assert reply.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
        assert reply.json()["refresh_token"] != tokens["refresh_token"]

    async def test_parallel_and_retried_refreshes_get_the_same_successor(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        replies = [await refresh(rotating, tokens["refresh_token"]) for _ in range(2)]
        async with another_process(rotating) as client:
            body = {"refresh_token": tokens["refresh_token"]}
            replies.append(await client.post("/v1/auth/refresh", json=body))
        rotating.clock.advance(30)
        replies.append(await refresh(rotating, tokens["refresh_token"]))
        assert len({reply.json()["refresh_token"] for reply in replies}) == 1

    async def test_a_chain_can_go_on_beyond_thirty_days(self, rotating: World) -> None:
        token = (await signed_in(rotating))["refresh_token"]
        for _ in range(4):
            rotating.clock.advance(29 * DAY_S)
            token = await next_token(rotating, token)
            await rotating.sweep()
        assert await carries_on(rotating, token)

    async def test_revoking_any_token_of_the_chain_ends_all_of_it(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        second = await next_token(rotating, tokens["refresh_token"])
        third = await next_token(rotating, second)
        await revoke(rotating, second)
        assert not await carries_on(rotating, third)
        assert not await works(rotating, tokens["access_token"])

    async def test_compatible_a_client_that_knows_nothing_of_rotation_keeps_working(self, compatible: World) -> None:
        tokens = await signed_in(compatible)
        for _ in range(29):
            compatible.clock.advance(DAY_S)
            assert await carries_on(compatible, tokens["refresh_token"])

    async def test_compatible_the_first_use_of_the_successor_retires_its_parent(self, compatible: World) -> None:
        first = (await signed_in(compatible))["refresh_token"]
        second = await next_token(compatible, first)
        assert await next_token(compatible, first) == second
        third = await next_token(compatible, second)
        assert await next_token(compatible, second) == third

    async def test_compatible_the_use_of_a_retired_token_ends_the_family(self, compatible: World) -> None:
        tokens = await signed_in(compatible)
        second = await next_token(compatible, tokens["refresh_token"])
        third = await next_token(compatible, second)
        assert not await carries_on(compatible, tokens["refresh_token"])
        assert not await carries_on(compatible, third)
        assert not await carries_on(compatible, second)
        assert not await works(compatible, tokens["access_token"])

    async def test_theft_ends_its_family_and_no_other(self, compatible: World) -> None:
        await somebody(compatible, await compatible.account())
        stolen, other = await sign_in(compatible), await sign_in(compatible)
        await next_token(compatible, await next_token(compatible, stolen["refresh_token"]))
        assert not await carries_on(compatible, stolen["refresh_token"])
        assert await works(compatible, other["access_token"])
        assert await carries_on(compatible, other["refresh_token"])

    async def test_strict_a_parent_answers_with_the_same_successor_for_thirty_seconds(self, strict: World) -> None:
        first = (await signed_in(strict))["refresh_token"]
        second = await next_token(strict, first)
        strict.clock.advance(30)
        assert await next_token(strict, first) == second

    async def test_strict_after_thirty_seconds_its_use_ends_the_family(self, strict: World) -> None:
        tokens = await signed_in(strict)
        second = await next_token(strict, tokens["refresh_token"])
        strict.clock.advance(30.001)
        assert not await carries_on(strict, tokens["refresh_token"])
        assert not await carries_on(strict, second)
        assert not await works(strict, tokens["access_token"])
