/* Nordic nRF52 and the application core of nRF53: console on UARTE, ticks from DWT CYCCNT.
 *
 * Registers: nRF52840 Product Specification v1.8 (below: PS52) and nRF5340 Product Specification
 * v1.4 (PS53). nRF53 peripherals are used at their secure addresses: the core starts secure and
 * nothing is given away (PS53 "SPU - System protection unit").
 *
 * UARTE and not the older UART, which nRF53 does not have. Its EasyDMA moves one byte at a time: the
 * line is far slower than the core, and the receiver's FIFO holds what arrives between two bytes.
 */
#include "cortex_m.h"
#include "port.h"
#include "wide_ticks.h"

#if !defined(PORT_UART_BASE) || !defined(PORT_SERIES) || !defined(PORT_TX_PIN) ||                  \
    !defined(PORT_RX_PIN)
#error "The nrf port needs -DPORT_UART_BASE, -DPORT_SERIES, -DPORT_TX_PIN and -DPORT_RX_PIN."
#endif
#ifndef PORT_BAUD
#define PORT_BAUD 115200
#endif
#ifndef PORT_CRYSTAL
#define PORT_CRYSTAL 1
#endif

#define REGISTER(base, offset) (*(volatile uint32_t *)((uintptr_t)(base) + (offset)))

/* Base addresses: PS52 "Memory - Instantiation", PS53 "Application core - Instantiation". */
#if PORT_SERIES == 53
#define CLOCK_BASE 0x50005000u
#define GPIO_BASE 0x50842000u /* P0 is at 0x50842500, its registers 0x500 lower than on nRF52 */
#define DEVICE_ID_BASE 0x00FF0204u /* PS53 FICR INFO.DEVICEID */
#else
#define CLOCK_BASE 0x40000000u
#define GPIO_BASE 0x50000000u
#define DEVICE_ID_BASE 0x10000060u /* PS52 FICR DEVICEID */
#endif
#define GPIO_PORT_STRIDE 0x300u

/* PS52 and PS53 "CLOCK - Clock control", registers. */
#define HFCLK_START REGISTER(CLOCK_BASE, 0x000)
#define HFCLK_STARTED REGISTER(CLOCK_BASE, 0x100)
#define HFCLK_STATUS REGISTER(CLOCK_BASE, 0x40C)
#define HFCLK_STATUS_RUNNING_ON_CRYSTAL (1u << 16 | 1u)
/* The crystal takes 0.36 ms typically (PS52 "64 MHz crystal oscillator"); a round of the waiting
 * loop takes some ten cycles, so this gives up after about 0.1 s. */
#define CRYSTAL_ROUNDS 1000000u

/* PS52 and PS53 "GPIO", registers. */
#define GPIO_OUTPUT_SET 0x508u
#define GPIO_PIN_CONFIGURATION 0x700u
#define PIN_OUTPUT 3u          /* output, input buffer disconnected */
#define PIN_INPUT_PULLED_UP 12u /* an open line reads as idle */

/* PS52 and PS53 "UARTE", registers. */
#define UART_START_RECEIVE REGISTER(PORT_UART_BASE, 0x000)
#define UART_START_TRANSMIT REGISTER(PORT_UART_BASE, 0x008)
#define UART_RECEIVE_ENDED REGISTER(PORT_UART_BASE, 0x110)
#define UART_TRANSMIT_ENDED REGISTER(PORT_UART_BASE, 0x120)
#define UART_ENABLE REGISTER(PORT_UART_BASE, 0x500)
#define UART_TX_PIN REGISTER(PORT_UART_BASE, 0x50C)
#define UART_RX_PIN REGISTER(PORT_UART_BASE, 0x514)
#define UART_BAUD_RATE REGISTER(PORT_UART_BASE, 0x524)
#define UART_RECEIVE_POINTER REGISTER(PORT_UART_BASE, 0x534)
#define UART_RECEIVE_COUNT REGISTER(PORT_UART_BASE, 0x538)
#define UART_TRANSMIT_POINTER REGISTER(PORT_UART_BASE, 0x544)
#define UART_TRANSMIT_COUNT REGISTER(PORT_UART_BASE, 0x548)
#define UART_ENABLE_UARTE 8u

