"""Rate limits in a program of your own: `python examples/embed_limiter.py`. Needs the standard library only."""

from learnflow_core.limiter import Decision, MemoryLimiter, Quota

PLAN = (Quota.per_minute(3), Quota.per_day(1_000))
limiter = MemoryLimiter()


def send_newsletter(customer: str, *, recipients: int = 1) -> Decision:
    """Take one token for each recipient from the customer's minute and day, or none from either."""
    decision = limiter.hit(customer, PLAN, cost=recipients)
    if decision:
        print(f"{customer}: sent to {recipients}, {decision.remaining} more at once")
    else:
        seconds = -(-decision.retry_after_ns // 1_000_000_000)
        print(f"{customer}: not sent, passes in {seconds} s")
    return decision


send_newsletter("ada")
bounced = send_newsletter("ada", recipients=2)
send_newsletter("ada")
send_newsletter("ben")  # another key: another bucket

limiter.refund(bounced)  # the mail server refused it, so it does not count
send_newsletter("ada")

for state in limiter.peek("ada", PLAN).states:
    print(f"{state.name}: {state.remaining} of {state.limit} left")
