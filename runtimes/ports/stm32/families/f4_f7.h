/* Clocks of the STM32F4 and F7. RM0090 (F405..F439) and RM0385 (F74x) agree on these: reset and
 * clock control (RM0090 section 7.3, RM0385 5.3), power control (5.1.4 and 5.4; 4.1.4 and 4.4). */
#define RCC_CR REGISTER(0x40023800u)
#define RCC_PLLCFGR REGISTER(0x40023804u)
#define RCC_CFGR REGISTER(0x40023808u)
#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB1ENR REGISTER(0x40023840u)
#define RCC_APB2ENR REGISTER(0x40023844u)
#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define PLLCFGR_HSE (1u << 22)
#define PLLCFGR_FACTORS (0x3Fu | 0x1FFu << 6 | 3u << 16 | PLLCFGR_HSE)
#define CFGR_SW_PLL 2u
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define APB1ENR_PWREN (1u << 28)

#define PWR_CR REGISTER(0x40007000u)
#define PWR_CSR REGISTER(0x40007004u)
#define PWR_VOS (3u << 14)
#define PWR_ODEN (1u << 16)
#define PWR_ODSWEN (1u << 17)
#define PWR_ODRDY (1u << 16)
#define PWR_ODSWRDY (1u << 17)

#define FLASH_ACR REGISTER(0x40023C00u)
#define FLASH_LATENCY 0xFu
/* RM0090 3.5.1, RM0385 3.3.2: one wait state more every 30 MHz at 2.7 to 3.6 V. The F411's steps are
 * wider below 100 MHz, where this is one too many. */
#define WAIT_STATES ((PORT_CLOCK_HZ - 1u) / 30000000u)

#define GPIO(port) (0x40020000u + 0x400u * (port))
#define GPIO_CLOCKS RCC_AHB1ENR
#define USART1_BASE 0x40011000u
#define USART2_BASE 0x40004400u
#define USART3_BASE 0x40004800u
#define UART4_BASE 0x40004C00u
#define UART5_BASE 0x40005000u
#define USART6_BASE 0x40011400u
#define UART7_BASE 0x40007800u
#define UART8_BASE 0x40007C00u
#define UART_ON_APB2 (PORT_UART_BASE >= 0x40010000u)
#define UART_CLOCKS (UART_ON_APB2 ? &RCC_APB2ENR : &RCC_APB1ENR)
#define USART1_ENABLE (1u << 4)
#define USART2_ENABLE (1u << 17)
#define USART3_ENABLE (1u << 18)
#define UART4_ENABLE (1u << 19)
#define UART5_ENABLE (1u << 20)
#define USART6_ENABLE (1u << 5)
#define UART7_ENABLE (1u << 30)
#define UART8_ENABLE (1u << 31)

/* RM0090 7.3.2, RM0385 5.3.2: PLL = source / M * N / P; source / M is 1 to 2 MHz, better 2; the VCO
 * makes 192 to 432 MHz in every line. */
#define INTERNAL_HZ 16000000u
#define PLL_P                             \
  (PORT_CLOCK_HZ * 8u <= 432000000u   ? 8u \
   : PORT_CLOCK_HZ * 6u <= 432000000u ? 6u \
   : PORT_CLOCK_HZ * 4u <= 432000000u ? 4u \
                                      : 2u)
#define VCO_HZ (PORT_CLOCK_HZ * PLL_P)
#define PLL_INPUT_HZ(source) ((source) % 2000000u == 0 ? 2000000u : 1000000u)
#define PLL_FACTORS(source)                                           \
  ((source) / PLL_INPUT_HZ(source) | VCO_HZ / PLL_INPUT_HZ(source) << 6 | \
   (PLL_P / 2u - 1u) << 16)

_Static_assert(PORT_CLOCK_HZ <= LINE(CLOCK_LIMIT_), "clock_hz is above what this line allows");
_Static_assert(VCO_HZ >= 192000000u && VCO_HZ <= 432000000u, "the PLL's VCO makes 192 to 432 MHz");
_Static_assert(VCO_HZ % PLL_INPUT_HZ(INTERNAL_HZ) == 0, "the PLL cannot make clock_hz of 16 MHz");
_Static_assert(PORT_CRYSTAL_HZ % 1000000u == 0 && VCO_HZ % PLL_INPUT_HZ(PORT_CRYSTAL_HZ) == 0,
               "the PLL cannot make clock_hz of crystal_hz");