/* PS52 and PS53 "UARTE - BAUDRATE": the rates there are. */
#if PORT_BAUD == 9600
#define BAUD_RATE 0x00275000u
#elif PORT_BAUD == 38400
#define BAUD_RATE 0x009D0000u
#elif PORT_BAUD == 57600
#define BAUD_RATE 0x00EB0000u
#elif PORT_BAUD == 115200
#define BAUD_RATE 0x01D60000u
#elif PORT_BAUD == 230400
#define BAUD_RATE 0x03B00000u
#elif PORT_BAUD == 460800
#define BAUD_RATE 0x07400000u
#elif PORT_BAUD == 921600
#define BAUD_RATE 0x0F000000u
#elif PORT_BAUD == 1000000
#define BAUD_RATE 0x10000000u
#else
#error "UARTE does 9600, 38400, 57600, 115200, 230400, 460800, 921600 and 1000000 baud."
#endif

/* EasyDMA reads and writes RAM only (PS52 "EasyDMA"), so neither can be a constant. */
static volatile uint8_t sent_byte, received_byte;

static void configure_pin(uint32_t pin, uint32_t configuration) {
  REGISTER(GPIO_BASE + (pin >> 5) * GPIO_PORT_STRIDE, GPIO_PIN_CONFIGURATION + 4 * (pin & 31)) =
      configuration;
}

#if PORT_SERIES == 53

/* PS53 "CLOCK - HFCLKCTRL": 0 divides the 128 MHz clock by 1, 1 (after reset) by 2. */
#define HFCLK_CONTROL REGISTER(CLOCK_BASE, 0x5B8)
/* PS53 "CACHE - Instruction/data cache", ENABLE. */
#define CACHE_ENABLE REGISTER(0x50001000u, 0x500)
/* PS53 "RESET - Reset control", NETWORK.FORCEOFF: 1, also after reset, keeps the network core off. */
#define NETWORK_FORCE_OFF REGISTER(0x50005000u, 0x614)
/* PS53 "CTRL-AP": a write opens the debug port when UICR holds the same value; both start with
 * UICR's own, so the port stays as the user's UICR says. */
#define APPROTECT_DISABLE REGISTER(0x50006000u, 0x544)
#define SECURE_APPROTECT_DISABLE REGISTER(0x50006000u, 0x54C)
#define UICR_APPROTECT REGISTER(0x00FF8000u, 0x000)
#define UICR_SECURE_APPROTECT REGISTER(0x00FF8000u, 0x01C)

/* PS53 "FICR", TRIMCNF: the factory's values for analog blocks, which firmware copies to their
 * registers; the first unused address is all ones or zeros. */
#define TRIM_ADDRESS(index) REGISTER(0x00FF0300u, 8 * (index))
#define TRIM_VALUE(index) REGISTER(0x00FF0304u, 8 * (index))
#define TRIM_LIMIT 32u

static void trim(void) {
  for (uint32_t index = 0; index < TRIM_LIMIT; index++) {
    uint32_t address = TRIM_ADDRESS(index);
    if (address == 0xFFFFFFFFu || address == 0) return;
    REGISTER(address, 0) = TRIM_VALUE(index);
  }
}

static void prepare_chip(void) {
  trim();
  APPROTECT_DISABLE = UICR_APPROTECT;
  SECURE_APPROTECT_DISABLE = UICR_SECURE_APPROTECT;
  NETWORK_FORCE_OFF = 1;
  CACHE_ENABLE = 1;
  HFCLK_CONTROL = (uint32_t)(PORT_CLOCK_HZ) == 64000000u;
}

uint32_t port_clock_hz(void) { return 128000000u >> (HFCLK_CONTROL & 1u); }

#define CACHE_CONTROL CACHE_ENABLE
#define CACHE_NAME "cache"
#define MORE_SETTINGS " network_core=off"

#else

/* PS52 "NVMC", ICACHECNF. */
#define INSTRUCTION_CACHE REGISTER(0x4001E000u, 0x540)
/* PS52 "FICR", INFO.PART and INFO.VARIANT (four letters, "AAF0"); "UICR", APPROTECT. */
#define PART REGISTER(0x10000000u, 0x100)
#define VARIANT REGISTER(0x10000000u, 0x104)
#define UICR_APPROTECT REGISTER(0x10001000u, 0x208)
/* PS52 v1.8 "Debug and trace", access port protection: from revision F of the nRF52840 on the port
 * opens only if firmware writes what UICR says into APPROTECT.DISABLE. */
