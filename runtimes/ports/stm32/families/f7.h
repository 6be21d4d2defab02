/* STM32F7: RM0385 (F74x F75x), RM0410 (F76x F77x), RM0431 (F72x F73x). One speed for all: 216 MHz,
 * above 180 with over-drive (RM0385 4.1.4); APB limits of the data sheets. */
#define CLOCK_LIMIT_f722 216000000u
#define CLOCK_LIMIT_f746 216000000u
#define CLOCK_LIMIT_f767 216000000u
#define APB1_LIMIT_f722 54000000u
#define APB1_LIMIT_f746 54000000u
#define APB1_LIMIT_f767 54000000u
#define APB2_LIMIT_f722 108000000u
#define APB2_LIMIT_f746 108000000u
#define APB2_LIMIT_f767 108000000u
#define OVER_DRIVE_ABOVE_f722 180000000u
#define OVER_DRIVE_ABOVE_f746 180000000u
#define OVER_DRIVE_ABOVE_f767 180000000u
#define SCALE_BITS_f722 3u
#define SCALE_BITS_f746 3u
#define SCALE_BITS_f767 3u

/* RM0385 3.7.1: prefetch and ART accelerator; both serve the flash at its ITCM address only, the
 * core's caches serve it at 0x08000000. */
#define FLASH_SPEED (1u << 8 | 1u << 9)
/* RM0385 41.1, RM0410 45.1; RM0431 37.1. */
#define UID_BASE_f722 0x1FF07A10u
#define UID_BASE_f746 0x1FF0F420u
#define UID_BASE_f767 0x1FF0F420u
#define UID_BASE LINE(UID_BASE_)

#include "f4_f7.h"

static void start_memory(void) { start_caches(); }

static int instruction_cache_on(void) { return (SCB_CCR & CCR_INSTRUCTION_CACHE) != 0; }
static int data_cache_on(void) { return (SCB_CCR & CCR_DATA_CACHE) != 0; }
