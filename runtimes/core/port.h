/* What the runner needs of a board. One folder of runtimes/ports implements it.
 *
 * Optional compile-time definitions, all with defaults in the port that uses them:
 *   PORT_TARGET_NAME   the device profile's name, quoted
 *   PORT_CLOCK_HZ      core clock
 *   PORT_BAUD, PORT_UART_BASE, PORT_TIMER_BASE   bare-metal ports only
 *   PORT_REGIONS       the memories, each {"name", address, bytes, 1 for flash}
 */
#ifndef EDGECOMPRESS_PORT_H
#define EDGECOMPRESS_PORT_H

#include <stdint.h>

#ifndef PORT_TARGET_NAME
#define PORT_TARGET_NAME "unnamed"
#endif

/* Brings up the console and the timer. Clocks, FPU and memory belong to the startup code. */
void port_init(void);

/* Sends one byte, waiting until there is room. */
void port_putc(uint8_t byte);

/* Waits for one byte; -1 when the console is gone for good. */
int port_getc(void);

/* Pushes out what port_putc may still hold back. */
void port_flush(void);

/* A clock that only goes up; it may tick with the core (DWT CYCCNT, SysTick). Ports extend a narrow
 * hardware timer themselves, so this must be called at least once per wrap of that timer (2^32
 * ticks, fewer where the port says so). */
uint64_t port_ticks(void);
uint32_t port_tick_hz(void);

/* Core clock, 0 where it is not known. */
uint32_t port_clock_hz(void);

/* How port_clock_hz is known: "registers" (the clock tree's own registers were read back),
 * "configured" (what the profile says, nothing was read) or "host" (an operating system's). */
const char *port_clock_source(void);

/* What else changes speed, as space-separated key=value: "icache=on dcache=on wait_states=7".
 * "" where nothing is known. Letters, digits, '_', '.', '+' and '-' only: no ']' and no control
 * characters. */
const char *port_settings(void);

/* Writes the chip's unique number and returns how many bytes it has; 0 where there is none. */
#define PORT_DEVICE_ID_LIMIT 12
uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]);

/* Lowest word of the stack and one past its highest word. Both 0 where they are not known.
 * Every word is PORT_STACK_PAINT before main starts. */
#define PORT_STACK_PAINT 0xC5C5C5C5u
void port_stack(const uint32_t **limit, const uint32_t **top);

#endif
