/* STM32F4: RM0090 (F405 407 415 417 427 429 437 439), RM0368 (F401), RM0383 (F411), RM0390 (F446).
 * Speeds: the data sheets' general operating conditions. */
#define CLOCK_LIMIT_f401 84000000u
#define CLOCK_LIMIT_f405 168000000u
#define CLOCK_LIMIT_f411 100000000u
#define CLOCK_LIMIT_f429 180000000u
#define CLOCK_LIMIT_f446 180000000u
#define APB1_LIMIT_f401 42000000u
#define APB1_LIMIT_f405 42000000u
#define APB1_LIMIT_f411 50000000u
#define APB1_LIMIT_f429 45000000u
#define APB1_LIMIT_f446 45000000u
#define APB2_LIMIT_f401 84000000u
#define APB2_LIMIT_f405 84000000u
#define APB2_LIMIT_f411 100000000u
#define APB2_LIMIT_f429 90000000u
#define APB2_LIMIT_f446 90000000u
/* RM0090 5.1.4: over-drive of the F42x, F43x; RM0390 5.1.4 of the F446. The others have none. */
#define OVER_DRIVE_ABOVE_f401 CLOCK_LIMIT_f401
#define OVER_DRIVE_ABOVE_f405 CLOCK_LIMIT_f405
#define OVER_DRIVE_ABOVE_f411 CLOCK_LIMIT_f411
#define OVER_DRIVE_ABOVE_f429 168000000u
#define OVER_DRIVE_ABOVE_f446 168000000u
/* PWR_CR.VOS: the F405 has its upper bit only as a reserved one, the F401's best is 10. */
#define SCALE_BITS_f401 2u
#define SCALE_BITS_f405 1u
#define SCALE_BITS_f411 3u
#define SCALE_BITS_f429 3u
#define SCALE_BITS_f446 3u

/* RM0090 3.9.1: prefetch, instruction cache, data cache of the ART accelerator. */
#define FLASH_SPEED (1u << 8 | 1u << 9 | 1u << 10)
/* RM0090 39.1. */
#define UID_BASE 0x1FFF7A10u
#define UART_IS_OLD

#include "f4_f7.h"

static void start_memory(void) {}

static int instruction_cache_on(void) { return (FLASH_ACR >> 9 & 1u) != 0; }
static int data_cache_on(void) { return (FLASH_ACR >> 10 & 1u) != 0; }
