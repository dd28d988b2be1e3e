/* An order book kept from deltas, in one block of memory of fixed size.
 *
 * Kinds, named as in market data: by price (L2: a change names side and price), by order (L3: a change names an order,
 * levels add up their orders) and top (L1: one order per side). The resulting book is that of NautilusTrader 1.231 for
 * every change that NautilusTrader can express; the rules, each tested against it:
 *
 *  ADD of an order that is there   replaces it, also at another price
 *  ADD of size 0                   refused (invalid)
 *  UPDATE of an unknown order      adds it (counter `unknown`); of a price: sets the level
 *  UPDATE with another price       moves the order
 *  UPDATE of size 0                deletes it; of something unknown: nothing
 *  DELETE                          by order, the id decides: price and size are not read; by price, side and price
 *  DELETE of something unknown     nothing (counter `unknown`)
 *  CLEAR                           empties both sides, whatever side it names
 *  order id 0, or flag TF_FLAG_MBP, in a book by order      the price is the order's name
 *  flag TF_FLAG_TOB in a book by order; every change in a book of the top      the side is the order's name
 *  snapshot of several levels      in a book of the top: ADDs with TF_FLAG_SNAPSHOT up to TF_FLAG_LAST leave the best
 *  one id on both sides            two orders
 *  side 0 in a book by order       UPDATE and DELETE by id find the side; refused when that is none or both
 *  side 0 elsewhere                refused
 *
 * What NautilusTrader leaves to others is ruled here:
 *
 *  Invalid: an unknown action, NaN, a price that is read and not within +-TF_BOOK_VALUE_MAX (zero and negative prices
 *      are valid), a size that is read and not in [0, TF_BOOK_VALUE_MAX]. Refused and counted; TF_FLAG_LAST of a
 *      refused change still ends its event.
 *  Time: a change earlier than the latest one is dropped and counted, or applied and counted with
 *      TF_BOOK_KEEP_BACKWARD (what NautilusTrader does). CLEAR and changes of a snapshot are exempt: CLEAR sets the
 *      clock back, and orders of a snapshot may carry the times at which they were made.
 *  Sequence (0: none): a number below the last one, or with TF_BOOK_CONTIGUOUS one that skips, makes the book stale
 *      until the next CLEAR; changes are still applied. Changes of one event share a number or count up. In a snapshot
 *      the numbers are not compared, and without TF_BOOK_CONTIGUOUS not even kept.
 *  Whole: after a change with TF_FLAG_LAST, until the next change without it.
 *  Crossed: best bid above best ask when the book is whole (equal is locked, which is allowed). Nothing is removed: an
 *      auction may be crossed for hours. The flag goes with the next whole book that is not.
 *  Overflow: a new level on a full side pushes out that side's worst level, or stays out if it is itself the worst. A
 *      new order in a full table pushes out the worst level of the side with more levels (its own at a tie), with all
 *      its orders, or stays out if it is no better than its own side's worst. The flag `truncated` stays until CLEAR.
 *      Levels better than the best one that was ever pushed out are still right, all others may lack orders:
 *      tf_book_exact_levels counts the former.
 *
 * Cost: O(log levels) to find a level, searching from the best one, and the move of the levels that are better than it;
 * expected O(1) for an order; a level pushed out costs the move of a whole side. CLEAR of a book by order wipes the
 * table of ids. No allocation. */
#ifndef TENGRI_BOOK_H
#define TENGRI_BOOK_H

#include "events.h"
#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TF_FLAG_TOB 64u /* the change is of the best level only */
#define TF_FLAG_MBP 16u /* the change is of a whole level */

#define TF_BOOK_MAX_LEVELS 65536u
#define TF_BOOK_MAX_ORDERS 16777216u
#define TF_BOOK_VALUE_MAX 1e18

typedef enum tf_book_kind { TF_BOOK_TOP = 1, TF_BOOK_BY_PRICE = 2, TF_BOOK_BY_ORDER = 3 } tf_book_kind;

/* Rules, as bits. */
#define TF_BOOK_CONTIGUOUS 1u    /* sequence numbers go up by one from event to event */
#define TF_BOOK_KEEP_BACKWARD 2u /* apply changes whose time runs backward */

typedef struct tf_book_options {
    uint32_t kind;   /* tf_book_kind */
    uint32_t rules;
    uint32_t levels; /* per side, 1 to TF_BOOK_MAX_LEVELS; not read for TF_BOOK_TOP */
    uint32_t orders; /* of both sides, 1 to TF_BOOK_MAX_ORDERS; read for TF_BOOK_BY_ORDER only */
} tf_book_options;

/* State, as bits. */
#define TF_BOOK_WHOLE 1u
#define TF_BOOK_STALE 2u
#define TF_BOOK_CROSSED 4u
#define TF_BOOK_TRUNCATED 8u

typedef struct tf_book_counters {
    uint64_t applied;      /* changes accepted, those that changed nothing included */
    uint64_t events;       /* of them, ends of an event */
    uint64_t clears;
    uint64_t invalid;      /* refused */
    uint64_t backward;     /* time ran backward: dropped, or applied with TF_BOOK_KEEP_BACKWARD */
    uint64_t out_of_order; /* a sequence number below the last one */
    uint64_t gaps;         /* a sequence number that skipped */
    uint64_t unknown;      /* named a level or order that was not there */
    uint64_t crossed;      /* whole but crossed */
    uint64_t overflow;     /* levels pushed out, and new levels or orders that stayed out */
} tf_book_counters;

typedef struct tf_book_level {
    double price;
    double size;   /* the exact sum of the orders, rounded once, if 106 binary digits hold it */
    uint64_t orders;
} tf_book_level;

typedef struct tf_book tf_book; /* position independent: memcpy of the block is an exact copy */

tf_status tf_book_size(const tf_book_options *options, size_t *bytes);
/* Builds an empty book inside `memory` (64-byte aligned, at least the size above). No allocation. */
tf_status tf_book_init(void *memory, size_t bytes, const tf_book_options *options, tf_book **out);
/* Empty as after init, counters included. */
void tf_book_reset(tf_book *book);
size_t tf_book_bytes(const tf_book *book);
/* TF_OK when `memory` holds a book of exactly these options that keeps every rule of its own: sorted levels, positive
 * sizes, levels equal to the sum of their orders, every order found under its id, nothing out of range. O(orders). */
tf_status tf_book_check(const void *memory, size_t bytes, const tf_book_options *options);

/* 1: accepted. 0: refused or dropped, see above. */
int tf_book_apply(tf_book *book, const tf_delta *delta);

uint32_t tf_book_state(const tf_book *book);
void tf_book_counters_of(const tf_book *book, tf_book_counters *out);
uint64_t tf_book_sequence(const tf_book *book);

/* `side`: +1 bids, -1 asks. `rank` 0 is the best level. 0 when there is no such level. */
uint32_t tf_book_levels(const tf_book *book, int side);
uint32_t tf_book_exact_levels(const tf_book *book, int side);
int tf_book_level_at(const tf_book *book, int side, uint32_t rank, tf_book_level *out);
int tf_book_level_of(const tf_book *book, int side, double price, tf_book_level *out);
/* Sizes of the best `depth` levels together. */
double tf_book_cumulative(const tf_book *book, int side, uint32_t depth);
uint32_t tf_book_orders(const tf_book *book); /* 0 in a book by price */

/* The best ten levels, with the latest event time and the slot and ts_init of the last accepted change. Fills `out`
 * whatever the state is, and returns the state. */
uint32_t tf_book_depth(const tf_book *book, tf_depth10 *out);

#ifdef __cplusplus
}
#endif
#endif
