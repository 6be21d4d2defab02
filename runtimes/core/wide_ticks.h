/* A 64-bit clock from a 32-bit counter that only goes up, read at least once per wrap. */
#ifndef EDGECOMPRESS_WIDE_TICKS_H
#define EDGECOMPRESS_WIDE_TICKS_H

#include <stdint.h>

/* For a port's port_ticks alone, which is never inlined: every reading is then taken by the same
 * instructions, so that what surrounds it cancels out of a difference. */
static inline uint64_t wide_ticks(uint32_t count) {
  static uint32_t last_count;
  static uint64_t elapsed_ticks;
  /* Unsigned subtraction is right across a wrap. */
  elapsed_ticks += (uint32_t)(count - last_count);
  last_count = count;
  return elapsed_ticks;
}

#endif
