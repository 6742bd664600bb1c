"""Who is asking: a bearer token (JWT), and the user it names."""

from __future__ import annotations

import os
from typing import Annotated

import jwt
from fastapi import Depends, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from slowapi import Limiter
from slowapi.util import get_remote_address

from benchmarks.peers.fastapi_sqlalchemy.database import Session
from benchmarks.peers.fastapi_sqlalchemy.models import User

SECRET = os.environ["SECRET_KEY"]
QUOTAS = "100000000/minute;10000000000/day"
"""As high as ours in the same run, so that nobody is refused."""

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/v1/auth/token")


def caller(request: Request) -> str:
    """Whose quotas a request takes from."""
    return request.headers.get("authorization") or get_remote_address(request)


limiter = Limiter(key_func=caller, headers_enabled=True)


async def get_current_user(token: Annotated[str, Depends(oauth2_scheme)], session: Session) -> User:
    """The active user whose token it is, or 401."""
    refused = HTTPException(401, "Could not validate credentials", headers={"WWW-Authenticate": "Bearer"})
    try:
        payload = jwt.decode(token, SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        raise refused from error
    user = await session.get(User, payload["sub"])
    if user is None or not user.is_active:
        raise refused
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