#define APPROTECT_DISABLE REGISTER(0x40000000u, 0x558)

static void prepare_chip(void) {
  if (PART == 0x52840u && (VARIANT >> 8 & 0xFFu) >= 'F') APPROTECT_DISABLE = UICR_APPROTECT;
  INSTRUCTION_CACHE = 1;
}

/* The core has no other clock (PS52 "CLOCK", HCLK64M). */
uint32_t port_clock_hz(void) { return 64000000u; }

#define CACHE_CONTROL INSTRUCTION_CACHE
#define CACHE_NAME "icache"
#define MORE_SETTINGS ""

#endif

/* The internal oscillator clocks everything until the crystal has started, and for good if it does
 * not: ticks are then off by its tolerance and the console may still work. */
static void start_crystal(void) {
#if PORT_CRYSTAL
  HFCLK_STARTED = 0;
  HFCLK_START = 1;
  for (uint32_t round = 0; round < CRYSTAL_ROUNDS && HFCLK_STARTED == 0; round++) {
  }
#endif
}

static uint32_t on_crystal(void) {
  return (HFCLK_STATUS & HFCLK_STATUS_RUNNING_ON_CRYSTAL) == HFCLK_STATUS_RUNNING_ON_CRYSTAL;
}

void port_init(void) {
  prepare_chip();
  start_crystal();

  /* High before the pin drives, or the far end sees a start bit. */
  REGISTER(GPIO_BASE + (PORT_TX_PIN >> 5) * GPIO_PORT_STRIDE, GPIO_OUTPUT_SET) =
      1u << (PORT_TX_PIN & 31);
  configure_pin(PORT_TX_PIN, PIN_OUTPUT);
  configure_pin(PORT_RX_PIN, PIN_INPUT_PULLED_UP);
  UART_TX_PIN = PORT_TX_PIN;
  UART_RX_PIN = PORT_RX_PIN;
  UART_BAUD_RATE = BAUD_RATE;
  UART_ENABLE = UART_ENABLE_UARTE;
  UART_RECEIVE_POINTER = (uint32_t)(uintptr_t)&received_byte;
  UART_RECEIVE_COUNT = 1;
  UART_TRANSMIT_POINTER = (uint32_t)(uintptr_t)&sent_byte;
  UART_TRANSMIT_COUNT = 1;
  UART_RECEIVE_ENDED = 0;
  UART_START_RECEIVE = 1;

  start_cycle_counter();
}

void port_putc(uint8_t byte) {
  sent_byte = byte;
  UART_TRANSMIT_ENDED = 0;
  /* The byte is in RAM before EasyDMA reads it there. */
  __asm__ volatile("dmb" ::: "memory");
  UART_START_TRANSMIT = 1;
  while (UART_TRANSMIT_ENDED == 0) {
  }
}

int port_getc(void) {
  while (UART_RECEIVE_ENDED == 0) {
    /* An idle hour must not lose a wrap of the 32-bit counter. */
    (void)port_ticks();
  }
  uint8_t byte = received_byte;
  UART_RECEIVE_ENDED = 0;
  UART_START_RECEIVE = 1;
  return byte;
}

void port_flush(void) {}

__attribute__((noinline)) uint64_t port_ticks(void) { return wide_ticks(DWT_CYCCNT); }

uint32_t port_tick_hz(void) { return port_clock_hz(); }

const char *port_clock_source(void) { return on_crystal() ? "registers" : "configured"; }

/* Read back: nRF52805, 810, 811 and 820 have no cache, and there the bit stays 0. */
const char *port_settings(void) {
  if (CACHE_CONTROL & 1u) {
    return on_crystal() ? CACHE_NAME "=on hfclk=crystal" MORE_SETTINGS
                        : CACHE_NAME "=on hfclk=rc" MORE_SETTINGS;
  }
  return on_crystal() ? CACHE_NAME "=off hfclk=crystal" MORE_SETTINGS
                      : CACHE_NAME "=off hfclk=rc" MORE_SETTINGS;
}

uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
  for (uint32_t index = 0; index < 8; index++) {
    id[index] = (uint8_t)(REGISTER(DEVICE_ID_BASE, index & 4u) >> 8 * (index & 3u));
  }
  return 8;
}
