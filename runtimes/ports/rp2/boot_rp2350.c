/* What RP2350's boot ROM looks for in the first 4 KiB of flash: a block that says "an executable for
 * RP2350, secure, this processor" and closes the chain of blocks on itself (RP2350 datasheet 5.9.5
 * "Minimum viable image metadata"). The ROM leaves flash readable in place, then takes stack and
 * entry from the vector table at the image's start (Arm) or jumps to the start (RISC-V). */
#include "port.h"

#if PORT_CHIP == 2350

#if defined(__riscv)
#define IMAGE_TYPE 0x1101u
#else
#define IMAGE_TYPE 0x1021u
#endif

__attribute__((section(".vectors.after"), used, aligned(4))) static const uint32_t image_def[] = {
    0xFFFFDED3u,                /* begin */
    IMAGE_TYPE << 16 | 0x0142u, /* IMAGE_TYPE, 1 word */
    0x000001FFu,                /* last item, 1 word before it */
    0,                          /* the next block is this one */
    0xAB123579u,                /* end */
};
#endif
