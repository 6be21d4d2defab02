/* Registers every Cortex-M has at the same place, and what ports do with them. Armv7-M Architecture
 * Reference Manual (DDI 0403) B3.2 and C1.8; Armv8-M (DDI 0553) agrees. Caches: B2.2.7 and the
 * Cortex-M7 Technical Reference Manual (DDI 0489). */
#ifndef EDGECOMPRESS_CORTEX_M_H
#define EDGECOMPRESS_CORTEX_M_H

#include <stdint.h>

#define CORE_REGISTER(address) (*(volatile uint32_t *)(address))

#define SCB_CCR CORE_REGISTER(0xE000ED14u)
#define SCB_CCSIDR CORE_REGISTER(0xE000ED80u)
#define SCB_CSSELR CORE_REGISTER(0xE000ED84u)
#define SCB_ICIALLU CORE_REGISTER(0xE000EF50u)
#define SCB_DCISW CORE_REGISTER(0xE000EF60u)
#define CCR_DATA_CACHE (1u << 16)
#define CCR_INSTRUCTION_CACHE (1u << 17)

#define DEMCR CORE_REGISTER(0xE000EDFCu)
#define DEMCR_TRACE (1u << 24)
#define DWT_CTRL CORE_REGISTER(0xE0001000u)
#define DWT_CYCCNT CORE_REGISTER(0xE0001004u)
#define DWT_LAR CORE_REGISTER(0xE0001FB0u)
#define DWT_UNLOCK 0xC5ACCE55u
#define DWT_CTRL_CYCLES 1u

static inline void core_barrier(void) { __asm__ volatile("dsb\n isb" ::: "memory"); }

/* The cycle counter from zero. The lock is there on a Cortex-M7; elsewhere the write is ignored. */
static inline void start_cycle_counter(void) {
  DEMCR |= DEMCR_TRACE;
  DWT_LAR = DWT_UNLOCK;
  DWT_CYCCNT = 0;
  DWT_CTRL |= DWT_CTRL_CYCLES;
}

/* Both caches of a Cortex-M7, which hold anything after reset and are invalidated first. */
static inline void start_caches(void) {
  uint32_t geometry, set, way, way_shift;
  SCB_ICIALLU = 0;
  SCB_CSSELR = 0;
  core_barrier();
  geometry = SCB_CCSIDR;
  way = (geometry >> 3) & 0x3FFu;
  way_shift = (uint32_t)__builtin_clz(way);
  do {
    for (set = (geometry >> 13) & 0x7FFFu; set != 0xFFFFFFFFu; set--)
      SCB_DCISW = way << way_shift | set << ((geometry & 7u) + 4u);
  } while (way-- != 0);
  core_barrier();
  SCB_CCR |= CCR_INSTRUCTION_CACHE | CCR_DATA_CACHE;
  core_barrier();
}

#endif
