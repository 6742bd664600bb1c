"""What payment services tell by themselves, and what comes of it.

News comes late, twice and in any order, so it is taken as a reason to look: what became of a payment is asked of the
service, in the way of the sweep. Only what cannot become otherwise is believed: that all of the money went back.
"""

from __future__ import annotations

from typing import Literal

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import Context, PaymentNews, Storage
from learnflow_core.usecases.payments import Gateways, carry_on, paid_late, returned

Heard = Literal["done", "for_the_operator"]
"""Whether somebody has to see to it: money that moved as the books do not say, or a dispute to be answered."""


async def hear(storage: Storage, gateways: Gateways, news: PaymentNews, ctx: Context) -> Heard:
    """Act on news. Safe to repeat and with several at once.

    Money that came in for a payment which had been given up is given back, by the sweep when the service does not
    answer now. `service_unavailable`, and the news has to come again, when money went back of which the service does
    not say now whether it had come.
    """
    if news.kind in ("disputed", "not_returned"):
        return "for_the_operator"
    payment = await carry_on(storage, gateways, news.payment_id, ctx)
    ctx = ctx.later()
    if news.kind == "kept":  # of who left meanwhile it was believed that the bank gives the money back
        return "for_the_operator" if payment is not None and payment.status == "refunded" else "done"
    if news.kind == "returned":
        if payment is not None and payment.status in ("charging", "reversing"):
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        done = payment is not None and await storage.write(lambda tx: returned(tx, news.payment_id, ctx))
        return "done" if done else "for_the_operator"
    if news.kind == "paid" and payment is not None and payment.status == "declined":
        await storage.write(lambda tx: paid_late(tx, news.payment_id, ctx))
        await carry_on(storage, gateways, news.payment_id, ctx)
        return "for_the_operator"
    return "done"
