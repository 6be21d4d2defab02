/* STM32H7: RM0433 (H742 743 750 753), RM0399 (H745 747 755 757), RM0468 (H723 725 730 733 735),
 * RM0455 (H7A3 7B0 7B3), whose domains are called CD and SRD and whose clock enables lie 0x60 higher.
 * Reset and clock control: RM0433 section 8.7; power control: 6.8; flash: 4.9. */
#define RCC_CR REGISTER(0x58024400u)
#define RCC_CFGR REGISTER(0x58024410u)
#define RCC_D1CFGR REGISTER(0x58024418u)
#define RCC_D2CFGR REGISTER(0x5802441Cu)
#define RCC_D3CFGR REGISTER(0x58024420u)
#define RCC_PLLCKSELR REGISTER(0x58024428u)
#define RCC_PLLCFGR REGISTER(0x5802442Cu)
#define RCC_PLL1DIVR REGISTER(0x58024430u)
#define ENABLES_HIGHER_BY_h743 0u
#define ENABLES_HIGHER_BY_h723 0u
#define ENABLES_HIGHER_BY_h7a3 0x60u
#define RCC_AHB2ENR REGISTER(0x580244DCu + LINE(ENABLES_HIGHER_BY_))
#define RCC_AHB4ENR REGISTER(0x580244E0u + LINE(ENABLES_HIGHER_BY_))
#define RCC_APB1LENR REGISTER(0x580244E8u + LINE(ENABLES_HIGHER_BY_))
#define RCC_APB2ENR REGISTER(0x580244F0u + LINE(ENABLES_HIGHER_BY_))
#define RCC_APB4ENR REGISTER(0x580244F4u + LINE(ENABLES_HIGHER_BY_))
#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define CFGR_SW_PLL1 3u
#define CFGR_SWS (7u << 3)
#define CFGR_SWS_PLL1 (3u << 3)
#define PLLCKSELR_SOURCE 3u
#define PLLCKSELR_HSE 2u
#define PLLCKSELR_DIVM1 (0x3Fu << 4)
#define PLLCFGR_PLL1 0xFu
#define PLLCFGR_PLL1_INPUT_2_TO_4_MHZ (1u << 2)
#define PLLCFGR_DIVP1EN (1u << 16)
#define PLL1DIVR_N_AND_P 0xFFFFu
#define AHB2ENR_SRAMS (7u << 29)
#define APB4ENR_SYSCFG (1u << 1)

#define PWR_CSR1 REGISTER(0x58024804u)
#define PWR_CR3 REGISTER(0x5802480Cu)
#define PWR_D3CR REGISTER(0x58024818u)
#define CSR1_ACTVOSRDY (1u << 13)
/* The supply, written once after power-on (RM0433 6.4.1, RM0399 7.4.1); bit 2 is SCUEN on parts
 * without an SMPS, which is written as 0 with the LDO. */
#define CR3_SUPPLY 7u
#define SUPPLY_external 1u
#define SUPPLY_ldo 2u
#define SUPPLY_smps 4u
#define D3CR_VOSRDY (1u << 13)
#define D3CR_VOS (3u << 14)
#define SYSCFG_PWRCR REGISTER(0x5800042Cu)
#define PWRCR_ODEN 1u

#define FLASH_ACR REGISTER(0x52002000u)
#define FLASH_LATENCY 0xFu

/* The H743 runs at 480 MHz from revision V on, at scale 0, which is scale 1 and the boost in SYSCFG
 * (RM0433 6.6.2); at 400 MHz it needs neither. The H723 has scale 0 in PWR, and beyond 520 MHz wants
 * the option CPUFREQ_BOOST, which is not ours to set (RM0468 6.6.2). The H7A3 has scale 0 in PWR too
 * (RM0455 6.6.2). */
#define CLOCK_LIMIT_h743 480000000u
#define CLOCK_LIMIT_h723 520000000u
#define CLOCK_LIMIT_h7a3 280000000u
#define BUS_LIMIT_h743 240000000u
#define BUS_LIMIT_h723 275000000u
#define BUS_LIMIT_h7a3 280000000u
#define BOOST_ABOVE_h743 400000000u
#define BOOST_ABOVE_h723 CLOCK_LIMIT_h723
#define BOOST_ABOVE_h7a3 CLOCK_LIMIT_h7a3
#define SCALE_BITS_h743 3u
#define SCALE_BITS_h723 0u
#define SCALE_BITS_h7a3 3u
#define SCALE_h743 (SYSCFG_PWRCR & PWRCR_ODEN ? 0u : 1u)
#define SCALE_h723 0u
#define SCALE_h7a3 0u
#define VCO_LIMIT_h743 960000000u
#define VCO_LIMIT_h723 836000000u
#define VCO_LIMIT_h7a3 560000000u

