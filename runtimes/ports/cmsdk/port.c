/* Arm CMSDK (Cortex-M System Design Kit) APB UART and APB timer, as on the MPS2 and MPS3 boards.
 * Registers: CMSDK Technical Reference Manual (DDI 0479), chapters 4.2 (timer) and 4.3 (UART). */
#include "port.h"

#include "wide_ticks.h"

#if !defined(PORT_UART_BASE) || !defined(PORT_TIMER_BASE) || !defined(PORT_CLOCK_HZ)
#error "The cmsdk port needs -DPORT_UART_BASE, -DPORT_TIMER_BASE and -DPORT_CLOCK_HZ."
#endif
#ifndef PORT_BAUD
#define PORT_BAUD 115200
#endif

#define REGISTER(base, offset) (*(volatile uint32_t *)((uintptr_t)(base) + (offset)))

#define UART_DATA REGISTER(PORT_UART_BASE, 0x00)
#define UART_STATE REGISTER(PORT_UART_BASE, 0x04)
#define UART_CONTROL REGISTER(PORT_UART_BASE, 0x08)
#define UART_BAUD_DIVIDER REGISTER(PORT_UART_BASE, 0x10)
#define UART_STATE_TRANSMIT_FULL 1u
#define UART_STATE_RECEIVE_FULL 2u
#define UART_CONTROL_ENABLE_BOTH 3u
#define UART_SMALLEST_DIVIDER 16u

/* PORT_TIMER_COUNTS_UP: the base is a free-running 32-bit up counter's own register instead, as the
 * MPS3 FPGAIO cycle counter is; the SSE-300 has no CMSDK timer on its system clock. */
#define TIMER_CONTROL REGISTER(PORT_TIMER_BASE, 0x00)
#define TIMER_VALUE REGISTER(PORT_TIMER_BASE, 0x04)
#define TIMER_RELOAD REGISTER(PORT_TIMER_BASE, 0x08)
#define TIMER_CONTROL_ENABLE 1u

static uint32_t timer_count(void) {
#ifdef PORT_TIMER_COUNTS_UP
  return REGISTER(PORT_TIMER_BASE, 0x00);
#else
  return 0xFFFFFFFFu - TIMER_VALUE;
#endif
}

void port_init(void) {
  uint32_t divider = (uint32_t)(PORT_CLOCK_HZ) / (PORT_BAUD);
  UART_BAUD_DIVIDER = divider < UART_SMALLEST_DIVIDER ? UART_SMALLEST_DIVIDER : divider;
  UART_CONTROL = UART_CONTROL_ENABLE_BOTH;
#ifndef PORT_TIMER_COUNTS_UP
  TIMER_CONTROL = 0;
  TIMER_RELOAD = 0xFFFFFFFFu;
  TIMER_VALUE = 0xFFFFFFFFu;
  TIMER_CONTROL = TIMER_CONTROL_ENABLE;
#endif
}

void port_putc(uint8_t byte) {
  while (UART_STATE & UART_STATE_TRANSMIT_FULL) {
  }
  UART_DATA = byte;
}

int port_getc(void) {
  while (!(UART_STATE & UART_STATE_RECEIVE_FULL)) {
    /* An idle hour must not lose a wrap of the 32-bit timer. */
    (void)port_ticks();
  }
  return (int)(UART_DATA & 0xFFu);
}

void port_flush(void) {}

__attribute__((noinline)) uint64_t port_ticks(void) { return wide_ticks(timer_count()); }

uint32_t port_tick_hz(void) { return PORT_CLOCK_HZ; }

uint32_t port_clock_hz(void) { return PORT_CLOCK_HZ; }

/* The MPS boards' clock generators cannot be read by the core. */
const char *port_clock_source(void) { return "configured"; }

const char *port_settings(void) { return ""; }

uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
  (void)id;
  return 0;
}
