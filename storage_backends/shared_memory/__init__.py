"""A limiter in memory that the processes of one machine share: they enforce one limit, exactly, without a server.

    limiter = SharedMemoryLimiter()  # before the processes are forked
    limiter = SharedMemoryLimiter("/dev/shm/shop-limits")  # or in each of them, wherever they come from

`limiter` decides, by `learnflow_core.limiter`'s arithmetic; `table` is where the buckets are, and whose turn it is.
"""

from storage_backends.shared_memory.limiter import SharedMemoryLimiter

__all__ = ["SharedMemoryLimiter"]