/* A constant, as a macro inside LINE() cannot use LINE() itself. */
enum { BUS_DIVIDER = PORT_CLOCK_HZ <= LINE(BUS_LIMIT_) ? 1 : 2 };
#define BUS_HZ (PORT_CLOCK_HZ / (uint32_t)BUS_DIVIDER)
#define HPRE_BITS (BUS_DIVIDER == 1 ? 0u : 8u)
/* Half the bus clock at most. */
#define APB_BITS PPRE_BITS(DIVIDER(BUS_HZ, LINE(BUS_LIMIT_) / 2u))

/* Wait states and programming delay by AXI clock, at the scale above: RM0433 table 17, RM0468 table
 * 15. */
#define ACR_h743                       \
  (BUS_HZ <= 70000000u    ? 0x00u      \
   : BUS_HZ <= 140000000u ? 0x11u      \
   : BUS_HZ <= 185000000u ? 0x12u      \
   : BUS_HZ <= 210000000u ? 0x22u      \
   : BUS_HZ <= 225000000u ? 0x23u      \
                          : 0x24u)
#define ACR_h723                  \
  (BUS_HZ <= 70000000u    ? 0x00u \
   : BUS_HZ <= 140000000u ? 0x11u \
   : BUS_HZ <= 210000000u ? 0x22u \
                          : 0x33u)
/* RM0455 table 15 at scale 0; its steps are a little wider. */
#define ACR_h7a3 (0x30u | (BUS_HZ - 1u) / 42000000u)
#define FLASH_SPEED LINE(ACR_)

#define GPIO(port) (0x58020000u + 0x400u * (port))
#define GPIO_CLOCKS RCC_AHB4ENR
#define USART1_BASE 0x40011000u
#define USART2_BASE 0x40004400u
#define USART3_BASE 0x40004800u
#define UART4_BASE 0x40004C00u
#define UART5_BASE 0x40005000u
#define USART6_BASE 0x40011400u
#define UART7_BASE 0x40007800u
#define UART8_BASE 0x40007C00u
#define LPUART1_BASE 0x58000C00u
#define UART_ON_APB4 (PORT_UART_BASE >= 0x58000000u)
#define UART_ON_APB2 (PORT_UART_BASE >= 0x40010000u && !UART_ON_APB4)
#define UART_CLOCKS (UART_ON_APB4 ? &RCC_APB4ENR : UART_ON_APB2 ? &RCC_APB2ENR : &RCC_APB1LENR)
#define USART1_ENABLE (1u << 4)
#define USART2_ENABLE (1u << 17)
#define USART3_ENABLE (1u << 18)
#define UART4_ENABLE (1u << 19)
#define UART5_ENABLE (1u << 20)
#define USART6_ENABLE (1u << 5)
#define UART7_ENABLE (1u << 30)
#define UART8_ENABLE (1u << 31)
#define LPUART1_ENABLE (1u << 3)

/* RM0433 61.1, RM0468 63.1; RM0455 58.1. */
#define UID_BASE_h743 0x1FF1E800u
#define UID_BASE_h723 0x1FF1E800u
#define UID_BASE_h7a3 0x08FFF800u
#define UID_BASE LINE(UID_BASE_)

/* RM0433 8.5.5: PLL1 = source / M * N / P. Here source / M is 2 MHz, P 1 (the H723 only) or even. */
#define INTERNAL_HZ 64000000u
#define PLL_INPUT_HZ 2000000u
#define PLL_P (PORT_CLOCK_HZ * 2u <= LINE(VCO_LIMIT_) ? 2u : 1u)
#define VCO_HZ (PORT_CLOCK_HZ * PLL_P)

_Static_assert(PORT_CLOCK_HZ <= LINE(CLOCK_LIMIT_), "clock_hz is above what this line allows");
_Static_assert(VCO_HZ >= 192000000u && VCO_HZ <= LINE(VCO_LIMIT_), "the PLL's VCO cannot do this");
_Static_assert(VCO_HZ % PLL_INPUT_HZ == 0, "clock_hz must be a multiple of 1 MHz");
_Static_assert(PORT_CRYSTAL_HZ % PLL_INPUT_HZ == 0, "crystal_hz must be a multiple of 2 MHz");
_Static_assert(PORT_CRYSTAL_HZ == 0 || (PORT_CRYSTAL_HZ >= 4000000u && PORT_CRYSTAL_HZ <= 50000000u),
               "crystal_hz: 4 to 50 MHz");

