/* Raspberry Pi RP2040 and RP2350: console on a PL011 UART, core clock from the crystal and PLL.
 *
 * Registers: RP2040 datasheet (below: D40) and RP2350 datasheet (D50). Ticks are core cycles: DWT
 * CYCCNT on RP2350's Cortex-M33, the platform timer on its Hazard3; RP2040's Cortex-M0+ has only the
 * 24 bits of SysTick, which the microsecond TIMER extends.
 */
#include "port.h"

#include "wide_ticks.h"

#if !defined(PORT_UART_BASE) || !defined(PORT_CLOCK_HZ) || !defined(PORT_CHIP) ||                  \
    !defined(PORT_TX_PIN) || !defined(PORT_RX_PIN) || !defined(PORT_CRYSTAL_HZ) ||                 \
    !defined(PORT_POST_DIVIDER_1) || !defined(PORT_POST_DIVIDER_2)
#error "The rp2 port needs its settings: see settings.toml."
#endif
#ifndef PORT_BAUD
#define PORT_BAUD 115200
#endif

/* D40 2.18.2, D50 8.6.3: the VCO runs at 750 MHz to 1600 MHz, a whole multiple of the crystal. */
#define VCO_HZ ((PORT_CLOCK_HZ) * (PORT_POST_DIVIDER_1) * (PORT_POST_DIVIDER_2))
#if VCO_HZ < 750000000 || VCO_HZ > 1600000000 || VCO_HZ % PORT_CRYSTAL_HZ != 0
#error "clock_hz * post_divider_1 * post_divider_2 must be a multiple of crystal_hz, 750..1600 MHz."
#endif
#if PORT_CRYSTAL_HZ % 1000000 != 0 || PORT_CLOCK_HZ % 1000000 != 0
#error "crystal_hz and clock_hz must be whole MHz: the microsecond timer counts crystal cycles."
#endif
#define CLOCK_MHZ ((uint32_t)(PORT_CLOCK_HZ) / 1000000u)

#define REGISTER(base, offset) (*(volatile uint32_t *)((uintptr_t)(base) + (offset)))

/* Base addresses and reset bits: D40 2.2 "Address map", 2.14.3; D50 2.2, 7.5.3. */
#if PORT_CHIP == 2040
#define CLOCKS_BASE 0x40008000u
#define RESETS_BASE 0x4000C000u
#define IO_BANK0_BASE 0x40014000u
#define PADS_BANK0_BASE 0x4001C000u
#define XOSC_BASE 0x40024000u
#define PLL_SYS_BASE 0x40028000u
#define UART0_BASE 0x40034000u
#define XIP_CTRL_BASE 0x14000000u
#define RESET_IO_BANK0 (1u << 5)
#define RESET_PADS_BANK0 (1u << 8)
#define RESET_PLL_SYS (1u << 12)
#define RESET_TIMER (1u << 21)
#define RESET_UART0 (1u << 22)
#define RESET_UART1 (1u << 23)
#define SETTINGS_CACHED "xip_cache=on flash=03h flash_divider=4"
#define SETTINGS_UNCACHED "xip_cache=off flash=03h flash_divider=4"
#else
#define CLOCKS_BASE 0x40010000u
#define RESETS_BASE 0x40020000u
#define IO_BANK0_BASE 0x40028000u
#define PADS_BANK0_BASE 0x40038000u
#define XOSC_BASE 0x40048000u
#define PLL_SYS_BASE 0x40050000u
#define UART0_BASE 0x40070000u
#define XIP_CTRL_BASE 0x400C8000u
#define RESET_IO_BANK0 (1u << 6)
#define RESET_PADS_BANK0 (1u << 9)
#define RESET_PLL_SYS (1u << 14)
#define RESET_TIMER 0u /* not used */
#define RESET_UART0 (1u << 26)
#define RESET_UART1 (1u << 27)
#define SETTINGS_CACHED "xip_cache=on flash=as_boot_rom_left_it"
#define SETTINGS_UNCACHED "xip_cache=off flash=as_boot_rom_left_it"
#endif
#define RESET_UART ((PORT_UART_BASE) == UART0_BASE ? RESET_UART0 : RESET_UART1)

