/* What the accelerator keeps: for the module, for a limiter, and while one decision is made. */

#ifndef LEARNFLOW_LIMITER_H
#define LEARNFLOW_LIMITER_H

#include <Python.h>
#include <pythread.h>
#include <stdbool.h>
#include <stdint.h>

#include "decision.h"
#include "plan.h"
#include "table.h"

#define PLANS 16

typedef struct {
    PyTypeObject *decision_type;
    PyObject *decisions_type;
    PyObject *given_back, *not_given_back, *was_reset;
    PyObject *one;
    PyObject *monotonic_ns;
    Fields fields;
    uint64_t receipts;      /* how many were given out, each of them once */
    uint64_t forks;         /* how many lie between this process and the one that imported the module */
    unsigned long forker;   /* the thread that did the last of them, the only one to go on here */
} State;

typedef struct {
    PyObject_HEAD
    State *state;           /* NULL until __init__ has succeeded */
    Table table;
    int64_t max_buckets, overflow_buckets;
    PyObject *clock;        /* NULL: the system's, read without Python */
    PyObject *kinds;        /* the number of each `bucket` of a quota */
    int64_t *longest;       /* by that number, the longest debt of the plans under which was asked to take */
    size_t longest_room;
    PyObject *secret;
    Plan *plans[PLANS];     /* of the tuples of quotas seen last */
    uint64_t receipt;       /* of decisions that can still be refunded */
    long long overflow_hits;
    PyThread_type_lock turn; /* held around a clock written in Python, */
    unsigned long holder;    /* by this thread, */
    uint64_t holder_forks;   /* of this process */
    PyObject *weakrefs;
} Limiter;

/* What one decision is asked for, once it is known to make sense. */
typedef struct {
    PyObject *text;         /* the key as an exact str: a reference of its own */
    uint32_t tag;
    Plan *plan;             /* a use of its own */
    PyObject *cost;
    int64_t tokens;         /* the cost; without quotas any number, as nobody reads it */
    int64_t now;
    PyObject *slot;         /* the name of the buckets shared with other keys; NULL while there is no need to know */
    uint32_t slot_tag;
} Ask;

#endif
