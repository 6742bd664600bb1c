/* The table of buckets: what table.py keeps in dicts and deques, in plain C.
 *
 * Nothing here runs Python code or starts a garbage collection, so under the interpreter's lock each function is one
 * step to every thread. (Keys are exact strs: to compare, hash or free one calls nobody.) What needs memory reserves it
 * first, so that whatever changes the table cannot fail.
 *
 * A block has two buckets of one key, all that most keys have; a key with more has a chain of blocks. An index leads
 * from a key to its chain. Blocks lie in chunks that never move, and are named by number, which is half a pointer;
 * a bucket is named by its block's number times two, plus its half. Every bucket has its turn in one queue, linked
 * through the blocks. Number 0 is no block, so that what begins as zeros begins empty.
 */

#ifndef LEARNFLOW_TABLE_H
#define LEARNFLOW_TABLE_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CHUNK_BITS 10
#define CHUNK_BLOCKS ((size_t)1 << CHUNK_BITS)
#define MOST_BUCKETS ((size_t)1 << 31)

typedef struct {
    PyObject *key;          /* one reference for the whole chain */
    int64_t full_at[2];
    uint32_t kind[2];       /* which name and period; 0: there is no bucket in this half */
    uint32_t turn_after[2]; /* the bucket whose turn comes next; 0: none */
    uint32_t more;          /* the next block of the chain; of a free block, the next free one */
    bool shared;
} Block;

/* A slot leads to the chain that begins with block `first`. `tag` has bits of the key's hash, by which most other keys
 * are told apart unseen. */
typedef struct {
    uint32_t tag;
    uint32_t first;
} Slot;

#define EMPTY 0
#define MOVED UINT32_MAX

/* Open addressing with linear probing. It grows without a pause: the slots of the old array move to the new one a few
 * at a time, and until they all have, a key is in one or the other. */
typedef struct {
    Slot *slots, *old;
    size_t mask, old_mask;
    size_t to_move;
    size_t keys;
} Index;

typedef struct {
    Index own, common;      /* buckets of one key each; those that unknown keys share at the cap */
    Block **chunks;
    size_t chunks_made, chunks_room;
    size_t fresh;           /* the first block that was never used */
    uint32_t free;          /* the first of those that were, and are free again */
    size_t free_blocks;
    uint32_t first_turn, last_turn;
    size_t buckets, shared_buckets;
    uint64_t flip, factor;  /* secret, so that nobody can choose keys that crowd together in the index */
} Table;

static inline Block *
block_at(const Table *table, uint32_t number)
{
    return &table->chunks[number >> CHUNK_BITS][number & (CHUNK_BLOCKS - 1)];
}

/* ---- Keys ---- */

static inline bool
same_text(PyObject *one, PyObject *other)
{
    if (one == other) {
        return true;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(one);
    int width = PyUnicode_KIND(one);
    return length == PyUnicode_GET_LENGTH(other) && width == (int)PyUnicode_KIND(other)
        && memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)length * (size_t)width) == 0;
}

static inline uint32_t
tag_of(const Table *table, PyObject *key)
{
    Py_hash_t hash = ((PyASCIIObject *)key)->hash;
    if (hash == -1) {
        hash = PyObject_Hash(key);
    }
    return (uint32_t)((((uint64_t)hash ^ table->flip) * table->factor) >> 32);
}

/* ---- The index ---- */

static inline Slot *
probe(const Table *table, Slot *slots, size_t mask, PyObject *key, uint32_t tag)
{
    for (size_t at = tag & mask; slots[at].first != EMPTY; at = (at + 1) & mask) {
        Slot *slot = &slots[at];
        if (slot->tag == tag && slot->first != MOVED && same_text(block_at(table, slot->first)->key, key)) {
            return slot;
        }
    }
    return NULL;
}

static inline Slot *
slot_of(const Table *table, const Index *index, PyObject *key, uint32_t tag)
{
    Slot *slot = probe(table, index->slots, index->mask, key, tag);
    return slot == NULL && index->old != NULL ? probe(table, index->old, index->old_mask, key, tag) : slot;
}

static inline void
put_slot(Index *index, Slot slot)
{
    size_t at = slot.tag & index->mask;
    while (index->slots[at].first != EMPTY) {
        at = (at + 1) & index->mask;
    }
    index->slots[at] = slot;
}