#define RESETS_RESET REGISTER(RESETS_BASE, 0x0)
#define RESETS_DONE REGISTER(RESETS_BASE, 0x8)

/* D40 2.15.7, D50 8.1.7. */
#define CLK_REF_CTRL REGISTER(CLOCKS_BASE, 0x30)
#define CLK_REF_SELECTED REGISTER(CLOCKS_BASE, 0x38)
#define CLK_SYS_CTRL REGISTER(CLOCKS_BASE, 0x3C)
#define CLK_SYS_SELECTED REGISTER(CLOCKS_BASE, 0x44)
#define CLK_PERI_CTRL REGISTER(CLOCKS_BASE, 0x48)
#define CLK_REF_FROM_XOSC 2u
#define CLK_SYS_FROM_PLL 1u /* SRC: the auxiliary source, which is PLL_SYS with AUXSRC 0 */
#define CLK_PERI_ENABLE (1u << 11)

/* D40 2.16.7, D50 8.2.8. */
#define XOSC_CTRL REGISTER(XOSC_BASE, 0x00)
#define XOSC_STATUS REGISTER(XOSC_BASE, 0x04)
#define XOSC_STARTUP REGISTER(XOSC_BASE, 0x0C)
#define XOSC_ENABLE_1_TO_15_MHZ 0x00FABAA0u
#define XOSC_STABLE (1u << 31)

/* D40 2.18.4, D50 8.6.5. */
#define PLL_CS REGISTER(PLL_SYS_BASE, 0x0)
#define PLL_PWR REGISTER(PLL_SYS_BASE, 0x4)
#define PLL_FBDIV REGISTER(PLL_SYS_BASE, 0x8)
#define PLL_PRIM REGISTER(PLL_SYS_BASE, 0xC)
#define PLL_LOCK (1u << 31)
#define PLL_PWR_CORE_AND_VCO (1u << 0 | 1u << 5)
#define PLL_PWR_POST_DIVIDERS (1u << 3)

/* D40 2.19.6, D50 9.11: function 2 is UART on every pin that offers it. */
#define GPIO_CTRL(pin) REGISTER(IO_BANK0_BASE, 8 * (pin) + 4)
#define GPIO_FUNCTION_UART 2u
#define PAD(pin) REGISTER(PADS_BANK0_BASE, 4 * (pin) + 4)
#define PAD_INPUT_ENABLE (1u << 6)
#define PAD_PULL_UP (1u << 3)
#define PAD_DRIVE_4_MA (1u << 4)
#define PAD_SCHMITT_TRIGGER (1u << 1)

/* PL011: D40 4.2.8, D50 12.1.8. */
#define UART_DATA REGISTER(PORT_UART_BASE, 0x00)
#define UART_FLAGS REGISTER(PORT_UART_BASE, 0x18)
#define UART_BAUD_INTEGER REGISTER(PORT_UART_BASE, 0x24)
#define UART_BAUD_FRACTION REGISTER(PORT_UART_BASE, 0x28)
#define UART_LINE REGISTER(PORT_UART_BASE, 0x2C)
#define UART_CONTROL REGISTER(PORT_UART_BASE, 0x30)
#define UART_RECEIVE_EMPTY (1u << 4)
#define UART_TRANSMIT_FULL (1u << 5)
#define UART_8_BITS_FIFO (3u << 5 | 1u << 4)
#define UART_ENABLE_BOTH (1u << 9 | 1u << 8 | 1u)
/* The divider has 6 fraction bits and counts 16 samples a bit. */
#define BAUD_DIVIDER ((4u * (uint32_t)(PORT_CLOCK_HZ) + (PORT_BAUD) / 2u) / (PORT_BAUD))

static void release(uint32_t blocks) {
  RESETS_RESET &= ~blocks;
  while ((RESETS_DONE & blocks) != blocks) {
  }
}

