/* How the ESP32-C3's ROM starts an image that it runs in place ("direct boot", from chip revision 3
 * on; Espressif, esp32c3-direct-boot-example). Two magic words open the flash; the ROM then maps its
 * first 4 MiB for the instruction bus at 42000000h and for the data bus at 3C000000h, and jumps to
 * 42000008h, which is Reset_Handler.
 *
 * The instruction bus answers aligned words only (ESP32-C3 Technical Reference Manual, "System and
 * Memory", internal and external memory access), so constants are linked to the data bus's window;
 * the linker script keeps both at the same offset in flash.
 */
#include <stdint.h>

__attribute__((section(".vectors.before"), used)) static const uint32_t direct_boot_magic[2] = {
    0xAEDB041Du, 0xAEDB041Du};
