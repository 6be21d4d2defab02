/* STM32L4 and L4+: RM0351 (L47x L48x L49x L4Ax), RM0394 (L41x to L46x), RM0432 (L4P L4Q L4R L4S).
 * Reset and clock control: RM0432 section 6.4; power control: 5.4; flash: 3.7. */
#define RCC_CR REGISTER(0x40021000u)
#define RCC_CFGR REGISTER(0x40021008u)
#define RCC_PLLCFGR REGISTER(0x4002100Cu)
#define RCC_AHB2ENR REGISTER(0x4002104Cu)
#define RCC_APB1ENR1 REGISTER(0x40021058u)
#define RCC_APB1ENR2 REGISTER(0x4002105Cu)
#define RCC_APB2ENR REGISTER(0x40021060u)
#define CR_HSION (1u << 8)
#define CR_HSIRDY (1u << 10)
#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW_PLL 3u
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_PLL (3u << 2)
#define CFGR_HPRE (0xFu << 4)
#define CFGR_HPRE_2 (8u << 4)
#define PLLCFGR_SOURCE 3u
#define PLLCFGR_HSI 2u
#define PLLCFGR_HSE 3u
#define PLLCFGR_REN (1u << 24)
#define APB1ENR1_PWREN (1u << 28)

#define PWR_CR1 REGISTER(0x40007000u)
#define PWR_CR2 REGISTER(0x40007004u)
#define PWR_SR2 REGISTER(0x40007014u)
#define PWR_CR5 REGISTER(0x40007080u)
#define CR1_VOS (3u << 9)
#define CR1_VOS_RANGE_1 (1u << 9)
#define CR2_IOSV (1u << 9)
#define SR2_VOSF (1u << 10)
#define CR5_R1MODE (1u << 8)

/* RM0351 3.7.1, RM0432 3.7.1: prefetch, instruction cache, data cache. */
#define FLASH_ACR REGISTER(0x40022000u)
#define FLASH_LATENCY 0xFu
#define FLASH_SPEED (1u << 8 | 1u << 9 | 1u << 10)
/* Range 1: a wait state every 16 MHz (RM0351 table 11), every 20 MHz in an L4+ (RM0432 table 12). */
#define WAIT_STATES ((PORT_CLOCK_HZ - 1u) / LINE(WAIT_STEP_))
#define WAIT_STEP_l476 16000000u
#define WAIT_STEP_l4r5 20000000u

#define CLOCK_LIMIT_l476 80000000u
#define CLOCK_LIMIT_l4r5 120000000u
/* RM0432 5.1.8: above this range 1 must be boosted, and the step up be made in two. */
#define BOOST_ABOVE 80000000u

#define GPIO(port) (0x48000000u + 0x400u * (port))
#define GPIO_CLOCKS RCC_AHB2ENR
#define USART1_BASE 0x40013800u
#define USART2_BASE 0x40004400u
#define USART3_BASE 0x40004800u
#define UART4_BASE 0x40004C00u
#define UART5_BASE 0x40005000u
#define LPUART1_BASE 0x40008000u
#define UART_CLOCKS                                      \
  (PORT_UART_BASE == LPUART1_BASE    ? &RCC_APB1ENR2     \
   : PORT_UART_BASE == USART1_BASE   ? &RCC_APB2ENR      \
                                     : &RCC_APB1ENR1)
#define USART1_ENABLE (1u << 14)
#define USART2_ENABLE (1u << 17)
#define USART3_ENABLE (1u << 18)
#define UART4_ENABLE (1u << 19)
#define UART5_ENABLE (1u << 20)
#define LPUART1_ENABLE (1u << 0)

/* RM0351 49.1, RM0432 59.1. */
#define UID_BASE 0x1FFF7590u

/* RM0351 6.2.5, RM0432 6.2.5: PLL = source / M * N / R; here source / M is 4 MHz. The VCO makes 64
 * to 344 MHz. */
#define INTERNAL_HZ 16000000u
#define RESET_HZ 4000000u
#define PLL_INPUT_HZ 4000000u
#define PLL_R                             \
  (PORT_CLOCK_HZ * 8u <= 344000000u   ? 8u \
   : PORT_CLOCK_HZ * 6u <= 344000000u ? 6u \
   : PORT_CLOCK_HZ * 4u <= 344000000u ? 4u \
                                      : 2u)
#define VCO_HZ (PORT_CLOCK_HZ * PLL_R)
#define PLL_FACTORS(source)                                                      \
  (((source) / PLL_INPUT_HZ - 1u) << 4 | VCO_HZ / PLL_INPUT_HZ << 8 | PLLCFGR_REN | \
   (PLL_R / 2u - 1u) << 25)