_Static_assert(PORT_CRYSTAL_HZ == 0 ||
                   (PORT_CRYSTAL_HZ >= (PORT_CRYSTAL_BYPASS ? 1000000u : 4000000u) &&
                    PORT_CRYSTAL_HZ <= (PORT_CRYSTAL_BYPASS ? 50000000u : 26000000u)),
               "crystal_hz: a crystal has 4 to 26 MHz, a clock at OSC_IN 1 to 50 MHz");

/* From the internal oscillator the core runs on after reset. Returns whether it runs on the PLL. */
static int start_pll(int from_crystal) {
  RCC_CR &= ~CR_PLLON;
  if (!wait_until(&RCC_CR, CR_PLLRDY, 0)) return 0;
  replace(&RCC_PLLCFGR, PLLCFGR_FACTORS,
          from_crystal ? PLL_FACTORS(PORT_CRYSTAL_HZ) | PLLCFGR_HSE : PLL_FACTORS(INTERNAL_HZ));
  RCC_CR |= CR_PLLON;
  if (!wait_until(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) return 0;
  if (PORT_CLOCK_HZ > LINE(OVER_DRIVE_ABOVE_)) {
    PWR_CR |= PWR_ODEN;
    if (!wait_until(&PWR_CSR, PWR_ODRDY, PWR_ODRDY)) return 0;
    PWR_CR |= PWR_ODSWEN;
    if (!wait_until(&PWR_CSR, PWR_ODSWRDY, PWR_ODSWRDY)) return 0;
  }
  replace(&RCC_CFGR, 7u << 13 | 7u << 10 | 0xFu << 4,
          PPRE_BITS(DIVIDER(PORT_CLOCK_HZ, LINE(APB2_LIMIT_))) << 13 |
              PPRE_BITS(DIVIDER(PORT_CLOCK_HZ, LINE(APB1_LIMIT_))) << 10);
  replace(&RCC_CFGR, 3u, CFGR_SW_PLL);
  return wait_until(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
}

static void start_clocks(void) {
  enable(&RCC_APB1ENR, APB1ENR_PWREN);
  /* Scale 1; it takes effect once the PLL is on. */
  replace(&PWR_CR, PWR_VOS, LINE(SCALE_BITS_) << 14);
  FLASH_ACR = FLASH_SPEED | WAIT_STATES;
  (void)wait_until(&FLASH_ACR, FLASH_LATENCY, WAIT_STATES);
  if (PORT_CRYSTAL_HZ != 0) {
    if (PORT_CRYSTAL_BYPASS) RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    if (wait_for_crystal(&RCC_CR, CR_HSERDY) && start_pll(1)) return;
  }
  (void)start_pll(0);
}

static int on_pll(void) { return (RCC_CFGR & CFGR_SWS) == CFGR_SWS_PLL; }

static int on_crystal(void) { return on_pll() && (RCC_PLLCFGR & PLLCFGR_HSE) != 0; }

static uint32_t core_hz(void) {
  uint32_t factors = RCC_PLLCFGR, hz = INTERNAL_HZ;
  if (on_pll()) {
    if (factors & PLLCFGR_HSE) hz = PORT_CRYSTAL_HZ;
    hz = hz / (factors & 0x3Fu) * (factors >> 6 & 0x1FFu) / (((factors >> 16 & 3u) + 1u) * 2u);
  }
  return ahb_divided(hz, RCC_CFGR >> 4 & 0xFu);
}

static uint32_t uart_hz(void) {
  return divided(core_hz(), RCC_CFGR >> (UART_ON_APB2 ? 13 : 10) & 7u);
}

/* What PWR_CR calls scale 1 is the fastest; over-drive goes beyond it and is told as scale 0. */
static uint32_t voltage_scale(void) { return PWR_CSR & PWR_ODSWRDY ? 0 : 1; }

static void connect_pin_supply(void) {}
