"""Signing in, staying so, and ending it."""

from __future__ import annotations

from learnflow_core.errors import Code
from learnflow_http import signing_in, wire
from learnflow_http.operations.row import ANYONE, Operation

AUTHENTICATION = (
    Operation(
        method="POST",
        path="/v1/auth/token",
        name="createToken",
        summary="Sign in with email and password, or mint tokens for a user with an API key",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_password_or_key,
        run=signing_in.create_token,
        reply=wire.TokenPair,
        body=signing_in.SignIn,
        roles=ANYONE,
        secret=True,
        errors=(
            Code.MISSING_TOKEN,
            Code.INVALID_CREDENTIALS,
            Code.INSUFFICIENT_SCOPE,
            Code.FORBIDDEN,
            Code.USER_NOT_FOUND,
        ),
    ),
    Operation(
        method="POST",
        path="/v1/auth/refresh",
        name="refreshToken",
        summary="Get a new access token",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_refresh_token,
        run=signing_in.refresh_token,
        reply=wire.RefreshedToken,
        body=signing_in.Refresh,
        secret=True,
    ),
    Operation(
        method="POST",
        path="/v1/auth/revoke",
        name="revokeToken",
        summary="Revoke a token, whatever it is (RFC 7009)",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_nobody,
        run=signing_in.revoke_token,
        reply=wire.Empty,
        body=signing_in.Revocation,
        public=True,
        revokes=True,
    ),
)
