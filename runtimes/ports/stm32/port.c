/* STM32: the clock tree to its rated speed, a USART or LPUART, the core's cycle counter. families/
 * has one description a family; the blocks below are the same in all of them. */
#include "port.h"

#include "cortex_m.h"
#include "port_start.h"
#include "stm32.h"
#include "wide_ticks.h"

#define PIN(port, number, name) name##number = (port) * 16 + (number)
#define PINS(port, name)                                                                       \
  PIN(port, 0, name), PIN(port, 1, name), PIN(port, 2, name), PIN(port, 3, name),              \
      PIN(port, 4, name), PIN(port, 5, name), PIN(port, 6, name), PIN(port, 7, name),          \
      PIN(port, 8, name), PIN(port, 9, name), PIN(port, 10, name), PIN(port, 11, name),        \
      PIN(port, 12, name), PIN(port, 13, name), PIN(port, 14, name), PIN(port, 15, name)
enum { PINS(0, PA), PINS(1, PB), PINS(2, PC), PINS(3, PD), PINS(4, PE), PINS(5, PF), PINS(6, PG),
       PINS(7, PH), PINS(8, PI) };

#define QUOTED(text) #text
#define FAMILY_FILE(name) QUOTED(families/name.h)
#include FAMILY_FILE(PORT_FAMILY)

/* GPIO, RM0090 8.4. */
#define GPIO_MODER(pin) REGISTER(GPIO((pin) >> 4) + 0x00u)
#define GPIO_PUPDR(pin) REGISTER(GPIO((pin) >> 4) + 0x0Cu)
#define GPIO_AFR(pin) REGISTER(GPIO((pin) >> 4) + 0x20u + ((pin) >> 1 & 4u))
#define MODER_ALTERNATE 2u
#define PUPDR_UP 1u

#define LOW_POWER_LPUART1 1
#define UART_IS_LOW_POWER JOIN(LOW_POWER_, PORT_UART)

/* USART: RM0090 30.6 (the F4's), RM0385 31.8 (all others), RM0351 41.7 (LPUART). */
#ifdef UART_IS_OLD
#define UART_SR REGISTER(PORT_UART_BASE + 0x00u)
#define UART_RECEIVED REGISTER(PORT_UART_BASE + 0x04u)
#define UART_SEND REGISTER(PORT_UART_BASE + 0x04u)
#define UART_BRR REGISTER(PORT_UART_BASE + 0x08u)
#define UART_CR1 REGISTER(PORT_UART_BASE + 0x0Cu)
#define CR1_UE (1u << 13)
#else
#define UART_CR1 REGISTER(PORT_UART_BASE + 0x00u)
#define UART_BRR REGISTER(PORT_UART_BASE + 0x0Cu)
#define UART_SR REGISTER(PORT_UART_BASE + 0x1Cu)
#define UART_ICR REGISTER(PORT_UART_BASE + 0x20u)
#define UART_RECEIVED REGISTER(PORT_UART_BASE + 0x24u)
#define UART_SEND REGISTER(PORT_UART_BASE + 0x28u)
#define CR1_UE (1u << 0)
#endif
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TC (1u << 6)
#define SR_TXE (1u << 7)

_Static_assert(PORT_UART_BASE == JOIN(PORT_UART, _BASE), "base_address is not that of uart");

void port_start(void) {
  start_memory();
  start_clocks();
}

static void connect_pin(uint32_t pin) {
  uint32_t two = 2u * (pin & 15u), four = 4u * (pin & 7u);
  enable(&GPIO_CLOCKS, 1u << (pin >> 4));
  replace(&GPIO_AFR(pin), 15u << four, (uint32_t)(PORT_UART_FUNCTION) << four);
  /* An open receive line must read as idle. */
  replace(&GPIO_PUPDR(pin), 3u << two, PUPDR_UP << two);
  replace(&GPIO_MODER(pin), 3u << two, MODER_ALTERNATE << two);
}

static uint32_t baud_divider(void) {
  uint32_t hz = uart_hz();
#if UART_IS_LOW_POWER
  /* RM0351 41.4.4: 256 steps a bit, in two parts to stay within 32 bits. */
  return hz / (PORT_BAUD) * 256u + hz % (PORT_BAUD) * 256u / (PORT_BAUD);
#else
  /* Oversampling by 16: the mantissa and fraction together are a plain quotient. */
  return (hz + (PORT_BAUD) / 2u) / (PORT_BAUD);
#endif
}

void port_init(void) {
  connect_pin_supply();
  enable(UART_CLOCKS, JOIN(PORT_UART, _ENABLE));
  UART_BRR = baud_divider();
  UART_CR1 = CR1_UE | CR1_RE | CR1_TE;
  connect_pin(PORT_TX);
  connect_pin(PORT_RX);
  start_cycle_counter();
}

void port_putc(uint8_t byte) {
  while (!(UART_SR & SR_TXE)) {
  }
  UART_SEND = byte;
}

int port_getc(void) {
  uint32_t state;
  while (!((state = UART_SR) & SR_RXNE)) {
    /* An idle minute must not lose a wrap of the 32-bit counter. */
    (void)port_ticks();
#ifndef UART_IS_OLD
    /* Lost bytes are the protocol's business; the flag would stop reception. The F4's is cleared by
     * reading the status and then the data. */
    if (state & SR_ORE) UART_ICR = SR_ORE;
#endif
  }
  return (int)(UART_RECEIVED & 0xFFu);
}

void port_flush(void) {}

__attribute__((noinline)) uint64_t port_ticks(void) { return wide_ticks(DWT_CYCCNT); }

uint32_t port_tick_hz(void) { return core_hz(); }

uint32_t port_clock_hz(void) { return core_hz(); }

const char *port_clock_source(void) { return "registers"; }

static char *append(char *end, const char *text) {
  while (*text != 0) *end++ = *text++;
  return end;
}

static char *append_digits(char *end, uint32_t value) {
  if (value >= 10u) *end++ = (char)('0' + value / 10u);
  *end++ = (char)('0' + value % 10u);
  return end;
}

const char *port_settings(void) {
  static char text[96];
  char *end = append(text, instruction_cache_on() ? "icache=on dcache=" : "icache=off dcache=");
  end = append(end, data_cache_on() ? "on wait_states=" : "off wait_states=");
  end = append_digits(end, FLASH_ACR & FLASH_LATENCY);
  end = append(end, " scale=");
  end = append_digits(end, voltage_scale());
  end = append(end, on_crystal() ? " oscillator=crystal" : " oscillator=internal");
  if (PORT_CRYSTAL_HZ != 0 && !on_crystal()) end = append(end, " crystal=failed");
  if (!on_pll()) end = append(end, " pll=failed");
  *end = 0;
  return text;
}

uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
  for (uint32_t index = 0; index < 12; index++)
    id[index] = (uint8_t)(REGISTER(UID_BASE + (index & ~3u)) >> 8 * (index & 3u));
  return 12;
}