/* Waits here for good if the crystal does not start: without it there is no baud rate. */
static void start_clocks(void) {
  /* About 1 ms, in units of 256 crystal cycles. */
  XOSC_STARTUP = (PORT_CRYSTAL_HZ / 1000u + 128u) / 256u;
  XOSC_CTRL = XOSC_ENABLE_1_TO_15_MHZ;
  while (!(XOSC_STATUS & XOSC_STABLE)) {
  }
  /* Off the PLL before it changes: a debugger's reset leaves the clocks as they were. */
  CLK_SYS_CTRL &= ~CLK_SYS_FROM_PLL;
  while (!(CLK_SYS_SELECTED & 1u)) {
  }
  CLK_REF_CTRL = CLK_REF_FROM_XOSC;
  while (!(CLK_REF_SELECTED & 1u << CLK_REF_FROM_XOSC)) {
  }

  RESETS_RESET |= RESET_PLL_SYS;
  release(RESET_PLL_SYS);
  PLL_CS = 1; /* REFDIV */
  PLL_FBDIV = VCO_HZ / PORT_CRYSTAL_HZ;
  PLL_PWR &= ~PLL_PWR_CORE_AND_VCO;
  while (!(PLL_CS & PLL_LOCK)) {
  }
  PLL_PRIM = (uint32_t)PORT_POST_DIVIDER_1 << 16 | (uint32_t)PORT_POST_DIVIDER_2 << 12;
  PLL_PWR &= ~PLL_PWR_POST_DIVIDERS;

  /* The auxiliary source is chosen before the switch to it (D40 2.15.3.2, D50 8.1.3.2). */
  CLK_SYS_CTRL = 0;
  CLK_SYS_CTRL = CLK_SYS_FROM_PLL;
  while (!(CLK_SYS_SELECTED & 1u << CLK_SYS_FROM_PLL)) {
  }
  CLK_PERI_CTRL = CLK_PERI_ENABLE; /* AUXSRC 0: clk_sys */
}

#if defined(__riscv)

/* D50 3.1.8 "RISC-V platform timer": 64 bits that count core cycles at full speed. */
#define MTIME_CTRL REGISTER(0xD0000000u, 0x1A4)
#define MTIME REGISTER(0xD0000000u, 0x1B0)
#define MTIME_CTRL_FULL_SPEED_AND_ENABLE 3u

static void start_ticks(void) {
  MTIME_CTRL = MTIME_CTRL_FULL_SPEED_AND_ENABLE;
}

static uint32_t cycle_count(void) { return MTIME; }

#elif PORT_CHIP == 2350

#include "cortex_m.h"

static void start_ticks(void) { start_cycle_counter(); }

static uint32_t cycle_count(void) { return DWT_CYCCNT; }

#else

/* D40 4.7.6: counts once per crystal microsecond, which the watchdog's divider makes (4.7.2). */
#define WATCHDOG_TICK REGISTER(0x40058000u, 0x2C)
#define WATCHDOG_TICK_ENABLE (1u << 9)
#define TIMER_HIGH REGISTER(0x40054000u, 0x24)
#define TIMER_LOW REGISTER(0x40054000u, 0x28)
/* Armv6-M Architecture Reference Manual (DDI 0419) B3.3. */
#define SYSTICK_CONTROL REGISTER(0xE000E010u, 0)
#define SYSTICK_RELOAD REGISTER(0xE000E010u, 4)
#define SYSTICK_VALUE REGISTER(0xE000E010u, 8)
#define SYSTICK_CORE_CLOCK_AND_ENABLE 5u
#define SYSTICK_MASK 0xFFFFFFu

static uint64_t first_microsecond;

static uint64_t microseconds(void) {
  uint32_t high = TIMER_HIGH, low, again;
  for (;;) {
    low = TIMER_LOW;
    again = TIMER_HIGH;
    if (high == again) return (uint64_t)high << 32 | low;
    high = again;
  }
}

