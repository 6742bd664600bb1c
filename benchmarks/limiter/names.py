"""The names of rows that others are compared with, or that goals are about."""

PURE, ACCELERATED = "learnflow pure", "learnflow accelerated"
EMPTY, LOOK_UP = "an empty call", "dict.get + clock"
BETWEEN_PROCESSES = "learnflow between processes"
PING, SCRIPT = "PING, raw", "the same script, raw"


def in_the_server(name: str) -> str:
    """The name of a limiter where it is asked as the HTTP server asks it."""
    return f"{name}, with all fields of the reply"


def without_a_loop(name: str) -> str:
    """The name of a limiter over Valkey where it is asked by its synchronous interface."""
    return f"{name}, sync"


def in_a_loop(name: str) -> str:
    """The name of a limiter over Valkey where it is asked by its asynchronous interface."""
    return f"{name}, async"


SHARED, SHARED_ASYNC = without_a_loop("learnflow"), in_a_loop("learnflow")
LEASED, LEASED_ASYNC = without_a_loop("learnflow leased"), in_a_loop("learnflow leased")
REDIS_PY, REDIS_PY_ASYNC = without_a_loop("the same script by redis-py"), in_a_loop("the same script by redis-py")
