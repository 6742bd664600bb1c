/* Decisions of the accelerator: the fields that `learnflow_core.limiter.Decision` describes, kept as C keeps them.
 *
 * The class derives from that one, which computes the figures. Its objects take no part in garbage collection, for they
 * refer to nothing that refers back: a key, quotas, a cost.
 */

#ifndef LEARNFLOW_DECISION_H
#define LEARNFLOW_DECISION_H

#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#include "plan.h"

typedef struct {
    PyObject_VAR_HEAD
    PyObject *key;
    PyObject *cost;
    Plan *plan;
    int64_t now;
    uint64_t receipt;       /* 0: there is nothing to give back */
    char allowed;
    int64_t full_at[];
} Decision;

static Decision *
new_decision(PyTypeObject *type, PyObject *key, Plan *plan, PyObject *cost)
{
    Decision *decision = PyObject_NewVar(Decision, type, plan->length);
    if (decision != NULL) {
        decision->key = Py_NewRef(key);
        decision->cost = Py_NewRef(cost);
        decision->plan = plan_shared(plan);
    }
    return decision;
}

static void
decision_dealloc(Decision *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(self->key);
    Py_DECREF(self->cost);
    plan_done(self->plan);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Never called. A class that has this of its own does not inherit from its base that its objects are collected. */
static int
decision_traverse(Decision *Py_UNUSED(self), visitproc Py_UNUSED(visit), void *Py_UNUSED(arg))
{
    return 0;
}

static int
decision_bool(Decision *self)
{
    return self->allowed;
}

static PyObject *
decision_quotas(Decision *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->plan->quotas);
}

static PyObject *
decision_full_at(Decision *self, void *Py_UNUSED(closure))
{
    PyObject *instants = PyTuple_New(Py_SIZE(self));
    for (Py_ssize_t i = 0; instants != NULL && i < Py_SIZE(self); i++) {
        PyObject *instant = PyLong_FromLongLong(self->full_at[i]);
        if (instant == NULL) {
            Py_CLEAR(instants);
            break;
        }
        PyTuple_SET_ITEM(instants, i, instant);
    }
    return instants;
}

static PyObject *
decision_receipt(Decision *self, void *Py_UNUSED(closure))
{
    return self->receipt ? PyLong_FromUnsignedLongLong(self->receipt) : Py_NewRef(Py_None);
}

static PyMemberDef decision_members[] = {
    {"key", T_OBJECT_EX, offsetof(Decision, key), READONLY, NULL},
    {"cost", T_OBJECT_EX, offsetof(Decision, cost), READONLY, NULL},
    {"now_ns", T_LONGLONG, offsetof(Decision, now), READONLY, NULL},
    {"allowed", T_BOOL, offsetof(Decision, allowed), READONLY, NULL},
    {NULL},
};

static PyGetSetDef decision_getset[] = {
    {"quotas", (getter)decision_quotas, NULL, NULL, NULL},
    {"full_at_ns", (getter)decision_full_at, NULL, NULL, NULL},
    {"receipt", (getter)decision_receipt, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot decision_slots[] = {
    {Py_tp_doc, "A decision of the limiter in memory, made in C."},
    {Py_tp_dealloc, decision_dealloc},
    {Py_tp_traverse, decision_traverse},
    {Py_nb_bool, decision_bool},
    {Py_tp_members, decision_members},
    {Py_tp_getset, decision_getset},
    {0, NULL},
};

static PyType_Spec decision_spec = {
    .name = "_learnflow_limiter.MemoryDecision",
    .basicsize = offsetof(Decision, full_at),
    .itemsize = sizeof(int64_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = decision_slots,
};

#endif
