/* Quotas as the accelerator reads them: their numbers once, in the order asked. */

#ifndef LEARNFLOW_PLAN_H
#define LEARNFLOW_PLAN_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t interval, capacity, longest, burst;
    uint32_t kind;          /* the limiter's number for the quota's `bucket`, from 1 */
} Term;

/* Kept by the limiter, which often sees the same tuple again, and by every decision made under it. */
typedef struct {
    size_t users;
    PyObject *quotas;       /* a tuple of them */
    bool names_differ;
    bool remembered;        /* its longest debts are among those that the limiter remembers */
    Py_ssize_t length;
    Term terms[];
} Plan;

/* The fields of a Quota that are read, as interned strings. */
typedef struct {
    PyObject *name, *bucket, *burst, *interval_ns, *capacity_ns, *longest_ns;
} Fields;

static inline Plan *
plan_shared(Plan *plan)
{
    plan->users++;
    return plan;
}

static inline void
plan_done(Plan *plan)
{
    if (plan != NULL && --plan->users == 0) {
        Py_DECREF(plan->quotas);
        PyMem_Free(plan);
    }
}

static int
read_number(PyObject *quota, PyObject *field, int64_t *number)
{
    PyObject *value = PyObject_GetAttr(quota, field);
    if (value == NULL) {
        return -1;
    }
    *number = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

/* The number that `kinds`, a dict, has for the quota's bucket: the next one if it is new. */
static int
read_kind(PyObject *quota, const Fields *fields, PyObject *kinds, uint32_t *kind)
{
    PyObject *bucket = PyObject_GetAttr(quota, fields->bucket);
    PyObject *next = bucket != NULL ? PyLong_FromSsize_t(PyDict_GET_SIZE(kinds) + 1) : NULL;
    PyObject *number = next != NULL ? PyDict_SetDefault(kinds, bucket, next) : NULL;
    if (number != NULL) {
        *kind = (uint32_t)PyLong_AsUnsignedLong(number);
    }
    Py_XDECREF(bucket);
    Py_XDECREF(next);
    return number != NULL ? 0 : -1;
}

static int
read_term(PyObject *quota, const Fields *fields, PyObject *kinds, Term *term)
{
    return read_kind(quota, fields, kinds, &term->kind) < 0
        || read_number(quota, fields->burst, &term->burst) < 0
        || read_number(quota, fields->interval_ns, &term->interval) < 0
        || read_number(quota, fields->capacity_ns, &term->capacity) < 0
        || read_number(quota, fields->longest_ns, &term->longest) < 0 ? -1 : 0;
}

static int
names_differ(PyObject *quotas, const Fields *fields)
{
    PyObject *names = PySet_New(NULL);
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(quotas); i++) {
        PyObject *name = PyObject_GetAttr(PyTuple_GET_ITEM(quotas, i), fields->name);
        if (name == NULL || PySet_Add(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    int differ = names == NULL ? -1 : PySet_GET_SIZE(names) == PyTuple_GET_SIZE(quotas);
    Py_XDECREF(names);
    return differ;
}

/* A plan with one user; NULL with an exception, that of the quota which could not be read. */
static Plan *
new_plan(PyObject *sequence, const Fields *fields, PyObject *kinds)
{
    PyObject *quotas = PySequence_Tuple(sequence);
    if (quotas == NULL) {
        return NULL;
    }
    Py_ssize_t length = PyTuple_GET_SIZE(quotas);
    Plan *plan = PyMem_Malloc(sizeof(Plan) + (size_t)length * sizeof(Term));
    if (plan == NULL) {
        Py_DECREF(quotas);
        PyErr_NoMemory();
        return NULL;
    }
    *plan = (Plan){.users = 1, .quotas = quotas, .length = length};
    int read = 0;
    for (Py_ssize_t i = 0; read == 0 && i < length; i++) {
        read = read_term(PyTuple_GET_ITEM(quotas, i), fields, kinds, &plan->terms[i]);
    }
    int differ = read == 0 ? names_differ(quotas, fields) : -1;
    if (differ < 0) {
        plan_done(plan);
        return NULL;
    }
    plan->names_differ = differ;
    return plan;
}

#endif