#define CRYSTAL_OR_INTERNAL_HZ (PORT_CRYSTAL_HZ == 0 ? INTERNAL_HZ : PORT_CRYSTAL_HZ)

_Static_assert(PORT_CLOCK_HZ <= LINE(CLOCK_LIMIT_), "clock_hz is above what this line allows");
_Static_assert(VCO_HZ >= 64000000u && VCO_HZ <= 344000000u, "the PLL's VCO makes 64 to 344 MHz");
_Static_assert(VCO_HZ % PLL_INPUT_HZ == 0, "clock_hz must be a multiple of 2 MHz");
_Static_assert(PORT_CRYSTAL_HZ % PLL_INPUT_HZ == 0 && PORT_CRYSTAL_HZ <= 32000000u,
               "crystal_hz must be a multiple of 4 MHz up to 32 MHz");

/* From the multi-speed oscillator the core runs on after reset. */
static int start_pll(int from_crystal) {
  RCC_CR &= ~CR_PLLON;
  if (!wait_until(&RCC_CR, CR_PLLRDY, 0)) return 0;
  RCC_PLLCFGR = from_crystal ? PLL_FACTORS(CRYSTAL_OR_INTERNAL_HZ) | PLLCFGR_HSE
                             : PLL_FACTORS(INTERNAL_HZ) | PLLCFGR_HSI;
  RCC_CR |= CR_PLLON;
  if (!wait_until(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) return 0;
  replace(&RCC_CFGR, CFGR_HPRE, PORT_CLOCK_HZ > BOOST_ABOVE ? CFGR_HPRE_2 : 0);
  replace(&RCC_CFGR, 3u, CFGR_SW_PLL);
  if (!wait_until(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL)) return 0;
  /* At least a microsecond at half speed; 100 reads take far longer. */
  for (int reads = 0; reads < 100; reads++) (void)RCC_CFGR;
  RCC_CFGR &= ~CFGR_HPRE;
  return 1;
}

static void start_clocks(void) {
  enable(&RCC_APB1ENR1, APB1ENR1_PWREN);
  replace(&PWR_CR1, CR1_VOS, CR1_VOS_RANGE_1);
  if (!wait_until(&PWR_SR2, SR2_VOSF, 0)) return;
  if (PORT_CLOCK_HZ > BOOST_ABOVE) PWR_CR5 &= ~CR5_R1MODE;
  FLASH_ACR = FLASH_SPEED | WAIT_STATES;
  (void)wait_until(&FLASH_ACR, FLASH_LATENCY, WAIT_STATES);
  if (PORT_CRYSTAL_HZ != 0) {
    if (PORT_CRYSTAL_BYPASS) RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    if (wait_for_crystal(&RCC_CR, CR_HSERDY) && start_pll(1)) return;
  }
  RCC_CR |= CR_HSION;
  if (wait_until(&RCC_CR, CR_HSIRDY, CR_HSIRDY)) (void)start_pll(0);
}

static int on_pll(void) { return (RCC_CFGR & CFGR_SWS) == CFGR_SWS_PLL; }

static int on_crystal(void) {
  return on_pll() && (RCC_PLLCFGR & PLLCFGR_SOURCE) == PLLCFGR_HSE;
}

static uint32_t core_hz(void) {
  uint32_t factors = RCC_PLLCFGR, hz = RESET_HZ;
  if (on_pll()) {
    hz = on_crystal() ? PORT_CRYSTAL_HZ : INTERNAL_HZ;
    hz = hz / ((factors >> 4 & 0xFu) + 1u) * (factors >> 8 & 0x7Fu);
    hz /= ((factors >> 25 & 3u) + 1u) * 2u;
  }
  return ahb_divided(hz, RCC_CFGR >> 4 & 0xFu);
}

/* Both peripheral buses stay at the core's speed, and the UARTs' sources at their bus. */
static uint32_t uart_hz(void) {
  return divided(core_hz(), RCC_CFGR >> (PORT_UART_BASE == USART1_BASE ? 11 : 8) & 7u);
}

static uint32_t voltage_scale(void) { return PWR_CR1 >> 9 & 3u; }
static int instruction_cache_on(void) { return (FLASH_ACR >> 9 & 1u) != 0; }
static int data_cache_on(void) { return (FLASH_ACR >> 10 & 1u) != 0; }
static void start_memory(void) {}

/* RM0351 5.1.3: the pins of port G from PG2 on have a supply of their own, cut off after reset. */
static void connect_pin_supply(void) {
  if (PORT_TX >= PG2 && PORT_TX <= PG15) PWR_CR2 |= CR2_IOSV;
}
