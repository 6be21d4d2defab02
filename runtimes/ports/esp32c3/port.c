/* Espressif ESP32-C3: console on UART0 at GPIO20 (RX) and GPIO21 (TX), ticks from the core's own
 * cycle counter.
 *
 * Registers: ESP32-C3 Technical Reference Manual v1.2 (below: TRM), by chapter. The ROM has started
 * the 480 MHz PLL and both caches before it jumps to the image; the clock of the flash stays as the
 * ROM set it, and so does the core voltage.
 */
#include "port.h"

#include "wide_ticks.h"

#if !defined(PORT_UART_BASE) || !defined(PORT_CLOCK_HZ)
#error "The esp32c3 port needs -DPORT_UART_BASE and -DPORT_CLOCK_HZ."
#endif
#ifndef PORT_BAUD
#define PORT_BAUD 115200
#endif
#ifndef PORT_CRYSTAL_HZ
#define PORT_CRYSTAL_HZ 40000000
#endif
#if PORT_CLOCK_HZ != 160000000 && PORT_CLOCK_HZ != 80000000
#error "The ESP32-C3 runs at 80 MHz or 160 MHz from its PLL."
#endif

#define REGISTER(base, offset) (*(volatile uint32_t *)((uintptr_t)(base) + (offset)))

/* TRM "System and Memory", peripheral address mapping. */
#define RTC_CNTL_BASE 0x60008000u
#define EFUSE_BASE 0x60008800u
#define IO_MUX_BASE 0x60009000u
#define TIMG0_BASE 0x6001F000u
#define TIMG1_BASE 0x60020000u
#define SYSTEM_BASE 0x600C0000u

/* TRM "Watchdog Timers" and "Low-Power Management": a register is unlocked by its key. */
#define RTC_WDT_CONFIG REGISTER(RTC_CNTL_BASE, 0x90)
#define RTC_WDT_PROTECT REGISTER(RTC_CNTL_BASE, 0xA8)
#define SUPER_WDT_CONFIG REGISTER(RTC_CNTL_BASE, 0xAC)
#define SUPER_WDT_PROTECT REGISTER(RTC_CNTL_BASE, 0xB0)
#define SUPER_WDT_FEEDS_ITSELF (1u << 31)
#define TIMG_WDT_CONFIG(base) REGISTER(base, 0x48)
#define TIMG_WDT_PROTECT(base) REGISTER(base, 0x64)
#define WDT_KEY 0x50D83AA1u
#define SUPER_WDT_KEY 0x8F1D312Au

/* TRM "Reset and Clock", "System Registers". */
#define CPU_PER_CONF REGISTER(SYSTEM_BASE, 0x08)
#define PERIP_CLK_EN0 REGISTER(SYSTEM_BASE, 0x10)
#define PERIP_RST_EN0 REGISTER(SYSTEM_BASE, 0x18)
#define SYSCLK_CONF REGISTER(SYSTEM_BASE, 0x58)
#define CPU_PERIOD_MASK 3u
#define CPU_PERIOD_160_MHZ 1u /* with the PLL at 480 MHz; 0 is 80 MHz */
#define CPU_PLL_480_MHZ (1u << 2)
#define SOC_CLK_MASK (3u << 10)
#define SOC_CLK_PLL (1u << 10)
#define UART0_BIT (1u << 2)
#define UART_MEMORY_BIT (1u << 24)

/* TRM "IO MUX and GPIO Matrix", IO MUX functions: function 0 of GPIO20 is U0RXD, of GPIO21 U0TXD. */
#define IO_MUX_GPIO(pin) REGISTER(IO_MUX_BASE, 4 + 4 * (pin))
#define IO_MUX_INPUT_ENABLE (1u << 9)
#define IO_MUX_PULL_UP (1u << 8)
#define IO_MUX_DRIVE_20_MA (2u << 10)
#define RX_PIN 20
#define TX_PIN 21

/* TRM "UART Controller". */
#define UART_FIFO REGISTER(PORT_UART_BASE, 0x00)
#define UART_CLOCK_DIVIDER REGISTER(PORT_UART_BASE, 0x14)
#define UART_STATUS REGISTER(PORT_UART_BASE, 0x1C)
#define UART_CONF0 REGISTER(PORT_UART_BASE, 0x20)
#define UART_CLK_CONF REGISTER(PORT_UART_BASE, 0x78)
#define UART_ID REGISTER(PORT_UART_BASE, 0x80)
#define UART_RECEIVED(status) ((status) & 0x3FFu)
#define UART_TO_SEND(status) ((status) >> 16 & 0x3FFu)
#define UART_FIFO_BYTES 128u
#define UART_8N1 (1u << 28 | 3u << 2 | 1u << 4)
#define UART_RESET_FIFOS (1u << 17 | 1u << 18)
#define UART_CLOCK_FROM_CRYSTAL (3u << 20)
#define UART_CLOCKS_ON (1u << 22 | 1u << 24 | 1u << 25)
#define UART_UPDATE (1u << 31)
#define UART_AUTOMATIC_UPDATE (1u << 30)
/* The divider has 4 fraction bits. */
#define BAUD_DIVIDER ((PORT_CRYSTAL_HZ * 16u + (PORT_BAUD) / 2u) / (PORT_BAUD))

/* TRM "ESP-RISC-V CPU", CSRs: mtvec's base is 256-byte aligned and always vectored, so the start-up
 * code's handler would not be met. Exceptions go to the base itself. */
