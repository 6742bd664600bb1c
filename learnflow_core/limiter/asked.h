/* What is asked: a key, quotas and a cost, read and checked. */

#ifndef LEARNFLOW_ASKED_H
#define LEARNFLOW_ASKED_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "limiter.h"
#include "plan.h"
#include "table.h"

static Plan *
plan_of(Limiter *self, PyObject *quotas)
{
    if (!PyTuple_CheckExact(quotas)) {
        return new_plan(quotas, &self->state->fields, self->kinds);
    }
    Plan **place = &self->plans[((uintptr_t)quotas / 16) % PLANS];
    if (*place != NULL && (*place)->quotas == quotas) {
        return plan_shared(*place);
    }
    Plan *plan = new_plan(quotas, &self->state->fields, self->kinds);
    if (plan != NULL) {
        Plan *before = *place;
        *place = plan_shared(plan);
        plan_done(before);
    }
    return plan;
}

/* Remember the longest debt that a plan under which is taken can leave in each of its buckets; see settled(). */
static int
remember_longest(Limiter *self, Plan *plan)
{
    size_t room = (size_t)PyDict_GET_SIZE(self->kinds) + 1;
    if (room > self->longest_room) {
        int64_t *longest = PyMem_Realloc(self->longest, 2 * room * sizeof(int64_t));
        if (longest == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memset(longest + self->longest_room, 0, (2 * room - self->longest_room) * sizeof(int64_t));
        self->longest = longest;
        self->longest_room = 2 * room;
    }
    for (Py_ssize_t i = 0; i < plan->length; i++) {
        int64_t *longest = &self->longest[plan->terms[i].kind];
        if (*longest < plan->terms[i].longest) {
            *longest = plan->terms[i].longest;
        }
    }
    plan->remembered = true;
    return 0;
}

/* The key as the table knows it: its text alone, whatever a class derived from str makes of it. A new reference. */
static PyObject *
text_of(PyObject *key)
{
    if (PyUnicode_CheckExact(key)) {
        return Py_NewRef(key);
    }
    if (PyUnicode_Check(key)) {
        return PyUnicode_FromObject(key);
    }
    PyErr_Format(PyExc_TypeError, "key: a str is needed, not %.200s", Py_TYPE(key)->tp_name);
    return NULL;
}

static int
read_cost(Ask *ask)
{
    if (!PyLong_CheckExact(ask->cost)) {
        PyErr_Format(PyExc_TypeError, "cost: an int is needed, not %.200s", Py_TYPE(ask->cost)->tp_name);
        return -1;
    }
    int overflow;
    ask->tokens = PyLong_AsLongLongAndOverflow(ask->cost, &overflow);
    if (overflow < 0 || (overflow == 0 && ask->tokens < 1)) {
        PyErr_SetString(PyExc_ValueError,
                        "cost: it must be at least 1; what was taken is given back by a refund");
        return -1;
    }
    if (overflow > 0) {
        ask->tokens = INT64_MAX;
    }
    return 0;
}

static int
check_plan(const Ask *ask)
{
    if (!ask->plan->names_differ) {
        PyErr_SetString(PyExc_ValueError, "quotas: each needs a name of its own");
        return -1;
    }
    for (Py_ssize_t i = 0; i < ask->plan->length; i++) {
        if (ask->tokens > ask->plan->terms[i].burst) {
            PyErr_Format(PyExc_ValueError, "cost: %R never holds as much, so waiting cannot help",
                         PyTuple_GET_ITEM(ask->plan->quotas, i));
            return -1;
        }
    }
    return 0;
}

static void
close_ask(Ask *ask)
{
    Py_XDECREF(ask->text);
    Py_XDECREF(ask->slot);
    plan_done(ask->plan);
}

/* close_ask() follows the next two, whatever comes of them. */
static int
ask_for_key(Limiter *self, Ask *ask, PyObject *key)
{
    Py_XSETREF(ask->text, text_of(key));
    Py_CLEAR(ask->slot);
    if (ask->text == NULL) {
        return -1;
    }
    ask->tag = tag_of(&self->table, ask->text);
    return 0;
}

static int
ask_under_quotas(Limiter *self, Ask *ask, PyObject *quotas, PyObject *cost, bool takes)
{
    ask->cost = cost != NULL ? cost : self->state->one;
    if (read_cost(ask) < 0) {
        return -1;
    }
    ask->plan = plan_of(self, quotas);
    if (ask->plan == NULL || check_plan(ask) < 0) {
        return -1;
    }
    return takes && !ask->plan->remembered ? remember_longest(self, ask->plan) : 0;
}

#endif
