/* What the families' descriptions share: registers by address, waiting with an end, and the blocks
 * that are the same in all of them. */
#ifndef EDGECOMPRESS_STM32_H
#define EDGECOMPRESS_STM32_H

#include <stdint.h>

#if !defined(PORT_FAMILY) || !defined(PORT_LINE) || !defined(PORT_UART) || !defined(PORT_UART_BASE)
#error "The stm32 port is compiled with what its settings.toml lists."
#endif

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define JOIN_WORDS(one, two) one##two
#define JOIN(one, two) JOIN_WORDS(one, two)

/* LINE(CLOCK_LIMIT_) is CLOCK_LIMIT_f446. */
#define LINE(word) JOIN(word, PORT_LINE)

/* The divider, a power of two up to 8, that brings `hz` to at most `limit`; its bits in PPRE. */
#define DIVIDER(hz, limit) \
  ((hz) <= (limit) ? 1u : (hz) <= 2 * (limit) ? 2u : (hz) <= 4 * (limit) ? 4u : 8u)
#define PPRE_BITS(divider) \
  ((divider) == 1u ? 0u : (divider) == 2u ? 4u : (divider) == 4u ? 5u : 6u)

/* How often a flag is read before it is given up: PLLs and regulators take well under a millisecond,
 * a slow crystal tens of them. 200000 reads are 100 ms at 16 MHz. */
#define PATIENCE 10000u
#define CRYSTAL_PATIENCE 200000u

static int wait(volatile uint32_t *from, uint32_t mask, uint32_t value, uint32_t tries) {
  while (tries-- != 0)
    if ((*from & mask) == value) return 1;
  return 0;
}

/* Whether the bits of `mask` became `value` in time. */
static int wait_until(volatile uint32_t *from, uint32_t mask, uint32_t value) {
  return wait(from, mask, value, PATIENCE);
}

static int wait_for_crystal(volatile uint32_t *from, uint32_t ready) {
  return wait(from, ready, ready, CRYSTAL_PATIENCE);
}

/* Enables clocks; the read waits until they run (errata sheets: delay after an RCC clock enabling). */
static void enable(volatile uint32_t *in, uint32_t bits) {
  *in |= bits;
  (void)*in;
}

static void replace(volatile uint32_t *in, uint32_t mask, uint32_t bits) {
  *in = (*in & ~mask) | bits;
}

/* APB and AHB dividers as RCC encodes them: 0xxx not divided; HPRE skips 32. */
static uint32_t divided(uint32_t hz, uint32_t ppre) {
  return ppre & 4u ? hz >> ((ppre & 3u) + 1u) : hz;
}

static uint32_t ahb_divided(uint32_t hz, uint32_t hpre) {
  static const uint8_t shifts[] = {1, 2, 3, 4, 6, 7, 8, 9};
  return hpre & 8u ? hz >> shifts[hpre & 7u] : hz;
}

#endif