static void start_ticks(void) {
  release(RESET_TIMER);
  WATCHDOG_TICK = WATCHDOG_TICK_ENABLE | PORT_CRYSTAL_HZ / 1000000u;
  SYSTICK_RELOAD = SYSTICK_MASK;
  SYSTICK_CONTROL = SYSTICK_CORE_CLOCK_AND_ENABLE;
  first_microsecond = microseconds();
  SYSTICK_VALUE = 0;
}

#endif

#if PORT_CHIP == 2040

/* Both count the same crystal, so the timer's cycles are right to within a microsecond and SysTick's
 * 24 bits say which of those cycles it is. Never inlined: every reading is taken by the same
 * instructions, so that what surrounds them cancels out of a difference. */
__attribute__((noinline)) uint64_t port_ticks(void) {
  uint64_t coarse = (microseconds() - first_microsecond) * CLOCK_MHZ;
  uint32_t exact = (0u - SYSTICK_VALUE) & SYSTICK_MASK;
  uint32_t ahead = (exact - (uint32_t)coarse) & SYSTICK_MASK;
  /* The signed value of 24 bits; before the first microsecond has passed `coarse` is 0. */
  int32_t difference = (int32_t)(ahead << 8) >> 8;
  return coarse + (uint64_t)(int64_t)difference;
}

#else

__attribute__((noinline)) uint64_t port_ticks(void) { return wide_ticks(cycle_count()); }

#endif

void port_init(void) {
  start_clocks();
  release(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART);
  UART_BAUD_INTEGER = BAUD_DIVIDER >> 6;
  UART_BAUD_FRACTION = BAUD_DIVIDER & 63u;
  UART_LINE = UART_8_BITS_FIFO; /* after the divider, which this write latches */
  UART_CONTROL = UART_ENABLE_BOTH;
  GPIO_CTRL(PORT_TX_PIN) = GPIO_FUNCTION_UART;
  GPIO_CTRL(PORT_RX_PIN) = GPIO_FUNCTION_UART;
  /* Whole words: RP2350's pads are isolated (bit 8) until software says otherwise (D50 9.7). */
  PAD(PORT_TX_PIN) = PAD_INPUT_ENABLE | PAD_DRIVE_4_MA;
  PAD(PORT_RX_PIN) = PAD_INPUT_ENABLE | PAD_PULL_UP | PAD_SCHMITT_TRIGGER;
  start_ticks();
}

void port_putc(uint8_t byte) {
  while (UART_FLAGS & UART_TRANSMIT_FULL) {
  }
  UART_DATA = byte;
}

int port_getc(void) {
  while (UART_FLAGS & UART_RECEIVE_EMPTY) {
    /* An idle hour must not lose a wrap of a 32-bit counter. */
    (void)port_ticks();
  }
  return (int)(UART_DATA & 0xFFu);
}

void port_flush(void) {}

uint32_t port_tick_hz(void) { return port_clock_hz(); }

uint32_t port_clock_hz(void) {
  uint32_t dividers = PLL_PRIM;
  return PORT_CRYSTAL_HZ / (PLL_CS & 63u) * PLL_FBDIV / (dividers >> 16 & 7u) /
         (dividers >> 12 & 7u);
}

const char *port_clock_source(void) { return "registers"; }

/* D40 2.6.3.1, D50 4.4.1: the cache is on after reset. */
const char *port_settings(void) {
  return REGISTER(XIP_CTRL_BASE, 0) & 1u ? SETTINGS_CACHED : SETTINGS_UNCACHED;
}

uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
#if PORT_CHIP == 2350
  /* D50 13.10 "Predefined OTP data locations": CHIPID0..3, read with error correction. */
  for (uint32_t index = 0; index < 8; index++) {
    id[index] = (uint8_t)(REGISTER(0x40130000u, index & 4u) >> 8 * (index & 3u));
  }
  return 8;
#else
  /* The only unique number of an RP2040 board is its flash chip's, which cannot be read while code
   * runs from that flash. */
  (void)id;
  return 0;
#endif
}
