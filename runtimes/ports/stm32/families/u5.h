/* STM32U5: RM0456, with TrustZone off (TZEN = 0, as delivered), where the non-secure addresses are
 * all there is. Reset and clock control: section 11.8; power: 10.10; flash: 7.9; cache: 8.7. */
#define RCC_CR REGISTER(0x46020C00u)
#define RCC_CFGR1 REGISTER(0x46020C1Cu)
#define RCC_CFGR2 REGISTER(0x46020C20u)
#define RCC_CFGR3 REGISTER(0x46020C24u)
#define RCC_PLL1CFGR REGISTER(0x46020C28u)
#define RCC_PLL1DIVR REGISTER(0x46020C34u)
#define RCC_AHB2ENR1 REGISTER(0x46020C8Cu)
#define RCC_AHB3ENR REGISTER(0x46020C94u)
#define RCC_APB1ENR1 REGISTER(0x46020C9Cu)
#define RCC_APB2ENR REGISTER(0x46020CA4u)
#define RCC_APB3ENR REGISTER(0x46020CA8u)
#define CR_HSION (1u << 8)
#define CR_HSIRDY (1u << 10)
#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define CFGR1_SW_PLL1 3u
#define CFGR1_SWS (3u << 2)
#define CFGR1_SWS_PLL1 (3u << 2)
#define CFGR2_HPRE 0xFu
#define CFGR2_HPRE_2 8u
#define PLL1CFGR_SOURCE 3u
#define PLL1CFGR_HSI 2u
#define PLL1CFGR_HSE 3u
#define PLL1CFGR_REN (1u << 18)
#define AHB3ENR_PWREN (1u << 2)

#define PWR_VOSR REGISTER(0x4602080Cu)
#define PWR_SVMCR REGISTER(0x46020810u)
#define VOSR_BOOSTRDY (1u << 14)
#define VOSR_VOSRDY (1u << 15)
#define VOSR_VOS (3u << 16)
#define VOSR_BOOSTEN (1u << 18)
#define SVMCR_IO2SV (1u << 29)

#define FLASH_ACR REGISTER(0x40022000u)
#define FLASH_LATENCY 0xFu
#define FLASH_PREFETCH (1u << 8)
/* RM0456 7.3.3: range 1, a wait state every 32 MHz. */
#define WAIT_STATES ((PORT_CLOCK_HZ - 1u) / 32000000u)

#define ICACHE_CR REGISTER(0x40030400u)
#define ICACHE_SR REGISTER(0x40030404u)
#define ICACHE_EN 1u
#define ICACHE_BUSYF 1u

#define CLOCK_LIMIT_u585 160000000u
/* RM0456 10.5.4: range 1 and 2 want the booster beyond this. */
#define BOOST_ABOVE 55000000u
/* RM0456 11.4.4: above this the switch is made at half speed first. */
#define TWO_STEPS_ABOVE 80000000u

#define GPIO(port) (0x42020000u + 0x400u * (port))
#define GPIO_CLOCKS RCC_AHB2ENR1
#define USART1_BASE 0x40013800u
#define USART2_BASE 0x40004400u
#define USART3_BASE 0x40004800u
#define UART4_BASE 0x40004C00u
#define UART5_BASE 0x40005000u
#define LPUART1_BASE 0x46002400u
#define UART_CLOCKS                                    \
  (PORT_UART_BASE == LPUART1_BASE  ? &RCC_APB3ENR      \
   : PORT_UART_BASE == USART1_BASE ? &RCC_APB2ENR      \
                                   : &RCC_APB1ENR1)
#define USART1_ENABLE (1u << 14)
#define USART2_ENABLE (1u << 17)
#define USART3_ENABLE (1u << 18)
#define UART4_ENABLE (1u << 19)
#define UART5_ENABLE (1u << 20)
#define LPUART1_ENABLE (1u << 6)

/* RM0456 76.1. */
#define UID_BASE 0x0BFA0700u

/* RM0456 11.4.7: PLL1 = source / M * N / R; here source / M is 4 MHz. The VCO makes 128 to 544 MHz.
 * The booster wants 4 to 16 MHz of its own division of the source: by 1, 2 or 4 (codes 0, 1, 2). */
#define INTERNAL_HZ 16000000u
#define RESET_HZ 4000000u
#define PLL_INPUT_HZ 4000000u
#define PLL_R (PORT_CLOCK_HZ >= 64000000u ? 2u : PORT_CLOCK_HZ >= 32000000u ? 4u : 8u)
#define VCO_HZ (PORT_CLOCK_HZ * PLL_R)
#define BOOST_CODE(source) ((source) <= 16000000u ? 0u : (source) <= 32000000u ? 1u : 2u)
#define PLL_CONFIGURATION(source) \
  (((source) / PLL_INPUT_HZ - 1u) << 8 | BOOST_CODE(source) << 12 | PLL1CFGR_REN)
#define CRYSTAL_OR_INTERNAL_HZ (PORT_CRYSTAL_HZ == 0 ? INTERNAL_HZ : PORT_CRYSTAL_HZ)