static void
move_slots(Index *index, size_t most)
{
    for (; most > 0 && index->old != NULL; most--) {
        Slot *slot = &index->old[index->to_move];
        if (slot->first != EMPTY && slot->first != MOVED) {
            put_slot(index, *slot);
            slot->first = MOVED;
        }
        if (index->to_move++ == index->old_mask) {
            PyMem_RawFree(index->old);
            index->old = NULL;
        }
    }
}

/* Slots behind the emptied one close up, so that no search stops short of them. In the old array it stays a hurdle. */
static void
empty_slot(Index *index, Slot *slot)
{
    index->keys--;
    if (slot < index->slots || slot > index->slots + index->mask) {
        slot->first = MOVED;
        return;
    }
    size_t hole = (size_t)(slot - index->slots);
    for (size_t at = (hole + 1) & index->mask; index->slots[at].first != EMPTY; at = (at + 1) & index->mask) {
        size_t from_home = (at - index->slots[at].tag) & index->mask;
        if (from_home >= ((at - hole) & index->mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].first = EMPTY;
}

/* At most three quarters of the slots are used; when that many are, every slot of the array before has long moved. */
static bool
reserve_slot(Index *index)
{
    if ((index->keys + 1) * 4 <= (index->mask + 1) * 3) {
        return true;
    }
    size_t size = (index->mask + 1) * 2;
    Slot *slots = PyMem_RawCalloc(size, sizeof(Slot));
    if (slots == NULL) {
        return false;
    }
    move_slots(index, SIZE_MAX);
    index->old = index->slots;
    index->old_mask = index->mask;
    index->to_move = 0;
    index->slots = slots;
    index->mask = size - 1;
    return true;
}

/* ---- Blocks ---- */

static bool
add_chunk(Table *table)
{
    if (table->chunks_made == table->chunks_room) {
        size_t room = table->chunks_room * 2 + 4;
        Block **chunks = PyMem_RawRealloc(table->chunks, room * sizeof(Block *));
        if (chunks == NULL) {
            return false;
        }
        table->chunks = chunks;
        table->chunks_room = room;
    }
    Block *chunk = PyMem_RawMalloc(CHUNK_BLOCKS * sizeof(Block));
    if (chunk == NULL) {
        return false;
    }
    table->chunks[table->chunks_made++] = chunk;
    return true;
}

static bool
reserve_blocks(Table *table, size_t blocks)
{
    while (table->free_blocks + table->chunks_made * CHUNK_BLOCKS < table->fresh + blocks) {
        if (table->fresh + blocks > MOST_BUCKETS / 2 || !add_chunk(table)) {
            return false;
        }
    }
    return true;
}

static uint32_t
new_block(Table *table, PyObject *key, bool shared)
{
    uint32_t number = table->free;
    if (number != 0) {
        table->free = block_at(table, number)->more;
        table->free_blocks--;
    }
    else {
        number = (uint32_t)table->fresh++;
    }
    *block_at(table, number) = (Block){.key = key, .shared = shared};
    return number;
}

static void
free_block(Table *table, uint32_t number)
{
    block_at(table, number)->more = table->free;
    table->free = number;
    table->free_blocks++;
}

/* ---- Buckets ---- */

/* The first block of the key's chain; 0 if it has none. */
static inline uint32_t
chain_of(const Table *table, const Index *index, PyObject *key, uint32_t tag)
{
    Slot *slot = slot_of(table, index, key, tag);
    return slot == NULL ? 0 : slot->first;
}

/* The bucket of that kind in a chain, or NULL. */
static inline int64_t *
bucket_in(const Table *table, uint32_t chain, uint32_t kind)
{
    for (uint32_t number = chain; number != 0;) {
        Block *block = block_at(table, number);
        if (block->kind[0] == kind) {
            return &block->full_at[0];
        }
        if (block->kind[1] == kind) {
            return &block->full_at[1];
        }
        number = block->more;
    }
    return NULL;
}

static void
queue_up(Table *table, uint32_t bucket)
{
    block_at(table, bucket >> 1)->turn_after[bucket & 1] = 0;
    if (table->last_turn != 0) {
        block_at(table, table->last_turn >> 1)->turn_after[table->last_turn & 1] = bucket;
    }
    else {
        table->first_turn = bucket;
    }
    table->last_turn = bucket;
}

/* A block of the key with a free half, where a slot and a block are reserved. */
static uint32_t
block_for(Table *table, Index *index, PyObject *key, uint32_t tag)
{
    uint32_t first = chain_of(table, index, key, tag);
    if (first == 0) {
        first = new_block(table, Py_NewRef(key), index == &table->common);
        put_slot(index, (Slot){tag, first});
        index->keys++;
        move_slots(index, 8);
        return first;
    }
    for (uint32_t number = first; number != 0; number = block_at(table, number)->more) {
        if (block_at(table, number)->kind[0] == 0 || block_at(table, number)->kind[1] == 0) {
            return number;
        }
    }
    Block *head = block_at(table, first);
    uint32_t number = new_block(table, head->key, head->shared);
    block_at(table, number)->more = head->more;
    head->more = number;
    return number;
}

/* Add a bucket that is not there, where a slot and a block are reserved. */
static void
add_bucket(Table *table, Index *index, PyObject *key, uint32_t tag, uint32_t kind, int64_t full_at)
{
    uint32_t number = block_for(table, index, key, tag);
    Block *block = block_at(table, number);
    int half = block->kind[0] == 0 ? 0 : 1;
    block->kind[half] = kind;
    block->full_at[half] = full_at;
    queue_up(table, number << 1 | (uint32_t)half);
    table->buckets++;
    table->shared_buckets += block->shared;
}

/* Take an empty block out of its chain; the key goes with the last one. */
static void
drop_block(Table *table, uint32_t number)
{
    Block *block = block_at(table, number);
    Index *index = block->shared ? &table->common : &table->own;
    Slot *slot = slot_of(table, index, block->key, tag_of(table, block->key));
    if (slot->first != number) {
        Block *before = block_at(table, slot->first);
        while (before->more != number) {
            before = block_at(table, before->more);
        }
        before->more = block->more;
    }
    else if (block->more != 0) {
        slot->first = block->more;
    }
    else {
        empty_slot(index, slot);
        Py_DECREF(block->key);
    }
    free_block(table, number);
}

/* Look at the two buckets whose turn it is, and forget those that are full again. */
static void
forget_some(Table *table, int64_t now)
{
    for (size_t looks = table->buckets < 2 ? table->buckets : 2; looks > 0; looks--) {
        uint32_t bucket = table->first_turn;
        Block *block = block_at(table, bucket >> 1);
        int half = bucket & 1;
        table->first_turn = block->turn_after[half];
        if (table->first_turn == 0) {
            table->last_turn = 0;
        }
        if (block->full_at[half] > now) {
            queue_up(table, bucket);
            continue;
        }
        block->kind[half] = 0;
        table->buckets--;
        table->shared_buckets -= block->shared;
        if (block->kind[1 - half] == 0) {
            drop_block(table, bucket >> 1);
        }
    }
}

/* ---- The whole ---- */

static bool
open_table(Table *table, uint64_t flip, uint64_t factor)
{
    *table = (Table){.fresh = 1, .flip = flip, .factor = factor | 1};
    table->own.mask = 63;
    table->common.mask = 7;
    table->own.slots = PyMem_RawCalloc(table->own.mask + 1, sizeof(Slot));
    table->common.slots = PyMem_RawCalloc(table->common.mask + 1, sizeof(Slot));
    return table->own.slots != NULL && table->common.slots != NULL;
}

static void
free_slots(const Table *table, Slot *slots, size_t mask)
{
    for (size_t at = 0; slots != NULL && at <= mask; at++) {
        if (slots[at].first != EMPTY && slots[at].first != MOVED) {
            Py_DECREF(block_at(table, slots[at].first)->key);
        }
    }
    PyMem_RawFree(slots);
}

static void
close_table(Table *table)
{
    free_slots(table, table->own.slots, table->own.mask);
    free_slots(table, table->own.old, table->own.old_mask);
    free_slots(table, table->common.slots, table->common.mask);
    free_slots(table, table->common.old, table->common.old_mask);
    for (size_t chunk = 0; chunk < table->chunks_made; chunk++) {
        PyMem_RawFree(table->chunks[chunk]);
    }
    PyMem_RawFree(table->chunks);
}

#endif