/* RM0433 2.4: the SRAMs of the second domain have clocks of their own, off after reset. */
static void start_memory(void) {
  enable(&RCC_AHB2ENR, AHB2ENR_SRAMS);
  start_caches();
}

static int start_pll(int from_crystal) {
  RCC_CR &= ~CR_PLL1ON;
  if (!wait_until(&RCC_CR, CR_PLL1RDY, 0)) return 0;
  replace(&RCC_PLLCKSELR, PLLCKSELR_DIVM1 | PLLCKSELR_SOURCE,
          from_crystal ? PORT_CRYSTAL_HZ / PLL_INPUT_HZ << 4 | PLLCKSELR_HSE
                       : INTERNAL_HZ / PLL_INPUT_HZ << 4);
  /* The wide VCO, no fraction. */
  replace(&RCC_PLLCFGR, PLLCFGR_PLL1, PLLCFGR_PLL1_INPUT_2_TO_4_MHZ | PLLCFGR_DIVP1EN);
  replace(&RCC_PLL1DIVR, PLL1DIVR_N_AND_P, (VCO_HZ / PLL_INPUT_HZ - 1u) | (PLL_P - 1u) << 9);
  RCC_CR |= CR_PLL1ON;
  if (!wait_until(&RCC_CR, CR_PLL1RDY, CR_PLL1RDY)) return 0;
  replace(&RCC_CFGR, 7u, CFGR_SW_PLL1);
  return wait_until(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL1);
}

/* Whether the core's voltage is up; without it the core stays as slow as after reset. */
static int raise_voltage(void) {
  replace(&PWR_CR3, CR3_SUPPLY, JOIN(SUPPLY_, PORT_SUPPLY));
  if (!wait_until(&PWR_CSR1, CSR1_ACTVOSRDY, CSR1_ACTVOSRDY)) return 0;
  replace(&PWR_D3CR, D3CR_VOS, LINE(SCALE_BITS_) << 14);
  if (!wait_until(&PWR_D3CR, D3CR_VOSRDY, D3CR_VOSRDY)) return 0;
  if (PORT_CLOCK_HZ <= LINE(BOOST_ABOVE_)) return 1;
  enable(&RCC_APB4ENR, APB4ENR_SYSCFG);
  SYSCFG_PWRCR |= PWRCR_ODEN;
  return wait_until(&PWR_D3CR, D3CR_VOSRDY, D3CR_VOSRDY);
}

static void start_clocks(void) {
  if (!raise_voltage()) return;
  FLASH_ACR = FLASH_SPEED;
  (void)wait_until(&FLASH_ACR, 0x3Fu, FLASH_SPEED);
  RCC_D1CFGR = HPRE_BITS | APB_BITS << 4;
  RCC_D2CFGR = APB_BITS << 4 | APB_BITS << 8;
  RCC_D3CFGR = APB_BITS << 4;
  if (PORT_CRYSTAL_HZ != 0) {
    if (PORT_CRYSTAL_BYPASS) RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    if (wait_for_crystal(&RCC_CR, CR_HSERDY) && start_pll(1)) return;
  }
  (void)start_pll(0);
}

static int on_pll(void) { return (RCC_CFGR & CFGR_SWS) == CFGR_SWS_PLL1; }

static int on_crystal(void) {
  return on_pll() && (RCC_PLLCKSELR & PLLCKSELR_SOURCE) == PLLCKSELR_HSE;
}

static uint32_t core_hz(void) {
  uint32_t hz = INTERNAL_HZ, factors = RCC_PLL1DIVR;
  if (on_pll()) {
    if (on_crystal()) hz = PORT_CRYSTAL_HZ;
    hz = hz / (RCC_PLLCKSELR >> 4 & 0x3Fu) * ((factors & 0x1FFu) + 1u);
    hz /= (factors >> 9 & 0x7Fu) + 1u;
  }
  return ahb_divided(hz, RCC_D1CFGR >> 8 & 0xFu);
}

static uint32_t uart_hz(void) {
  uint32_t hz = ahb_divided(core_hz(), RCC_D1CFGR & 0xFu);
  if (UART_ON_APB4) return divided(hz, RCC_D3CFGR >> 4 & 7u);
  return divided(hz, RCC_D2CFGR >> (UART_ON_APB2 ? 8 : 4) & 7u);
}

static uint32_t voltage_scale(void) { return LINE(SCALE_); }
static int instruction_cache_on(void) { return (SCB_CCR & CCR_INSTRUCTION_CACHE) != 0; }
static int data_cache_on(void) { return (SCB_CCR & CCR_DATA_CACHE) != 0; }
static void connect_pin_supply(void) {}