_Static_assert(PORT_CLOCK_HZ <= LINE(CLOCK_LIMIT_), "clock_hz is above what this line allows");
_Static_assert(VCO_HZ >= 128000000u && VCO_HZ <= 544000000u, "the PLL's VCO makes 128 to 544 MHz");
_Static_assert(VCO_HZ % PLL_INPUT_HZ == 0, "clock_hz must be a multiple of 2 MHz");
_Static_assert(PORT_CRYSTAL_HZ % PLL_INPUT_HZ == 0 && PORT_CRYSTAL_HZ <= 48000000u,
               "crystal_hz must be a multiple of 4 MHz up to 48 MHz");

static int start_pll(int from_crystal) {
  RCC_CR &= ~CR_PLL1ON;
  if (!wait_until(&RCC_CR, CR_PLL1RDY, 0)) return 0;
  PWR_VOSR &= ~VOSR_BOOSTEN;
  RCC_PLL1CFGR = from_crystal ? PLL_CONFIGURATION(CRYSTAL_OR_INTERNAL_HZ) | PLL1CFGR_HSE
                              : PLL_CONFIGURATION(INTERNAL_HZ) | PLL1CFGR_HSI;
  replace(&RCC_PLL1DIVR, 0x7Fu << 24 | 0x1FFu,
          (PLL_R - 1u) << 24 | (VCO_HZ / PLL_INPUT_HZ - 1u));
  if (PORT_CLOCK_HZ > BOOST_ABOVE) PWR_VOSR |= VOSR_BOOSTEN;
  RCC_CR |= CR_PLL1ON;
  if (!wait_until(&RCC_CR, CR_PLL1RDY, CR_PLL1RDY)) return 0;
  if (PORT_CLOCK_HZ > BOOST_ABOVE && !wait_until(&PWR_VOSR, VOSR_BOOSTRDY, VOSR_BOOSTRDY)) return 0;
  replace(&RCC_CFGR2, CFGR2_HPRE, PORT_CLOCK_HZ > TWO_STEPS_ABOVE ? CFGR2_HPRE_2 : 0);
  replace(&RCC_CFGR1, 3u, CFGR1_SW_PLL1);
  if (!wait_until(&RCC_CFGR1, CFGR1_SWS, CFGR1_SWS_PLL1)) return 0;
  for (int reads = 0; reads < 100; reads++) (void)RCC_CFGR1;
  RCC_CFGR2 &= ~CFGR2_HPRE;
  return 1;
}

static void start_clocks(void) {
  enable(&RCC_AHB3ENR, AHB3ENR_PWREN);
  /* Range 1, the highest. */
  PWR_VOSR |= VOSR_VOS;
  if (!wait_until(&PWR_VOSR, VOSR_VOSRDY, VOSR_VOSRDY)) return;
  FLASH_ACR = FLASH_PREFETCH | WAIT_STATES;
  (void)wait_until(&FLASH_ACR, FLASH_LATENCY, WAIT_STATES);
  if (PORT_CRYSTAL_HZ != 0) {
    if (PORT_CRYSTAL_BYPASS) RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    if (wait_for_crystal(&RCC_CR, CR_HSERDY) && start_pll(1)) return;
  }
  RCC_CR |= CR_HSION;
  if (wait_until(&RCC_CR, CR_HSIRDY, CR_HSIRDY)) (void)start_pll(0);
}

/* Reset starts an invalidation of the cache, which must be over first (RM0456 8.4.2). The data cache
 * serves external memories only and stays off. */
static void start_memory(void) {
  if (wait_until(&ICACHE_SR, ICACHE_BUSYF, 0)) ICACHE_CR |= ICACHE_EN;
}

static int on_pll(void) { return (RCC_CFGR1 & CFGR1_SWS) == CFGR1_SWS_PLL1; }

static int on_crystal(void) {
  return on_pll() && (RCC_PLL1CFGR & PLL1CFGR_SOURCE) == PLL1CFGR_HSE;
}

static uint32_t core_hz(void) {
  uint32_t factors = RCC_PLL1DIVR, hz = RESET_HZ;
  if (on_pll()) {
    hz = on_crystal() ? PORT_CRYSTAL_HZ : INTERNAL_HZ;
    hz = hz / ((RCC_PLL1CFGR >> 8 & 0xFu) + 1u) * ((factors & 0x1FFu) + 1u);
    hz /= (factors >> 24 & 0x7Fu) + 1u;
  }
  return ahb_divided(hz, RCC_CFGR2 & 0xFu);
}

/* The peripheral buses stay at the core's speed, and the UARTs' sources at their bus. */
static uint32_t uart_hz(void) {
  uint32_t hz = core_hz();
  if (PORT_UART_BASE == LPUART1_BASE) return divided(hz, RCC_CFGR3 >> 4 & 7u);
  return divided(hz, RCC_CFGR2 >> (PORT_UART_BASE == USART1_BASE ? 8 : 4) & 7u);
}

static uint32_t voltage_scale(void) { return 4u - (PWR_VOSR >> 16 & 3u); }
static int instruction_cache_on(void) { return (ICACHE_CR & ICACHE_EN) != 0; }
static int data_cache_on(void) { return 0; }

/* RM0456 10.4.1: the pins of port G from PG2 on have a supply of their own, cut off after reset. */
static void connect_pin_supply(void) {
  if (PORT_TX >= PG2 && PORT_TX <= PG15) PWR_SVMCR |= SVMCR_IO2SV;
}
