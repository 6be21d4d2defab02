/* What RP2040's boot ROM wants at the start of flash: 252 bytes of code and their CRC-32. The ROM
 * copies them to SRAM and runs them there; they make the flash readable in place (RP2040 datasheet
 * 2.8.1.2 "Boot sequence", 2.8.1.3 "Flash second stage"). The image itself begins after them.
 *
 * Any serial flash answers command 03h: 8 clocks of command, 24 of address and 32 of data at a
 * quarter of the core clock, so a word that is not in the XIP cache costs 256 cycles. SSI registers:
 * RP2040 datasheet 4.10.13.
 */
#include "port.h"

#if PORT_CHIP == 2040
__asm__(".syntax unified\n"
        ".section .vectors.before, \"ax\", %progbits\n"
        ".thumb\n"
        ".p2align 2\n"
        "edge_boot_stage_2:\n"
        "  ldr r3, 3f\n"          /* SSI */
        "  movs r2, #0\n"
        "  str r2, [r3, #0x08]\n" /* SSIENR: off, or nothing below can be changed */
        "  movs r1, #4\n"
        "  str r1, [r3, #0x14]\n" /* BAUDR: clk_sys / 4 */
        "  ldr r1, 4f\n"
        "  str r1, [r3, #0x00]\n" /* CTRLR0 */
        "  str r2, [r3, #0x04]\n" /* CTRLR1: one data frame an access */
        "  ldr r1, 5f\n"
        "  movs r0, #0xF4\n"
        "  str r1, [r3, r0]\n"    /* SPI_CTRLR0 */
        "  movs r1, #1\n"
        "  str r1, [r3, #0x08]\n"
        "  ldr r0, 6f\n"          /* The image's vector table: stack and entry */
        "  ldr r1, 7f\n"
        "  str r0, [r1]\n"
        "  ldr r1, [r0, #4]\n"
        "  ldr r0, [r0]\n"
        "  msr msp, r0\n"
        "  bx r1\n"
        ".p2align 2\n"
        "3: .word 0x18000000\n"
        "4: .word 0x001F0300\n" /* DFS_32 31: 32-bit frames; TMOD 3: send, then receive; plain SPI */
        "5: .word 0x03000218\n" /* XIP_CMD 03h, INST_L 2: 8 bits, ADDR_L 6: 24 bits */
        "6: .word 0x10000100\n"
        "7: .word 0xE000ED08\n" /* VTOR */
        ".org edge_boot_stage_2 + 252\n"
        /* CRC-32 of the 252 bytes: polynomial 04C11DB7h, from all ones, nothing reflected or
         * inverted (RP2040 datasheet 2.8.1.3.1). */
        ".word 0x119EFCB7\n"
        ".text\n");
#endif