__attribute__((naked, aligned(256), used)) static void trap(void) { __asm__ volatile("1: j 1b"); }

/* The ROM leaves watchdogs running that reset a chip which does not start (TRM "Watchdog Timers",
 * flash boot protection). The super watchdog cannot be relied on to stay off, so it feeds itself. */
static void stop_watchdogs(void) {
  RTC_WDT_PROTECT = WDT_KEY;
  RTC_WDT_CONFIG = 0;
  RTC_WDT_PROTECT = 0;
  SUPER_WDT_PROTECT = SUPER_WDT_KEY;
  SUPER_WDT_CONFIG |= SUPER_WDT_FEEDS_ITSELF;
  SUPER_WDT_PROTECT = 0;
  TIMG_WDT_PROTECT(TIMG0_BASE) = WDT_KEY;
  TIMG_WDT_CONFIG(TIMG0_BASE) = 0;
  TIMG_WDT_PROTECT(TIMG0_BASE) = 0;
  TIMG_WDT_PROTECT(TIMG1_BASE) = WDT_KEY;
  TIMG_WDT_CONFIG(TIMG1_BASE) = 0;
  TIMG_WDT_PROTECT(TIMG1_BASE) = 0;
}

static void start_clock(void) {
  uint32_t period = PORT_CLOCK_HZ == 160000000 ? CPU_PERIOD_160_MHZ : 0u;
  SYSCLK_CONF = (SYSCLK_CONF & ~SOC_CLK_MASK) | SOC_CLK_PLL;
  CPU_PER_CONF = (CPU_PER_CONF & ~CPU_PERIOD_MASK) | CPU_PLL_480_MHZ | period;
}

/* UART registers live in the clock domain of its core: this carries them over (TRM "UART
 * Controller", synchronous registers). */
static void update_uart(void) {
  UART_ID |= UART_UPDATE;
  while (UART_ID & UART_UPDATE) {
  }
}

static void start_uart(void) {
  PERIP_CLK_EN0 |= UART0_BIT | UART_MEMORY_BIT;
  PERIP_RST_EN0 &= ~(UART0_BIT | UART_MEMORY_BIT);
  /* From the crystal, so that the core's clock does not matter. */
  UART_CLK_CONF = UART_CLOCK_FROM_CRYSTAL | UART_CLOCKS_ON;
  UART_ID &= ~UART_AUTOMATIC_UPDATE;
  UART_CLOCK_DIVIDER = (BAUD_DIVIDER >> 4) | (BAUD_DIVIDER & 15u) << 20;
  UART_CONF0 = UART_8N1;
  update_uart();
  UART_CONF0 = UART_8N1 | UART_RESET_FIFOS;
  update_uart();
  UART_CONF0 = UART_8N1;
  update_uart();
  IO_MUX_GPIO(TX_PIN) = IO_MUX_DRIVE_20_MA;
  IO_MUX_GPIO(RX_PIN) = IO_MUX_INPUT_ENABLE | IO_MUX_PULL_UP;
}

/* TRM "ESP-RISC-V CPU", mpcer (7E0h), mpcmr (7E1h) and mpccr (7E2h): count cycles, without stopping
 * at the largest value. */
static void start_cycle_counter(void) {
  __asm__ volatile(".option push\n .option arch, +zicsr\n"
                   "csrwi 0x7E0, 1\n csrwi 0x7E1, 1\n"
                   ".option pop");
}

static uint32_t cycle_count(void) {
  uint32_t cycles;
  __asm__ volatile(".option push\n .option arch, +zicsr\n"
                   "csrr %0, 0x7E2\n"
                   ".option pop"
                   : "=r"(cycles));
  return cycles;
}

void port_init(void) {
  __asm__ volatile(".option push\n .option arch, +zicsr\n"
                   "csrw mtvec, %0\n"
                   ".option pop" ::"r"((uintptr_t)trap | 1u));
  stop_watchdogs();
  start_clock();
  start_uart();
  start_cycle_counter();
}

void port_putc(uint8_t byte) {
  while (UART_TO_SEND(UART_STATUS) >= UART_FIFO_BYTES) {
  }
  UART_FIFO = byte;
}

int port_getc(void) {
  while (UART_RECEIVED(UART_STATUS) == 0) {
    /* An idle minute must not lose a wrap of the 32-bit counter. */
    (void)port_ticks();
  }
  return (int)(UART_FIFO & 0xFFu);
}

void port_flush(void) {}

__attribute__((noinline)) uint64_t port_ticks(void) { return wide_ticks(cycle_count()); }

uint32_t port_tick_hz(void) { return port_clock_hz(); }

uint32_t port_clock_hz(void) {
  return (CPU_PER_CONF & CPU_PERIOD_MASK) == CPU_PERIOD_160_MHZ ? 160000000u : 80000000u;
}

const char *port_clock_source(void) { return "registers"; }

const char *port_settings(void) { return "icache=as_rom_left_it flash=as_rom_left_it tick=mpccr"; }

/* TRM "eFuse Controller": EFUSE_RD_MAC_SPI_SYS_0 and _1 hold the MAC address, last byte lowest. */
uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
  uint32_t low = REGISTER(EFUSE_BASE, 0x44), high = REGISTER(EFUSE_BASE, 0x48);
  for (uint32_t index = 0; index < 6; index++) {
    id[index] = (uint8_t)(index < 2 ? high >> 8 * (1 - index) : low >> 8 * (5 - index));
  }
  return 6;
}
