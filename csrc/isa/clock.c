/* A timer cheap enough for calls of a few hundred nanoseconds: the time stamp counter on x86, else the system clock. */
#define _POSIX_C_SOURCE 200809L
#include "tengri/isa.h"

#include <time.h>

static uint64_t system_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t tf_timer_ticks(void) {
#if defined(__x86_64__)
    uint32_t low, high, core;
    /* rdtscp waits for earlier instructions, lfence keeps later ones from starting before it. */
    __asm__ volatile("rdtscp\n\tlfence" : "=a"(low), "=d"(high), "=c"(core)::"memory");
    (void)core;
    return ((uint64_t)high << 32) | low;
#else
    return system_ns();
#endif
}

double tf_timer_ns_per_tick(void) {
#if defined(__x86_64__)
    const uint64_t ns0 = system_ns(), tick0 = tf_timer_ticks();
    uint64_t ns1 = ns0;
    while (ns1 - ns0 < 20000000u) ns1 = system_ns(); /* 20 ms: the two reads at either end weigh less than 1e-5 */
    const uint64_t tick1 = tf_timer_ticks();
    return tick1 > tick0 ? (double)(ns1 - ns0) / (double)(tick1 - tick0) : 1.0;
#else
    return 1.0;
#endif
}
