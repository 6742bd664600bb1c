"""Rate limits in a program of your own: `python examples/embed_limiter.py`. Needs the standard library only."""

from learnflow_core.limiter import LimitExceeded, MemoryLimiter, Quota, limited, seconds_up

PLAN = (Quota.per_minute(3), Quota.per_day(1_000))
limiter = MemoryLimiter()


@limited(limiter, PLAN, key=lambda sender, *_recipients: sender, cost=lambda _sender, *recipients: len(recipients))
def send(sender: str, *recipients: str) -> None:
    """Each recipient costs the sender one token of the minute and of the day, or none of either."""
    print(f"{sender}: sent to {', '.join(recipients)}")


# A decorator limits a function: what is refused is not called.
send("ada", "ben")
send("ben", "ada")  # another key: another bucket
try:
    send("ada", "ben", "cleo", "dan")
except LimitExceeded as refusal:
    print(f"ada: {refusal}")

# The engine itself answers with a decision, which is true when allowed.
decision = limiter.hit("ada", PLAN, cost=2)
print(f"ada: {'allowed' if decision else 'refused'}, {decision.remaining} of {decision.limit} left")
decision = limiter.hit("ada", PLAN)
print(f"ada: {'allowed' if decision else 'refused'}, passes in {seconds_up(decision.retry_after_ns)} s")

# What did not count is given back, once.
decision = limiter.hit("cleo", PLAN, cost=3)
print("cleo:", limiter.refund(decision), limiter.refund(decision))

# To look costs nothing; a reset fills the buckets.
print("ada:", [f"{state.remaining} of {state.limit} a {state.name}" for state in limiter.peek("ada", PLAN).states])
limiter.reset("ada", PLAN)
print("ada:", [f"{state.remaining} of {state.limit} a {state.name}" for state in limiter.peek("ada", PLAN).states])

# Many keys in one call, each with a decision of its own.
print([decision.allowed for decision in limiter.hit_many(["ada", "ben", "ada", "ben", "ada"], PLAN[:1], cost=2)])
